"""A leaderboard in a terminal, as Markdown, LaTeX and JSON: exact text of a small one."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from fuscore_metric.leaderboard.markup import escape_latex, escape_markdown, provenance
from fuscore_metric.leaderboard.statistics import leaderboard
from fuscore_metric.leaderboard.tables import as_csv, as_json, as_latex, as_markdown, as_rich
from fuscore_metric.measures.catalogue import MEASURES
from tests.helpers.results_tables import SETTINGS, STATEMENT, random_results, results, shown


@pytest.fixture(scope="module")
def board():
    """Three methods with names that need escapes on two scenes; all intervals are the extremes."""
    table = results(
        {"LP_SR": [3.0, 4.0], "50% & more|": [4.5, 4.0], "a*b": [1.0, 2.0]},
        sharpness=[3.0, 3.5, 4.0, 4.5, 1.0, 1.0],
    )
    return leaderboard(table)


def test_markdown(board):
    assert as_markdown(board, settings=SETTINGS) == (
        r"""| method | score | sharpness | rank | win % | groups |
| --- | ---: | ---: | ---: | ---: | ---: |
| 50% \& more\| | **4.250** [4.000, 4.500] | **4.250** | **1.25** | **87.5** | a |
| LP\_SR | *3.500* [3.000, 4.000] | *3.250* | *1.75* | *62.5* | a |
| a\*b | 1.500 [1.000, 2.000] | 1.000 | 3.00 | 0.0 | a |

Score: mean over 2 scenes \[95 % bootstrap interval\]. Rank: mean over scenes, 1 is best. Win: """
        r"""share of scenes and other methods beaten, ties count half. Between methods that """
        r"""share a letter no difference was found (Wilcoxon signed-rank test, Holm, alpha 0.05).

With 2 scenes no difference can be found real: 3 tests at level 0.05 need at least 7 scenes. """
        r"""That none is marked is no sign of equality.

FuScore, 1 (bad) to 5 (excellent); weights fuscore-lite-4, trained on PROXY ratings (classic """
        r"""measures and known degradations), not human ones."""
    )


def test_latex(board):
    assert as_latex(board, settings=SETTINGS) == (
        r"""% FuScore, 1 (bad) to 5 (excellent); weights fuscore-lite-4, trained on PROXY """
        r"""ratings (classic measures and known degradations), not human ones.
% Needs \usepackage{booktabs}.
\begin{table}
  \centering
  \caption{Score: mean over 2 scenes [95 \% bootstrap interval]. Rank: mean over scenes, 1 is """
        r"""best. Win: share of scenes and other methods beaten, ties count half. Between """
        r"""methods that share a letter no difference was found (Wilcoxon signed-rank """
        r"""test, Holm, alpha 0.05). With 2 scenes no difference can be found real: 3 tests at """
        r"""level 0.05 need at least 7 scenes. That none is marked is no sign of equality. """
        r"""FuScore, 1 (bad) to 5 (excellent); weights fuscore-lite-4, trained on PROXY """
        r"""ratings (classic measures and known degradations), not human ones.}
  \label{tab:fuscore}
  \begin{tabular}{lrrrrl}
    \toprule
    Method & Score $\uparrow$ & Sharpness $\uparrow$ & Rank $\downarrow$ & """
        r"""Win \% $\uparrow$ & Groups \\
    \midrule
    50\% \& more\textbar{} & \textbf{4.250} [4.000, 4.500] & \textbf{4.250} & \textbf{1.25} """
        r"""& \textbf{87.5} & a \\
    LP\_SR & \underline{3.500} [3.000, 4.000] & \underline{3.250} & \underline{1.75} """
        r"""& \underline{62.5} & a \\
    a*b & 1.500 [1.000, 2.000] & 1.000 & 3.00 & 0.0 & a \\
    \bottomrule
  \end{tabular}
