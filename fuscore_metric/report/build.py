"""Scores, settings, leaderboard and pictures -> the page, one string of HTML.

The same input gives the same bytes: nothing of the clock, the machine or hash order is in it.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fuscore_metric.checkpoints.spec import LABEL_MEANING
from fuscore_metric.drawing.overlay import colours
from fuscore_metric.leaderboard.inference import known_intervals
from fuscore_metric.leaderboard.tables import as_csv, as_latex
from fuscore_metric.report import figures, matrices
from fuscore_metric.report.data import Grid, compact, script_json
from fuscore_metric.report.exhibits import pictures_context
from fuscore_metric.report.figure_files import themed_svg
from fuscore_metric.report.measures import (
    Contradiction,
    correlate,
    measures_context,
    names_of,
    rank_methods,
)
from fuscore_metric.report.pictures import Exhibit
from fuscore_metric.report.profiles import coloured, profiles
from fuscore_metric.results.rows import FURTHER_ASPECTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fuscore_metric.leaderboard.statistics import Leaderboard

MOST_FAILURES = 300
"""Rows of the list of failures; a run that failed altogether must not make a page of megabytes."""
NOTHING = "\N{EN DASH}"
"""What stands where there is no value."""
_ENDS = ("mean", "low", "high")


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        title: Heading of the page.
        grid: The scores.
        board: The leaderboard; None where no row has a score.
        settings: What the run was made with, as stored beside the results; may be empty.
        exhibits: Chosen scenes with their pictures.
        pictures_wanted: Whether pictures were asked for at all.
        map_note: Why there are no maps of where the score was lost; empty if there are.
        command: The command line that makes this page again.
        highlight: Methods whose names stand out everywhere.
        contradictions: Where classic measures contradict the score, with pictures.
    """

    title: str
    grid: Grid
    board: Leaderboard | None
    settings: Mapping[str, Any]
    exhibits: Sequence[Exhibit]
    pictures_wanted: bool
    map_note: str
    command: str
    highlight: Sequence[str] = ()
    contradictions: Sequence[tuple[Contradiction, Exhibit]] = ()


