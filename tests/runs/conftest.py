"""Images and manifests to be scored, and `fuscore rank` on them.

Faults are tested in test_full_disk.py, test_permissions.py, test_little_memory.py, test_clock.py
and test_interruptions.py. Elsewhere: a worker that is killed in test_ray_killed.py, a hub that is
down in test_hub.py, kill -9 and signals to whole commands in test_rank.py and test_terminal.py.
"""

import os
import sys
import tempfile
from pathlib import Path
from shutil import rmtree

import pytest

from fuscore_metric import cli


@pytest.fixture(scope="module")
def cluster():
    """Ray with CPUs for two actors and for reading, on the loopback interface; one a process."""
    from fuscore_metric.runs import ray_cluster

    before = {name: os.environ.get(name) for name in ray_cluster.LOCAL_ENVIRONMENT}
    os.environ.update(ray_cluster.LOCAL_ENVIRONMENT)
    import ray

    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # Ray's sockets need a short path
    ray.init(
        num_cpus=4,
        object_store_memory=200 * 10**6,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    rmtree(folder, ignore_errors=True)
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def triples(tmp_path):
    from tests.helpers.runs import make_triples  # not at the top: it needs the extra [report]

    return make_triples(tmp_path)


@pytest.fixture
def images(tmp_path) -> Path:
    from tests.helpers.runs import (  # not at the top: it needs the extra [report]
        SCENES,
        write_images,
    )

    write_images(tmp_path / "data", range(SCENES), (40, 48))
    return tmp_path / "data"


@pytest.fixture
def rank(images, weights):
    """`fuscore rank` with its run folder, one triple at a time."""

    def with_folders(out, *options, **folders):
        line = ["fuscore", "rank", "--out", out, "--batch-size", 1]
        for name, place in (("ir", "ir"), ("vis", "vis"), ("methods-root", "methods")):
            line += [f"--{name}", folders.get(name, images / place)]
        given = [*line, "--model", folders.get("weights", weights), *options]

        def run():
            sys.argv = [str(part) for part in given]
            cli.main()

        return run

    return with_folders
