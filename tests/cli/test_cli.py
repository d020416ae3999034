"""What all commands share: usage errors, the version, and how a failure is told."""

import pytest

import fuscore_metric
from fuscore_metric import cli
from tests.helpers import EXAMPLE


def test_a_missing_option_is_a_usage_error(run):
    status, _, err = run("score", "--ir", EXAMPLE / "ir.png")
    assert status == 2
    assert "--vis" in err


def test_version(run):
    assert fuscore_metric.__version__ in run("--version")[1]


def test_what_the_system_refuses_is_one_line(run, tmp_path):
    sources = ["--ir", EXAMPLE / "ir.png", "--vis", EXAMPLE / "vis.png"]
    (tmp_path / "file").write_text("in the way")
    status, _, err = run("pyiqa", "reference", *sources, "--out", tmp_path / "file" / "both.png")
    assert status == 2
    assert err.startswith("fuscore: ")
    assert str(tmp_path / "file") in err
    assert len(err.splitlines()) == 1


def test_mistakes_of_our_own_are_not_hidden(monkeypatch):
    def wrong(**_: object) -> None:
        raise ValueError("not the user's")

    monkeypatch.setattr(cli, "app", wrong)
    with pytest.raises(ValueError, match="not the user's"):
        cli.main()
