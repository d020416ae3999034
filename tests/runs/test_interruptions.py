"""Ctrl-C and SIGTERM at any line of a run: rows stay, and the same command goes on."""

import signal
from collections import Counter

import pandas as pd
import pytest

from fuscore_metric.results.read import read_results
from tests.helpers.faults import Lines, forked
from tests.helpers.runs import goes_on, journal

LINES = Lines("backbones", "spec_fields", "strict_json", "stored_weights")


def assert_stopped_well(rank, folder, places, number):
    """Stop a run at each of some places of its course."""
    total = LINES.count(rank(folder / "whole"))
    expected = table_of(folder / "whole")
    statuses = Counter()
    for place in places(total):
        out = folder / f"{place}"
        done = forked(LINES.stopped(rank(out), place, number))
        statuses[done.status] += 1
        assert "Traceback" not in done.err, (place, done.err)
        rows = journal(out)
        if (out / "results.csv").exists():
            assert len(pd.read_csv(out / "results.csv")) <= len(rows)
        goes_on(rank(out), out, None)
        assert journal(out)[: len(rows)] == rows
        assert table_of(out) == expected
    return statuses


def table_of(out):
    rows = read_results(out).table.drop(columns="seconds").round(5)
    return rows.astype(object).where(rows.notna(), None).values.tolist()


def spread(count, first):
    """That many places, evenly over a run; others for another `first`."""
    return lambda total: [round(first + n * (total - first - 1) / count) for n in range(count)]


def test_ctrl_c_at_any_moment(rank, tmp_path):
    found = assert_stopped_well(rank, tmp_path, spread(2, 1500), signal.SIGINT)
    assert found == {130: 2}


@pytest.mark.slow
def test_ctrl_c_at_many_moments(rank, tmp_path):
    found = assert_stopped_well(rank, tmp_path, spread(15, 10), signal.SIGINT)
    assert found == {130: 15}


@pytest.mark.slow
def test_kill_at_many_moments(rank, tmp_path):
    found = assert_stopped_well(rank, tmp_path, spread(10, 50), signal.SIGTERM)
    # While rows are made as for Ctrl-C; before and after, the system's way.
    assert set(found) == {130, -signal.SIGTERM}
    assert sum(found.values()) == 10
