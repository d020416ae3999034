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
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fuscore_metric.checkpoint import LABEL_MEANING
from fuscore_metric.overlay import colours
from fuscore_metric.report import figures
from fuscore_metric.report.data import Grid, compact, script_json
from fuscore_metric.report.pictures import BEST, SPREAD, WORST, Exhibit, Shot
from fuscore_metric.results.rows import FURTHER_ASPECTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fuscore_metric.leaderboard.statistics import Leaderboard

MOST_FAILURES = 300
"""Rows of the list of failures; a run that failed altogether must not make a page of megabytes."""
NOTHING = "\N{EN DASH}"
"""What stands where there is no value."""
_HEADINGS = {
    BEST: ("Best scenes", "highest mean", "No scene has a score."),
    WORST: ("Worst scenes", "lowest mean", "No further scene has a score."),
    SPREAD: ("Scenes where methods disagree most", "most disputed", "None beyond those above."),
}
_ROLES = {"ir": "infrared", "vis": "visible"}


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
        command: What makes this page again.
    """

    title: str
    grid: Grid
    board: Leaderboard | None
    settings: Mapping[str, Any]
    exhibits: Sequence[Exhibit]
    pictures_wanted: bool
    map_note: str
    command: str


def render(report: Report) -> str:
    """Make the page: one self-contained HTML document."""
    environment = Environment(
        loader=PackageLoader("fuscore_metric.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _source(environment, "report.js")
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    # These are ours, and the JSON is made safe by `script_json`: nothing to escape.
    ready = {
        "css": Markup(environment.get_template("report.css").render(ramp=_ramp())),
        "js": Markup(script),
        "script_hash": Markup(digest),
        "json": Markup(script_json(compact(report.grid))),
    }
    page = environment.get_template("report.html.jinja")
    return page.render(
        title=report.title,
        labels=_label_banner(report.settings),
        **ready,
        **_leaderboard_context(report),
        **_pictures_context(report),
        **_settings_context(report),
    )


def page_figures(report: Report) -> dict[str, Callable[[int, figures.Palette], Figure]]:
    """Figures by name, as functions of a width in pixels and colours.

    On the page they are drawn wide and narrow; the matrix, a table there, is for print only.
    """
    if report.board is None:
        return {}
    board, scores = report.board, report.grid.scores_by_method()
    scored = {name: values for name, values in scores.items() if len(values)}
    label = f"{aspect_title(report.settings)} score, 1 (bad) to 5 (excellent)"
    drawn: dict[str, Callable[[int, figures.Palette], Figure]] = {
        "distribution": lambda width, palette: figures.distribution(
            scored, width=width, palette=palette, label=label
        )
    }
    if len(board.methods) > 1:
        drawn["preferences"] = lambda width, palette: figures.matrix(board, palette=palette)
        if all(math.isfinite(one.mean_rank) for one in board.methods):
            drawn["ranks"] = lambda width, palette: figures.ranks(
                board, width=width, palette=palette
            )
    return drawn


def aspect_title(settings: Mapping[str, Any]) -> str:
    """What `score` is of, in words: all aspects together have `overall` there."""
    aspect = str(settings.get("aspect") or "overall")
    return "overall" if aspect == "all" else aspect.replace("_", " ")


def _source(environment: Environment, name: str) -> str:
    loader = environment.loader
    if loader is None:
        raise ValueError("Expected an environment with a loader")
    return loader.get_source(environment, name)[0]


def _ramp() -> str:
    """The maps' colours as stops of a CSS gradient."""
    stops = np.rint(colours(np.linspace(0, 1, 5, dtype=np.float32))).astype(int)
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops.tolist())


