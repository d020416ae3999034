"""Too little memory while triples are scored: rows say so, and a run goes on."""

import pytest
import torch

from fuscore_metric import cli
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.results.read import read_results
from tests.helpers.faults import forked
from tests.helpers.runs import (
    METHODS,
    ROWS,
    SCENES,
    command,
    goes_on,
    journal,
    one_line,
    triple_options,
    write_images,
)


@pytest.fixture
def little_memory(monkeypatch):
    """Enough for images of 40x48, not for those of 768x1024; the error is PyTorch's own.

    A limit of the process (`RLIMIT_AS`) was tried: how much fits below it depends on the versions
    of everything, and on what the process did before.
    """
    look = LiteLlama._statistics

    def looked(self, images, references=()):
        if images.shape[-1] > 500:
            torch.empty(1 << 60, dtype=torch.uint8)  # 1 EiB
        return look(self, images, references)

    monkeypatch.setattr(LiteLlama, "_statistics", looked)


def test_too_little_memory_for_one_scene(rank, images, tmp_path, little_memory, monkeypatch):
    write_images(images, [SCENES], (768, 1024))
    out = tmp_path / "out"
    options = ["--batch-size", 2]
    done = forked(rank(out, *options))
    assert done.status == 1, done.err
    assert "out of memory with 2 triples at once, going on with 1" in done.err
    rows = {(row["scene"], row["method"]): row for row in journal(out)}
    failed = [row for row in rows.values() if row["error"] is not None]
    assert {row["scene"] for row in failed} == {str(SCENES)}
    for row in failed:
        assert row["error"].startswith("out of memory with this triple alone; smaller images or")
    assert len(rows) == ROWS + len(METHODS)
    monkeypatch.undo()
    done = forked(rank(out, *options))
    assert done.status == 0, done.err
    assert f"{ROWS} of {ROWS + len(METHODS)} triples are in" in done.err
    assert read_results(out).table["error"].isna().all()


def test_too_little_memory_for_a_single_image(images, weights, little_memory):
    write_images(images, [0], (768, 1024))
    done = forked(command("score", *triple_options(images, weights)))
    one_line(done, "out of memory with this triple alone; smaller images or more memory help")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: no")])
def test_too_little_memory_for_anything_else_is_one_line(rank, tmp_path, monkeypatch, error):
    def lacking(*_, **__):
        raise error

    monkeypatch.setattr(cli.rank, "_show", lacking)
    one_line(forked(rank(tmp_path / "out")), "out of memory")
    monkeypatch.undo()
    goes_on(rank(tmp_path / "out"), tmp_path / "out", ROWS)


def test_our_own_mistakes_are_no_lack_of_memory():
    assert cli._message(RuntimeError("a bug")) is None