def render(report: Report) -> str:
    """Make the page: one self-contained HTML document."""
    loader = PackageLoader("fuscore_metric.report", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, _, _ = loader.get_source(environment, "report.js")
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    # These are ours, and the JSON is made safe by `script_json`: nothing to escape.
    ready = {
        "css": Markup(environment.get_template("report.css").render(ramp=_ramp())),
        "js": Markup(script),
        "script_hash": Markup(digest),
        "json": Markup(script_json(_script_data(report))),
    }
    page = environment.get_template("report.html.jinja")
    return page.render(
        title=report.title,
        highlight=report.highlight,
        labels=_label_banner(report.settings),
        **ready,
        **_leaderboard_context(report),
        **measures_context(report),
        **pictures_context(report),
        **_settings_context(report),
    )


def page_figures(report: Report) -> dict[str, Callable[[int, figures.Palette], Figure]]:
    """Figures by name, as functions of a width in pixels and colours.

    On the page they are drawn wide and narrow; what is a table there is for print only.
    """
    if report.board is None:
        return {}
    board, scores, bold = report.board, report.grid.scores_by_method(), report.highlight
    scored = {name: values for name, values in scores.items() if len(values)}
    label = f"{aspect_title(report.settings)} score, 1 (bad) to 5 (excellent)"
    drawn: dict[str, Callable[[int, figures.Palette], Figure]] = {
        "distribution": lambda width, palette: figures.distribution(
            scored, width=width, palette=palette, label=label, bold=bold
        )
    }
    if means := _aspect_means(report, board):
        methods = [one.method for one in board.methods]
        drawn["aspects"] = lambda width, palette: figures.aspects(
            methods, means, width=width, palette=palette, bold=bold
        )
        if len(means) > len(FURTHER_ASPECTS):
            drawn["aspect-profiles"] = lambda width, palette: profiles(
                methods, means, width=width, palette=palette, bold=bold
            )
    if names := names_of(board):
        drawn["measure-ranks"] = lambda _, palette: matrices.measure_ranks(
            rank_methods(board), palette=palette, bold=bold
        )
        drawn["measure-correlations"] = lambda _, palette: matrices.measure_correlations(
            correlate(report.grid, names), palette=palette
        )
    if len(board.methods) > 1:
        drawn["preferences"] = lambda _, palette: matrices.preferences(
            board, palette=palette, bold=bold
        )
        if all(math.isfinite(one.mean_rank) for one in board.methods):
            drawn["ranks"] = lambda width, palette: figures.ranks(
                board, width=width, palette=palette, bold=bold
            )
    return drawn


def _aspect_means(report: Report, board: Leaderboard) -> dict[str, figures.Means]:
    """Means with intervals of a run's aspects over the scenes that count; empty if it has one."""
    present = [name for name in FURTHER_ASPECTS if any(name in m.aspects for m in board.methods)]
    if not present:
        return {}
    grid = report.grid
    scenes = [grid.scenes.index(name) for name in board.scenes]
    methods = [grid.methods.index(one.method) for one in board.methods]
    found = {
        aspect_title(report.settings): figures.Means(
            *(np.array([getattr(one, end) for one in board.methods]) for end in _ENDS)
        )
    }
    for name in present:
        values = grid.columns[name][np.ix_(scenes, methods)].T  # (M, S)
        values = np.where(np.isfinite(grid.score[np.ix_(scenes, methods)].T), values, np.nan)
        low, high = known_intervals(
            values, confidence=board.confidence, resamples=board.resamples, seed=0
        )
        mean = np.array([one.aspects.get(name, np.nan) for one in board.methods])
        found[name.replace("_", " ")] = figures.Means(mean, low, high)
    return found


def aspect_title(settings: Mapping[str, Any]) -> str:
    """The aspect of `score` in words; where all were asked for, it is `overall`."""
    aspect = str(settings.get("aspect") or "overall")
    return "overall" if aspect == "all" else aspect.replace("_", " ")


def _script_data(report: Report) -> dict[str, Any]:
    """What the page's script reads."""
    data = compact(report.grid)
    data["highlight"] = [n for n, name in enumerate(data["methods"]) if name in report.highlight]
    if report.board is not None:
        data["copies"] = {
            "LaTeX": as_latex(report.board, settings=report.settings),
            "CSV": as_csv(report.board, settings=report.settings),
        }
    return data


def _ramp() -> str:
    """The maps' colours as stops of a CSS gradient."""
    stops = np.rint(colours(np.linspace(0, 1, 5, dtype=np.float32))).astype(int)
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops.tolist())


def _label_banner(settings: Mapping[str, Any]) -> dict[str, str]:
    """What the weights were trained on. Only the label kind `human` may be called that."""
    kind = settings.get("label_kind")
    if kind not in LABEL_MEANING:
        return {
            "tone": "warn",
            "headline": "It is not known what these scores are based on.",
            "detail": "The table does not say which weights made them; do not report them as "
            "human opinion.",
        }
    if kind == "human":
        headline = f"These weights were trained on {LABEL_MEANING[kind]}."
        return {"tone": "plain", "headline": headline, "detail": ""}
    start = (
        "These are untrained or zero-shot weights."
        if kind == "none"
        else (f"These weights were trained on {LABEL_MEANING[kind]}.")
    )
    detail = "Do not report these scores as human opinion."
    if history := settings.get("label_history"):
        detail = f"{history}. {detail}"
    return {"tone": "warn", "headline": start, "detail": detail}


def _leaderboard_context(report: Report) -> dict[str, Any]:
    board, grid, settings = report.board, report.grid, report.settings
    listed = [one.method for one in board.methods] if board else []
    failed = Counter(one.method for one in grid.failures)
    present = {name for one in board.methods for name in one.aspects} if board else set()
    plots = {} if board is None else _plots(page_figures(report))
    scored = int(np.isfinite(grid.score).sum())
    weights = str(settings.get("weights") or "unknown")
    facts = [
        ("Weights", weights),
        ("Aspect", str(settings.get("aspect") or "unknown").replace("_", " ")),
        ("Scenes", f"{len(grid.scenes):,}"),
        ("Methods", f"{len(grid.methods):,}"),
        ("Rows scored", f"{scored:,} of {len(grid.files):,}"),
        ("Rows failed", f"{len(grid.failures):,}"),
    ]
    if limits := settings.get("thermal_range"):
        facts.append(("Infrared", f"from {limits[0]} to {limits[1]}"))
    if started := settings.get("started"):
        facts.append(("Run on", str(started)[:10]))
    return {
        "facts": facts,
        "board": board,
        "scale": _scale(board) if board else (1, 5),
        "aspects": [name for name in FURTHER_ASPECTS if name in present],
        "unscored": [name for name in grid.methods if name not in set(listed)],
        "failed_by_method": failed,
        "rank_plots": plots.get("ranks", []),
        "distribution_plots": plots.get("distribution", []),
        "aspect_plots": plots.get("aspects", []),
        "profile_plots": plots.get("aspect-profiles", []),
        "uncoloured": len(listed) - len(coloured(listed, report.highlight)),
        "every_point": scored <= figures.MOST_POINTS,
        "preferences": _preference_lines(board) if board else [],
        "failures": grid.failures[:MOST_FAILURES],
        "failed_count": len(grid.failures),
        "row_count": len(grid.files),
    }


