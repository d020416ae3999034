"""The report's page: what is in it, that nothing escapes or is fetched, and that it is the same."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fuscore_metric.checkpoints.spec import LABEL_MEANING
from fuscore_metric.leaderboard.tables import as_csv, as_latex
from fuscore_metric.report import figure_files, figures
from fuscore_metric.report.build import MOST_FAILURES, render
from fuscore_metric.report.data import compact, make_grid, script_json
from fuscore_metric.report.pictures import BEST, Choice, illustrate
from tests.helpers import ROOT
from tests.helpers.report_tables import (
    SETTINGS,
    Page,
    fail,
    make_page,
    make_report,
    make_table,
    page_data,
)

TEMPLATES = Path(figures.__file__).parent / "templates"
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"quotes\" 'and' &amp; {{ 919*919 }}",
    "two\nlines\tand\u2028more",
    "$\\frac{x$",
    "雪景 ‮abc",
    "<!--",
]


@pytest.fixture(scope="module")
def page(table):
    return make_page(table)


def test_a_grid_keeps_every_number(table):
    shuffled = table.sample(frac=1, random_state=1).drop(index=5)
    grid = make_grid(shuffled, ["Gamma"])
    assert grid.methods[0] == "Gamma"
    assert set(grid.methods) == {"Alpha", "Beta", "Gamma"}
    for _, row in shuffled.iterrows():
        place = grid.scenes.index(row["scene"]), grid.methods.index(row["method"])
        for name in ("score", "std", "fair", "sharpness"):
            assert grid.columns[name][place] == row[name]
    missing = table.loc[5]
    place = grid.scenes.index(missing["scene"]), grid.methods.index(missing["method"])
    assert np.isnan(grid.score[place])
    assert grid.failures == ()


def test_scores_alone_are_enough(table):
    few = table[["scene", "method", "score", "std"]]
    page = make_page(few)
    assert page_data(page)["score"] == page_data(make_page(table))["score"]
    assert set(page_data(page)["probabilities"]) == {None}
    choice = Choice(0, BEST, (), (0,), ())
    exhibit = illustrate(choice, make_report(few).grid, model=None, aspect="overall")
    assert {shot.note for shot in exhibit.shots} == {"the table names no file"}


def test_means_spreads_and_best_leave_out_what_failed():
    scores = make_table(["one", "two", "three"], ["A", "B"])
    scores["score"] = [2.0, 3.0, 4.0, np.nan, np.nan, np.nan]
    grid = make_grid(scores, ["B", "A"])
    np.testing.assert_equal(grid.mean, [2.5, 4.0, np.nan])
    np.testing.assert_equal(grid.spread, [1.0, np.nan, np.nan])
    assert grid.best.tolist() == [0, 1, -1]
    assert [(one.scene, one.method) for one in grid.failures] == [
        ("two", "B"),
        ("three", "A"),
        ("three", "B"),
    ]


def test_the_script_gets_thousandths_and_errors(table):
    data = compact(make_grid(fail(table, 4, error="cut file"), ["Alpha", "Beta", "Gamma"]))
    assert data["errors"] == {4: "cut file"}
    assert data["score"][4] is None
    assert data["score"][3] == round(table.loc[3, "score"] * 1000)
    assert sum(data["probabilities"][:5]) == pytest.approx(1000, abs=3)
    assert data["aspects"] == [
        "thermal retention",
        "texture preservation",
        "artifacts",
        "sharpness",
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_json_in_a_script_is_what_it_was(text):
    safe = script_json({"name": text})
    assert json.loads(safe) == {"name": text}
    assert not set(safe) & set("<>&\n\u2028")


def test_hostile_names_are_only_text():
    names = [f"name {n}" for n in range(len(HOSTILE))]
    plain = Page(make_page(fail(make_table(names, names), 3)))
    table = fail(make_table(HOSTILE, HOSTILE), 3, error=HOSTILE[1])
    settings = SETTINGS | {"weights": HOSTILE[0], "command": HOSTILE[1], "note": HOSTILE}
    page = make_page(table, settings, title=HOSTILE[1], command=HOSTILE[0])
    seen = Page(page)
    assert set(seen.tags) == set(plain.tags)
    assert seen.tags.count("script") == plain.tags.count("script") == 2
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert str(919 * 919) not in page  # jinja's braces in a name are not jinja's
    assert set(page_data(page)["methods"]) == set(page_data(page)["scenes"]) == set(HOSTILE)
    for text in HOSTILE[:3]:
        assert text in seen.words


def test_the_same_table_gives_the_same_bytes(table):
    code = (
        "import hashlib, sys; sys.path.insert(0, '.');"
        "from tests.helpers.report_tables import *;"
        "t = make_table([f'scene {n}' for n in range(12)], ['Alpha', 'Beta', 'Gamma']);"
        "print(hashlib.sha256(make_page(t).encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == hashlib.sha256(make_page(table).encode()).hexdigest()


def test_nothing_is_fetched(page):
    seen = Page(page)
    addresses = [v for _, name, v in seen.attributes if name in ("src", "href", "srcset", "action")]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "@import" not in page
    assert not [tag for tag in seen.tags if tag in ("link", "iframe", "object", "embed")]


def test_only_our_script_may_run(page):
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "</script" not in (TEMPLATES / "report.js").read_text()


def test_every_colour_of_a_plot_follows_the_theme(page):
    assert not figure_files.SENTINEL.search(page)
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 8  # four plots, each wide and narrow
    for plot in plots:
        assert not re.search(r"#[0-9a-f]{6}\b", plot)
        used = set(re.findall(r"var\((--[\w-]+)\)", plot))
        assert {"--ink", "--font"} <= used
        assert used & {"--accent", "--series-0"}
        assert not used - set(re.findall(r"^\s*(--[\w-]+):", page, re.MULTILINE))


def test_ids_are_not_used_twice(page):
    ids = [value for _, name, value in Page(page).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_page_has_its_parts_in_order(table, page):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert titles[:4] == ["Leaderboard", "Distribution of scores", "Preference matrix", "Scenes"]
    assert titles[-2] == "Settings and versions"
    words = Page(page).words
    for part in ("36 of 36", "Alpha", "tiny", "2026-11-25"):
        assert part in words
    board = make_report(table).board
    for one in board.methods:
        assert f"{one.mean:.3f}" in words
        assert f"{one.low:.2f} to {one.high:.2f}" in words
    for name, value in (("batch size", "8"), ("torch", "2.13.0")):
        assert f"{name}</th><td>{value}<" in page
    assert SETTINGS["command"] in words


def test_preferences_and_what_is_not_real():
    table = make_table([f"s{n}" for n in range(30)], ["Alpha", "Alike", "Bad"])
    table.loc[table["method"] == "Bad", "score"] -= 1
    rng = np.random.default_rng(3)
    alike = table["method"] == "Alike"
    table.loc[alike, "score"] = table.loc[table["method"] == "Alpha", "score"].to_numpy()
    table.loc[alike, "score"] += rng.permutation(np.linspace(-0.1, 0.1, 30))
    report = make_report(table)
    page = render(report)
    for (row, column), value in np.ndenumerate(report.board.preferences.to_numpy()):
        if row == column:
            continue
        names = report.board.preferences.index[[row, column]]
        cell = re.search(
            rf'<td class="([^"]+)"[^>]*title="{names[0]} over {names[1]}: ([^"]*)"', page
        )
        assert cell[2].startswith(f"{value:.3f}, p ")
        assert cell[1].startswith("win" if value >= 0.5 else "lose")
        assert ("unreal" in cell[1]) == ("Bad" not in names)
        assert ("no difference found" in cell[2]) == ("Bad" not in names)


@pytest.mark.parametrize("kind", [*LABEL_MEANING, "people", None])
def test_only_human_labels_are_called_human(table, kind):
    page = make_page(table, {"label_kind": kind, "labels": "trained on human ratings"})
    banner = re.search(r'<div class="banner (\w+)" id="labels"[^>]*>(.*?)</div>', page, re.DOTALL)
    said = " ".join(Page(banner[2]).words.split())
    if kind == "human":
        assert (banner[1], said) == ("plain", "These weights were trained on human ratings.")
    else:
        assert banner[1] == "warn"
        assert "do not report" in said.lower()
        assert "trained on human" not in said
    if kind == "proxy":
        assert "PROXY ratings" in said


@pytest.mark.parametrize(
    ("scenes", "methods"), [(1, 1), (1, 3), (5, 1), (2, 2)], ids=lambda n: str(n)
)
def test_small_tables(scenes, methods):
    table = make_table([f"s{n}" for n in range(scenes)], [f"m{n}" for n in range(methods)])
    page = make_page(table)
    words = Page(page).words
    assert "nan" not in words.lower().split()
    assert ("A preference needs two methods" in words) == (methods == 1)
    assert len(page_data(page)["score"]) == scenes * methods
    table["score"] = 3.0  # all alike: nothing to spread, and no width of an axis
    make_page(table)


def test_all_rows_failed():
    table = fail(make_table(["a", "b"], ["m", "n"]), 0, 1, 2, 3, error="broken <file>")
    words = Page(make_page(table, pictures_wanted=True)).words
    assert "No row of this table has a score" in words
    assert "No scene has a score, so none was chosen" in words
    assert words.count("broken <file>") == 4


def test_a_method_without_any_score_stays_in_sight(table):
    failed = table.index[table["method"] == "Beta"]
    page = make_page(fail(table, *failed))
    assert re.search(
        r"<bdi>Beta</bdi></div></th>\s*<td[^>]*>no score</td>\s*<td[^>]*>12</td>", page
    )


def test_failures_are_counted_and_the_list_is_cut():
    table = make_table([f"s{n}" for n in range(MOST_FAILURES)], ["m", "n"])
    page = make_page(fail(table, *range(0, MOST_FAILURES + 50)))
    assert f"{MOST_FAILURES + 50} of {2 * MOST_FAILURES} rows have no score" in Page(page).words
    assert page.count('<td class="error">') == MOST_FAILURES


def test_no_row_at_all(table):
    assert "No row of this table has a score" in make_page(table.iloc[:0])


def test_highlighted_methods_stand_out_everywhere(table):
    plain, marked = make_page(table), make_page(table, highlight=["Beta"])
    assert re.search(r'<tr class="own">\s*<th[^>]*><div><span[^>]*>\d</span><bdi>Beta<', marked)
    assert marked.count('<th scope="col" class="own">') == 1  # of the matrix
    assert page_data(marked)["highlight"] == [page_data(marked)["methods"].index("Beta")]
    bold = re.findall(r'style="[^"]*(?:700|bold)[^"]*"[^>]*>\s*Beta', marked)
    assert len(bold) == 8  # four plots, each wide and narrow
    assert 'class="own"' not in plain


def test_the_leaderboard_can_be_copied_and_its_notes_are_shown(table):
    report = make_report(fail(table, 0))
    page = render(report)
    assert page_data(page)["copies"] == {
        "LaTeX": as_latex(report.board, settings=SETTINGS),
        "CSV": as_csv(report.board, settings=SETTINGS),
    }
    assert report.board.notes
    for note in report.board.notes:
        assert note in Page(page).words