def _label_banner(settings: Mapping[str, Any]) -> dict[str, str]:
    """What the scores stand on. Only the label kind `human` may be called that."""
    kind = settings.get("label_kind")
    if kind not in LABEL_MEANING:
        return {
            "tone": "warn",
            "headline": "It is not known what these scores stand on.",
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
    # What stands behind the first sentence says how the labels came to be.
    _, _, history = str(settings.get("labels", "")).partition(". ")
    if history:
        detail = f"{history.rstrip('.')}. {detail}"
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
    return {
        "facts": [*facts, *([("Run on", _day(settings))] if settings.get("started") else [])],
        "board": board,
        "scale": _scale(board) if board else (1, 5),
        "aspects": [name for name in FURTHER_ASPECTS if name in present],
        "unscored": [name for name in grid.methods if name not in set(listed)],
        "failed_by_method": failed,
        "rank_plots": plots.get("ranks", []),
        "distribution_plots": plots.get("distribution", []),
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


def _day(settings: Mapping[str, Any]) -> str:
    return str(settings["started"])[:10]


def _plots(
    drawn: Mapping[str, Callable[[int, figures.Palette], Figure]],
) -> dict[str, list[Markup]]:
    """Each figure for wide and for narrow windows, of which the style shows one."""
    titles = {"distribution": "Distribution of scores by method", "ranks": "Mean rank of methods"}
    widths = {"wide": figures.WIDE, "narrow": figures.NARROW}
    made: dict[str, list[Markup]] = {}
    for name in titles.keys() & drawn.keys():
        draw = drawn[name]
        for kind, width in widths.items():
            svg = figures.themed_svg(
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
    """A cell: its number, colour and what a pointer or screen reader is told."""
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


def _pictures_context(report: Report) -> dict[str, Any]:
    groups = []
    for name, (heading, _, none) in _HEADINGS.items():
        members = [one for one in report.exhibits if one.choice.group == name]
        views = [_exhibit_view(one, report.grid) for one in members]
        above = [
            {"number": one.choice.scene, "scene": report.grid.scenes[one.choice.scene]}
            for one in report.exhibits
            if name in one.choice.also
        ]
        groups.append({"heading": heading, "exhibits": views, "above": above, "none": none})
    shown = len(report.exhibits)
    rest = len(report.grid.scenes) - shown
    if not report.pictures_wanted:
        note = "This report was made without pictures."
    elif not shown:
        note = "No scene has a score, so none was chosen for pictures."
    else:
        note = (
            f"Small pictures of {shown} chosen scene{'s' * (shown != 1)}, by mean over the methods "
            "and by the best minus the worst score."
        )
        if rest:
            note += f" The other {rest:,} have no pictures in this file."
    return {
        "groups": groups if shown else [],
        "pictures_note": note,
        "map_note": report.map_note if shown else "",
    }


def _exhibit_view(exhibit: Exhibit, grid: Grid) -> dict[str, Any]:
    choice = exhibit.choice
    name = grid.scenes[choice.scene]
    scored = int(np.isfinite(grid.score[choice.scene]).sum())
    return {
        "number": choice.scene,
        "scene": name,
        "mean": float(grid.mean[choice.scene]),
        "spread": float(grid.spread[choice.scene]),
        "shown": len(choice.methods),
        "hidden": scored - len(choice.methods),
        "also": [f"also {_HEADINGS[group][1]}" for group in choice.also],
        "cards": [[_shot_view(shot, name) for shot in card] for card in _cards(exhibit.shots)],
        "full_scale": exhibit.full_scale,
    }


def _cards(shots: Sequence[Shot]) -> list[list[Shot]]:
    """Two pictures above each other: the sources, a fusion and its map, or two fusions."""
    cards: list[list[Shot]] = []
    alone: list[Shot] | None = None
    for _, group in groupby(shots, key=lambda shot: shot.method):
        card = list(group)
        if len(card) == 1 and alone is not None:
            alone += card
            alone = None
            continue
        cards.append(card)
        if len(card) == 1:
            alone = card
    return cards


def _shot_view(shot: Shot, scene: str) -> dict[str, Any]:
    words = _ROLES.get(shot.role, shot.method)
    if shot.role == "lost":
        words = f"where {shot.method} lost score"
    return {
        "role": shot.role,
        "uri": shot.uri,
        "note": shot.note,
        "width": shot.width,
        "height": shot.height,
        "caption": words,
        "figure": f"{shot.score:.3f}" if shot.role == "fused" else "",
        "alt": f"{words}, scene {scene}",
    }


def _settings_context(report: Report) -> dict[str, Any]:
    settings = dict(report.settings)
    versions = settings.pop("versions", None)
    command = settings.pop("command", None)
    if isinstance(command, (list, tuple)):
        command = " ".join(map(str, command))
    lines = [(name.replace("_", " "), _value(value)) for name, value in settings.items()]
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
