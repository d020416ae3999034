"""Images, weights and results without permission: nothing is lost, and a run goes on."""

import pytest

from tests.helpers.faults import forked, tmpfs, without_root
from tests.helpers.runs import ROWS, goes_on, journal, one_line


def test_a_folder_that_may_not_be_read(rank, images, tmp_path):
    for name in ("ir", "methods/a"):
        (images / name).chmod(0)
        done = forked(without_root(rank(tmp_path / "out")))
        assert done.status == 2
        # Of an option's own value the command line says it.
        words = {"ir": "is not readable"}.get(name, "Cannot read the folder of a, ")
        assert words in done.err.splitlines()[-1]
        assert str(images / name) in done.err.splitlines()[-1]
        (images / name).chmod(0o755)
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_is_a_row(rank, images, tmp_path):
    out, path = tmp_path / "out", images / "methods" / "a" / "1.png"
    path.chmod(0)
    done = forked(without_root(rank(out)))
    assert done.status == 1
    assert f"failed: 1, a: Expected `fused` as a readable image, got {str(path)!r}" in done.err
    assert [row["error"] is None for row in journal(out)].count(False) == 1
    assert len(journal(out)) == ROWS
    path.chmod(0o644)
    goes_on(rank(out), out, ROWS - 1)


def test_weights_that_may_not_be_read(rank, weights, tmp_path):
    for path in (weights, weights / "model.safetensors", weights / "fuscore.json"):
        mode = path.stat().st_mode
        path.chmod(0)
        try:
            one_line(forked(without_root(rank(tmp_path / "out"))), str(weights), "denied")
        finally:
            path.chmod(mode)


@pytest.mark.parametrize(
    "name", ["rows.jsonl", *(pytest.param(n, marks=pytest.mark.slow) for n in (".", "run.json"))]
)
def test_results_that_may_not_be_read_or_written(rank, tmp_path, name):
    out = tmp_path / "out"
    assert forked(rank(out)).status == 0
    before = journal(out)
    for mode in (0, 0o555 if name == "." else 0o444):
        (out / name).chmod(mode)
        done = forked(without_root(rank(out)))
        if name == "run.json" and mode:
            assert done.status == 0  # it is only read
        elif name == "." and not mode:
            assert done.status == 2
            assert done.err.endswith(f"{str(out)!r} is not readable.\n")
        else:
            one_line(done, "Permission denied")
        (out / name).chmod(0o755)
    assert journal(out) == before
    goes_on(rank(out), out, ROWS)


def test_tables_that_may_not_be_removed_stay(rank, tmp_path):
    with tmpfs(tmp_path / "disk", "1m") as disk:
        out = disk / "out"
        assert forked(rank(out)).status == 0
        out.chmod(0o555)
        (out / ".lock").chmod(0o666)
        one_line(forked(without_root(rank(out, "--overwrite"))), "Permission denied")
        out.chmod(0o755)
        goes_on(rank(out), out, ROWS)
