"""The report's classic measures: ranks, correlations, doubts, contradictions."""

import numpy as np
import pytest

from fuscore_metric.leaderboard.tables import as_latex, as_markdown
from fuscore_metric.measures import trust
from fuscore_metric.report.build import render
from fuscore_metric.report.measures import contradictions, correlate, rank_methods
from fuscore_metric.report.pictures import illustrate
from tests.helpers.report_tables import SETTINGS, Page, fail, make_page, make_report, make_table

HOW = SETTINGS | {"measures_convention": "standard", "measures_colour": "luma"}


@pytest.fixture
def table():
    """Four methods on two scenes; EN puts D first, clearest on scene two, and ties A with B."""
    table = make_table(["one", "two"], ["A", "B", "C", "D"])
    table["score"] = [4.0, 3.5, 3.0, 2.5, 4.2, 3.4, 2.9, 1.5]
    table["EN"] = [6.0, 6.1, 5.0, 6.2, 6.1, 6.0, 5.0, 9.0]
    table["Nabf"] = [0.1, 0.2, 0.2, 0.4, 0.1, 0.2, 0.2, 0.4]  # lower is better
    return table


@pytest.fixture(autouse=True)
def agreements(monkeypatch):
    """EN agrees little with viewers, Nabf well."""
    known = {
        name: trust.Agreement(*[trust.Coefficient(value, value, value)] * 3)
        for name, value in (("EN", 0.1), ("Nabf", 0.5))
    }
    monkeypatch.setattr(trust, "agreements", lambda: known)


def test_ranks_follow_each_measures_direction_and_ties_share(table):
    ranks = rank_methods(make_report(table).board)
    assert ranks.methods == ("A", "B", "C", "D")
    assert ranks.measures == ("FuScore", "EN", "Nabf")
    np.testing.assert_array_equal(ranks.ranks.T, [[1, 2, 3, 4], [2, 2, 4, 1], [1, 2, 2, 4]])
    np.testing.assert_allclose(ranks.means[3], [2.0, 7.6, 0.4])
    words = Page(make_page(table, HOW)).words
    assert "FuScore ↑EN ↑Nabf ↓ A1 4.1002 6.0501 0.100 B2 3.4502 6.0502 0.200" in words


def test_what_lacks_a_number_has_no_rank(table):
    table.loc[3, "EN"] = np.nan
    assert rank_methods(make_report(table).board).ranks[:, 1].tolist()[:3] == [1, 1, 3]
    assert np.isnan(rank_methods(make_report(table).board).ranks[3, 1])
    apart = make_report(fail(table, 0, 1, 6, 7))  # no scene that all methods have
    assert not apart.board.paired
    assert np.isnan(rank_methods(apart.board).ranks).all()
    assert contradictions(apart.grid, apart.board, 3) == []
    assert "no ranks" in Page(render(apart)).words


def test_correlations_are_over_all_triples_and_positive_where_measures_agree(table):
    found = correlate(make_report(table).grid, ["EN", "Nabf"])
    assert found.names[::5] == ("FuScore", "EN")
    assert found.names[-1] == "Nabf ↓"
    expected = table["score"].rank().corr(-table["Nabf"].rank())
    assert found.values[0, -1] == pytest.approx(expected)
    assert expected > 0.8
    np.testing.assert_array_equal(found.values, found.values.T)


def test_the_clearest_contradiction_is_shown_where_it_is_seen(table):
    report = make_report(table, HOW)
    [one] = contradictions(report.grid, report.board, 3)  # Nabf contradicts nothing
    assert (one.measure, one.better.method, one.worse.method) == ("EN", "A", "D")
    assert report.grid.scenes[one.choice.scene] == "two"
    exhibit = illustrate(one.choice, report.grid, model=None, aspect="overall")
    words = Page(make_page(table, HOW, contradictions=[(one, exhibit)])).words
    assert "EN prefers D, FuScore A" in words
    assert "FuScore 4.200, EN 6.100" in words
    assert "FuScore 1.500, EN 9.000" in words
    assert contradictions(report.grid, report.board, 0) == []


def test_doubtful_measures_are_named_below_every_table(table):
    board = make_report(table).board
    for text in (
        Page(make_page(table, HOW)).words,
        as_latex(board, settings=HOW),
        as_markdown(board, settings=HOW),
    ):
        assert "EN says little" in text
    sure = make_report(table.drop(columns="EN"))
    assert "says little" not in as_latex(sure.board, settings=HOW)
    without = Page(make_page(table.drop(columns=["EN", "Nabf"]), HOW)).words
    assert "Classic measures" not in without
