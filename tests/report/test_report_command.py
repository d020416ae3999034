"""`fuscore report`: what it writes, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from fuscore_metric import cli
from fuscore_metric.checkpoints.locate import fingerprint, locate
from tests.helpers.report_tables import SETTINGS, Page, write_parquet


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `fuscore report` in this process: exit status, stdout, stderr."""

    def run_one(*arguments):
        monkeypatch.setattr(sys, "argv", ["fuscore", "report", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as leave:
            status = leave.code or 0
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return run_one


@pytest.fixture(scope="module")
def results(pictures, tmp_path_factory):
    """A stored table of the embedded weights, by its hash, whose pictures exist."""
    settings = SETTINGS | {"weights_hash": fingerprint(locate("embedded"))}
    return write_parquet(pictures, settings, tmp_path_factory.mktemp("results") / "results.parquet")


def test_the_command_makes_page_and_figures(run, results, tmp_path):
    done = run(results, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    assert written[0] == tmp_path / "page.html"
    assert {path.name for path in written[1:]} == {
        f"{name}.{suffix}"
        for name in ("distribution", "aspects", "aspect-profiles", "preferences", "ranks")
        for suffix in ("pdf", "png")
    }
    assert all(path.stat().st_size > 1000 for path in written)
    page = (tmp_path / "page.html").read_text()
    words = Page(page).words
    assert words.count(" lost score") == 2
    assert f"fuscore report {results}" in words
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_other_weights_are_named_and_draw_no_maps(run, pictures, tmp_path):
    path = write_parquet(pictures, SETTINGS, tmp_path / "results.parquet")
    done = run(path, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    words = Page((tmp_path / "page.html").read_text()).words
    assert "not those that gave the scores" in words
    assert "not those that gave the scores" in done.stderr
    assert " lost score" not in words
    done = run(path, "-o", tmp_path / "page.html", "--no-attribution", "--no-progress")
    assert (done.returncode, done.stderr) == (0, "")
    assert "No maps" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["missing.parquet"], "missing.parquet"),
        ([], "RESULTS"),
        (["RESULTS", "-o", "no/such/folder/page.html"], "--out"),
        (["RESULTS", "-o", "."], "--out"),
        (["RESULTS", "--figures", "RESULTS"], "--figures"),
        (["RESULTS", "--scenes", "-1"], "--scenes"),
        (["RESULTS", "--pictures", "some"], "--pictures"),
        (["RESULTS", "--highlight", "Nobody"], "mean, broken"),
    ],
)
def test_bad_arguments(run, results, arguments, word):
    done = run(*(str(results) if one == "RESULTS" else one for one in arguments))
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