\end{table}"""
    )


@pytest.fixture
def measured(monkeypatch):
    """A leaderboard of three methods with two measures; of the second lower is better."""
    worse = replace(MEASURES["AG"], higher_is_better=False)
    monkeypatch.setitem(MEASURES, "AG", worse)
    table = results({"x": [3.0, 4.0], "y": [4.5, 4.0], "z": [1.0, 2.0]})
    table["SD"] = [10, 20, 30, 40, 34.9999, 35.0002]  # y and z are equal as printed
    table["AG"] = [1, 2, 3, 4, 0.5, 0.5]
    return leaderboard(table)


HOW = SETTINGS | {"measures_convention": "vifb", "measures_colour": "channels"}


def test_measures_are_printed_as_papers_do(measured):
    heading, _, y, x, z = as_markdown(measured, settings=HOW).splitlines()[:5]
    assert heading.endswith("| groups | SD ↑ | AG ↓ |")
    assert y.endswith("| **35.000** | 3.500 |")
    assert x.endswith("| <u>15.000</u> | <u>1.500</u> |")
    assert z.endswith("| **35.000** | **0.500** |")
    assert y.startswith("| y | **4.250**")
    assert x.startswith("| x | <u>3.500</u>")  # one way to mark in one table
    latex = as_latex(measured, settings=HOW)
    assert r"Groups & SD $\uparrow$ & AG $\downarrow$ \\" in latex
    assert r"& \textbf{35.000} & \textbf{0.500} \\" in latex
    assert r"& \underline{15.000} & \underline{1.500} \\" in latex
    assert r"\begin{tabular}{lrrrlrr}" in latex
    said = "Classic measures: convention vifb, colour channels, lower is better for AG."
    assert said in latex
    first, *_ = csv.DictReader(io.StringIO(as_csv(measured, settings=HOW)))
    assert (float(first["SD"]), float(first["AG"])) == (35, 3.5)
    assert said in first["statement"]
    read = json.loads(as_json(measured, settings=HOW))
    assert read["methods"][0]["measures"] == {"SD": 35, "AG": 3.5}
    assert read["measures"] == {
        "convention": "vifb",
        "colour": "channels",
        "higher_is_better": {"SD": True, "AG": False},
    }
    assert "convention unknown" in as_markdown(measured, settings={})


def test_measures_that_do_not_fit_a_terminal_are_named(measured):
    wide = shown(as_rich(measured, settings=HOW, width=90), 90)
    assert "35.000  3.500" in wide
    assert "lower is better for AG" in " ".join(wide.split())
    text = " ".join(shown(as_rich(measured, settings=HOW, width=62), 62).split())
    assert "35.000" in text
    assert "Not shown in 62 characters: AG. leaderboard.csv and .to_pandas()" in text


def test_a_mean_of_a_measure_is_over_the_scenes_of_the_scores_or_is_none():
    table = results({"x": [3.0, 4.0, None], "y": [4.5, 4.0, 3.0], "z": [1.0, 1.0, 1.0]})
    table["SD"] = [1, 2, None, 3, 5, 100, 7, None, 8]
    board = leaderboard(table.assign(SF=None))
    assert {one.method: one.measures for one in board.methods} == {
        "x": {"SD": 1.5},
        "y": {"SD": 4.0},  # without the scene that x has not
        "z": {"SD": pytest.approx(float("nan"), nan_ok=True)},
    }
    assert "No mean of a classic measure where not every scene has it: z (SD)." in board.notes
    assert as_markdown(board, settings=HOW).splitlines()[4].endswith("| - |")
    assert json.loads(as_json(board, settings=HOW))["methods"][2]["measures"] == {"SD": None}


def test_csv_has_every_number_and_who_scored(board):
    first, *_ = csv.DictReader(io.StringIO(as_csv(board, settings=SETTINGS)))
    assert (first["method"], float(first["mean"]), first["groups"]) == ("50% & more|", 4.25, "a")
    assert float(first["sharpness"]) == 4.25
    assert "PROXY" in first["statement"]
    assert "With 2 scenes no difference" in first["statement"]
    (only,) = csv.DictReader(io.StringIO(as_csv(leaderboard(results({"a": [1.0]})), settings={})))
    assert (only["low"], only["win_rate"]) == ("", "")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(board, tmp_path):
    text = as_latex(board, settings=SETTINGS)
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\n\\end{document}"
    (tmp_path / "page.tex").write_text(page % text)
    command = ["pdflatex", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:]


def test_json_has_everything_and_no_nan():
    board = leaderboard(results({"a": [3.0], "b": [4.0]}))
    read = json.loads(as_json(board, settings=SETTINGS), parse_constant=pytest.fail)
    assert read["labels"] == STATEMENT
    assert read["methods"][0] == {
        "method": "b",
        "scenes": 1,
        "mean": 4.0,
        "low": None,
        "high": None,
        "std": 0.5,
        "mean_rank": 1.0,
        "win_rate": 1.0,
        "groups": "a",
        "aspects": {},
    }
    assert read["p_values"]["a"] == {"a": None, "b": 1.0}
    assert read["preferences"]["b"]["a"] == board.preferences.loc["b", "a"]
    assert read["settings"] == SETTINGS


@pytest.mark.parametrize("width", [200, 60, 40])
def test_text_fits_any_terminal_and_keeps_names_and_scores(board, width):
    text = shown(as_rich(board, settings=SETTINGS, width=width), width)
    assert "\x1b" not in text  # not a terminal: no colour
    assert max(map(len, text.splitlines())) <= width
    for word in ("LP_SR", "a*b", "50% & more|", "4.250 [4.000, 4.500]", "1.500 [1.000, 2.000]"):
        assert word in text
    assert "…" not in text
    said = " ".join(text.split())
    assert STATEMENT in said
    assert "fuscore-lite-4" in said
    for heading in ("sharpness", "rank", "win %", "groups"):
        in_table = heading in text.splitlines()[0]
        not_shown = re.search(r"Not shown in \d+ characters: ([^.]*)\.", said)
        assert in_table is not (not_shown is not None and heading in not_shown[1])
    assert ("groups" in text.splitlines()[0]) is (width >= 60)


def test_long_names_fold_and_lose_nothing():
    name = "DenseFuse-with-a-very-long-name-and-seed-17"
    board = leaderboard(results({name: [3.0, 4.0], "b": [2.0, 1.0]}))
    lines = shown(as_rich(board, settings=SETTINGS, width=60), 60).splitlines()
    width = lines[1].index("3.500 [")
    assert "".join(line[:width].rstrip() for line in lines[1 : lines.index("") - 1]) == name


def test_names_are_not_markup_or_control_characters():
    board = leaderboard(results({"[red]x[/red]": [3.0, 4.0], "b\x1b[31m\nc": [2.0, 1.0]}))
    text = shown(as_rich(board, settings=SETTINGS, width=80), 80)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "b [31m c" in text
    assert r"\[red\]x\[/red\]" in as_markdown(board, settings=SETTINGS)
    assert "\n    {}[red]x[/red] &" in as_latex(board, settings=SETTINGS)  # not an option of \\


def test_numbers_equal_as_printed_are_marked_alike_and_the_worst_of_two_is_not():
    board = leaderboard(results({"a": [3.0, 4.0], "b": [3.0001, 4.0001], "c": [2.0, 2.0]}))
    text = as_markdown(board, settings=SETTINGS)
    assert text.count("**3.500**") == 2
    assert "*2.000*" in text
    two = as_markdown(leaderboard(results({"a": [3.0], "b": [4.0]})), settings=SETTINGS)
    assert "**4.000**" in two
    assert "*3.000*" not in two


def test_means_over_different_scenes_are_not_marked():
    table = results({"a": [5.0, None, 4.0, None], "b": [None, 3.0, 2.0, 3.0]})
    text = as_markdown(leaderboard(table), settings=SETTINGS)
    assert "THE MEANS ARE NOT COMPARABLE" in text
    assert "| 4.500 [" in text
    assert "| scenes |" in text.splitlines()[0]
    assert text.splitlines()[2].endswith("| 2 |")


def test_one_method_has_a_line_without_ranks():
    text = as_markdown(leaderboard(results({"only": [3.0, 4.0]})), settings=SETTINGS)
    assert text.splitlines()[:3] == [
        "| method | score |",
        "| --- | ---: |",
        "| only | 3.500 [3.000, 4.000] |",
    ]
    assert "letter" not in text


@pytest.mark.parametrize("render", [as_markdown, as_latex, as_json])
def test_a_table_without_settings_says_that_nothing_is_known(board, render):
    assert "Weights and labels unknown" in render(board, settings={})


def test_provenance_names_the_aspect_that_was_asked_for():
    assert "aspect sharpness" in provenance(SETTINGS | {"aspect": "sharpness"})
    assert "aspect" not in provenance(SETTINGS | {"aspect": "all"})


def test_escapes():
    assert escape_latex(r"a\b{c}~^#$<é") == (
        r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}\#\$\textless{}é"
    )
    assert escape_markdown("a|b_c`<d>\n") == r"a\|b\_c\`\<d\> "


def test_25_methods_at_60_columns():
    board = leaderboard(random_results(0, scenes=30, methods=25), resamples=50)
    text = shown(as_rich(board, settings=SETTINGS, width=60), 60)
    rows = text.split("\n\n")[0].splitlines()
    assert len(rows) == 26
    assert all(len(line) <= 60 for line in rows)
