"""A clock that is moved while triples are scored: no row is lost or taken for another."""

import os
import time

import pytest

from tests.helpers.faults import forked
from tests.helpers.runs import ROWS, goes_on, journal


@pytest.mark.parametrize("years", [-200, pytest.param(70, marks=pytest.mark.slow)])
def test_a_clock_that_is_moved(rank, images, tmp_path, monkeypatch, years):
    out, now = tmp_path / "out", time.time()
    when = 0.0 if years < 0 else now + years * 365 * 86400
    files = sorted(images.rglob("*.png"))
    for path in files[::2]:  # some from before 1970, or of a time to come
        os.utime(path, (years * 1e7, years * 1e7) if years < 0 else (when, when))
    clock = iter(range(10**6))

    def moved():
        """Goes back by an hour at every look."""
        return when - 3600 * next(clock)

    monkeypatch.setattr(time, "time", moved)
    assert forked(rank(out)).status == 0
    assert all(0 <= row["seconds"] < 60 for row in journal(out))
    goes_on(rank(out), out, ROWS)
    monkeypatch.undo()
    goes_on(rank(out), out, ROWS)
    changed = images / "methods" / "a" / "0.png"
    before = changed.stat()
    os.utime(changed, ns=(0, before.st_mtime_ns - 1000))  # an older file in its place
    done = forked(rank(out))
    assert done.status == 0
    assert f"{ROWS - 1} of {ROWS} triples are in" in done.err
