"""Computing in a process that was forked: without the threads that its parent had."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

log = logging.getLogger(__name__)

_forked = False
"""Whether this process was forked after this module was imported, and has not computed since."""


def in_forked(forget: Callable[[], None]) -> None:
    """Have a function run in every process that is forked from this one, before anything else."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=forget)


def _remember() -> None:
    global _forked
    _forked = True


in_forked(_remember)


def outlast_fork() -> None:
    """Compute in one thread from here on, if this process was forked; a warning says so.

    The threads of OpenMP, which PyTorch computes with, do not live on in a forked process, but its
    first loop over several of them would wait for them for ever: after any arithmetic in the
    parent, also that of loading weights. Whether there was any cannot be told.
    """
    global _forked
    if not _forked:
        return
    import torch

    _forked = False
    if (threads := torch.get_num_threads()) > 1:
        log.warning(
            "in a forked process: computing in one thread. Start processes by spawn or forkserver "
            "to compute in %d",
            threads,
        )
        torch.set_num_threads(1)
