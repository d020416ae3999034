"""`fuscore measures`: the list, its formats, and one measure in full."""

import csv
import io
import json

import pytest

from fuscore_metric.measures import trust
from fuscore_metric.measures.catalogue import MEASURES

ALL = ["FuScore", *MEASURES]


def test_the_list_has_every_measure_and_fuscore_first(run):
    status, out, _ = run("measures")
    assert status == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(ALL) + 1]] == ALL
    assert str(trust.agreements()["SSIM"].within) in out
    assert "learned from viewers" in out
    assert "not human ones" in out


def test_a_narrow_terminal_has_fewer_columns(run):
    _, out, _ = run("measures", columns=80)
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert f"{trust.agreements()['SSIM'].people.value:.2f}" in out
    assert "--format csv" in out
    _, out, _ = run("measures", columns=None)  # a pipe: one line a measure
    assert [line.split()[0] for line in out.splitlines()[1 : len(ALL) + 1]] == ALL


def test_formats_for_programs(run):
    _, out, _ = run("measures", "--format", "json")
    document = json.loads(out)
    rows = {row["name"]: row for row in document["measures"]}
    assert list(rows) == ALL
    assert rows["Qcv"]["high"] is None
    assert not rows["Qcv"]["higher_is_better"]
    assert rows["EN"]["within_srcc"] == trust.agreements()["EN"].within.value
    assert document["notes"] == trust.statements()
    _, out, _ = run("measures", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [line["name"] for line in lines] == ALL
    assert float(lines[1]["people_srcc"]) == rows["EN"]["people_srcc"]
    _, out, _ = run("measures", "--format", "markdown")
    assert sum(line.startswith("| ") for line in out.splitlines()) == len(ALL) + 2


@pytest.mark.parametrize("name", MEASURES)
def test_one_measure_in_full(run, name):
    status, out, _ = run("measures", name.lower())
    assert status == 0
    assert out.startswith(name)
    assert "Source:" in out
    assert str(trust.agreements()[name].pooled) in out


@pytest.mark.parametrize("given", [["beauty"], ["--format", "pdf"]])
def test_what_there_is_not(run, given):
    status, out, err = run("measures", *given)
    assert (status, out) == (2, "")
    assert given[-1] in err or "markdown" in err
