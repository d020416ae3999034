"""A context that starts a cluster of Ray, or uses one that runs already."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fuscore_metric.errors import CheckpointError, InputError, MissingPackageError

SPARE_CPUS = 2
"""CPUs of a cluster that we start which are left for reading and shuffling beside the actors."""
STORE_BYTES, STORE_BYTES_A_ROW, MOST_STORE_BYTES = 200 * 10**6, 1000, 4 * 10**9
LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray listens on all interfaces unless it believes that there are no clusters here; read when
    # Ray is imported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Otherwise Ray warns of actors that Ray Data makes, and whose arguments it keeps.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""The environment of a cluster that we start; variables that are set already stay."""
OUR_ERRORS = (InputError, CheckpointError, MissingPackageError)
OUR_ERROR = re.compile(
    rf"^[\w.]*\b(?P<kind>{'|'.join(e.__name__ for e in OUR_ERRORS)}): (?P<message>.+)$",
    re.MULTILINE,
)
"""Finds our error in the text of one of Ray's, which has nothing else of what an actor raised."""


@contextmanager
def cluster(address: str | None, need: dict[str, float], rows: int) -> Iterator[None]:
    """Use the cluster of this process, or that at an address, or start one on this machine."""
    if address is None:
        for name, value in LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address} if address is not None else _local(need, rows)
    on_kill = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_kill)  # Ray sets its own, which leaves without tables
    try:
        has = ray.cluster_resources()
        if address is None and has.get("GPU", 0) < need["GPU"]:
            raise InputError(
                f"Expected {need['GPU']:g} GPUs for all actors, this machine has "
                f"{has.get('GPU', 0):g}: fewer actors, or a smaller share for each"
            )
        yield
    finally:
        ray.shutdown()


def _local(need: dict[str, float], rows: int) -> dict[str, Any]:
    """The options of `ray.init` for a cluster on this machine."""
    store = STORE_BYTES + STORE_BYTES_A_ROW * rows
    return {
        # As many as the actors and the manifest's reader ask for: otherwise they wait for ever.
        "num_cpus": max(math.ceil(need["CPU"]), os.cpu_count() or 1),
        "object_store_memory": min(store, MOST_STORE_BYTES),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray Data from printing its own bars and notes."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    with ray.data.DataContext.current(context):
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what an actor or task raised for the user, not Ray's report of it."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        if (found := OUR_ERROR.search(str(error))) is None:
            raise
        kinds = {kind.__name__: kind for kind in OUR_ERRORS}
        raise kinds[found["kind"]](found["message"]) from error
