"""How long OpenMP's threads wait in a busy loop: too long where other programs want the cores."""

from __future__ import annotations

import os

SET_BY_USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
TURNS = "1000"


def wait_briefly() -> None:
    """Have threads that are out of work sleep soon, unless the user has set how they should wait.

    A thread that waits in a busy loop keeps its core, and beside another busy program it keeps it
    from the very thread that it waits for. Threads that sleep at once are slower on a quiet
    machine; a short loop is not (`python -m benchmarks.beside_others`).

    OpenMP reads its settings when it is loaded, so this has to come before torch is imported, and
    it is for a process of our own only.
    """
    if not any(name in os.environ for name in SET_BY_USERS):
        os.environ["GOMP_SPINCOUNT"] = TURNS