def _scale(board: Leaderboard) -> tuple[float, float]:
    """Ends of the ruler beside the means, at half points around all intervals, within 1 to 5."""
    ends = [value for one in board.methods for value in (one.low, one.high, one.mean)]
    known = [value for value in ends if math.isfinite(value)]
    low, high = math.floor(2 * min(known)) / 2, math.ceil(2 * max(known)) / 2
    return (low, high) if low < high else (max(1, low - 0.5), min(5, high + 0.5))


def _plots(
    drawn: Mapping[str, Callable[[int, figures.Palette], Figure]],
) -> dict[str, list[Markup]]:
    """Each figure for wide and for narrow windows, of which the style shows one."""
    titles = {
        "distribution": "Distribution of scores by method",
        "aspects": "Mean of each aspect by method",
        "aspect-profiles": "Profiles of methods over the aspects",
        "ranks": "Mean rank of methods",
    }
    widths = {"wide": figures.WIDE, "narrow": figures.NARROW}
    made: dict[str, list[Markup]] = {}
    for name in titles.keys() & drawn.keys():
        draw = drawn[name]
        for kind, width in widths.items():
            svg = themed_svg(
                lambda palette, draw=draw, width=width: draw(width, palette),  # type: ignore[misc]
                name=f"{name}-{kind}",
                title=titles[name],
            )
            made.setdefault(name, []).append(Markup(f'<div class="{kind}">{svg}</div>'))
    return made


def _preference_lines(board: Leaderboard) -> list[dict[str, Any]]:
    names = [str(name) for name in board.preferences.index]
    values = board.preferences.to_numpy(dtype=float)
    p_values = board.p_values.to_numpy(dtype=float)
    return [
        {
            "method": name,
            "cells": [
                {"self": True}
                if row == column
                else _preference_cell(
                    (name, other), values[row, column], p_values[row, column], board.alpha
                )
                for column, other in enumerate(names)
            ],
        }
        for row, name in enumerate(names)
    ]


def _preference_cell(
    names: tuple[str, str], value: float, p_value: float, alpha: float
) -> dict[str, Any]:
    """A cell: its number, its colour, and its text for pointers and screen readers."""
    if not math.isfinite(value):
        title = f"{names[0]} and {names[1]} have no scene in common"
        return {"self": False, "text": NOTHING, "kind": "unreal", "strength": 0, "title": title}
    kind = "win" if value >= 0.5 else "lose"
    real = p_value <= alpha  # NaN: not known to be
    verdict = f"p {p_value:.2g}" if math.isfinite(p_value) else "p unknown"
    return {
        "self": False,
        "text": f"{value:.2f}",
        "kind": kind if real else f"{kind} unreal",
        "strength": f"{2 * abs(value - 0.5):.2f}",
        "title": f"{names[0]} over {names[1]}: {value:.3f}, {verdict}"
        + ("" if real else ", no difference found"),
    }


def _settings_context(report: Report) -> dict[str, Any]:
    settings = dict(report.settings)
    versions = settings.pop("versions", None)
    command = settings.pop("command", None)
    if isinstance(command, (list, tuple)):
        command = " ".join(map(str, command))
    told = {name: value for name, value in settings.items() if value not in ("", [])}
    lines = [(name.replace("_", " "), _value(value)) for name, value in told.items()]
    if not isinstance(versions, Mapping):
        versions = {}
    return {
        "settings": lines,
        "versions": [(str(name), _value(value)) for name, value in versions.items()],
        "commands": {"scores": str(command or ""), "report": report.command},
    }


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return NOTHING if value is None else str(value)
