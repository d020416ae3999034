"""Chosen scenes with their pictures -> what the template shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fuscore_metric.drawing.overlay import SCALE_END
from fuscore_metric.leaderboard.tables import number
from fuscore_metric.report.data import Grid
from fuscore_metric.report.measures import Contradiction
from fuscore_metric.report.pictures import BEST, OTHER, SPREAD, WORST, Exhibit, Shot

if TYPE_CHECKING:
    from fuscore_metric.report.build import Report

_HEADINGS = {
    BEST: ("Best scenes", "highest mean", "No scene has a score."),
    WORST: ("Worst scenes", "lowest mean", "No further scene has a score."),
    SPREAD: ("Scenes where methods disagree most", "most disputed", "None beyond those above."),
    OTHER: ("All other scenes", "", ""),
}
_ROLES = {"ir": "infrared", "vis": "visible"}


def pictures_context(report: Report) -> dict[str, Any]:
    """Give the template's values for the pictures: groups of scenes and notes about them."""
    groups = []
    for name, (heading, _, none) in _HEADINGS.items():
        members = [one for one in report.exhibits if one.choice.group == name]
        views = [_exhibit_view(one, report.grid) for one in members]
        above = [
            {"number": one.choice.scene, "scene": report.grid.scenes[one.choice.scene]}
            for one in report.exhibits
            if name in one.choice.also
        ]
        if views or above or none:
            groups.append(
                {
                    "heading": heading,
                    "exhibits": views,
                    "above": above,
                    "none": none,
                    "closed": name == OTHER,
                }
            )
    shown = len(report.exhibits)
    rest = len(report.grid.scenes) - shown
    if not report.pictures_wanted:
        note = "This report was made without pictures."
    elif not shown:
        note = "No scene has a score, so none was chosen for pictures."
    else:
        note = f"Pictures of {shown} scene{'s' * (shown != 1)}"
        if not any(one.choice.group == OTHER for one in report.exhibits):
            note += ", chosen by mean over the methods and by the best minus the worst score"
        note += ". Press a picture to enlarge it."
        if rest:
            note += f" The other {rest:,} have no pictures in this file."
    contrary = [exhibit for _, exhibit in report.contradictions]
    return {
        "contradictions": [_contradiction_view(*one, report.grid) for one in report.contradictions],
        "contrary_scale_end": _scale_end(contrary),
        "groups": groups if shown else [],
        "pictures_note": note,
        "map_note": report.map_note if shown else "",
        "scale_end": _scale_end(report.exhibits),
    }


def _scale_end(exhibits: Sequence[Exhibit]) -> str:
    """The end of the maps' scale; empty where there is no map."""
    return SCALE_END if any(s.role == "lost" for one in exhibits for s in one.shots) else ""


def _contradiction_view(one: Contradiction, exhibit: Exhibit, grid: Grid) -> dict[str, Any]:
    """What the template shows of two methods that a measure puts in the other order."""
    place, shown, pair = one.choice.scene, list(one.choice.methods), (one.better, one.worse)
    values = grid.columns[one.measure][place, shown]
    said = {
        summary.method: f"{one.measure} {number(value)}"
        for summary, value in zip(pair, values, strict=True)
    }
    return {
        "number": place,
        "scene": grid.scenes[place],
        "measure": one.measure,
        "better": one.better.method,
        "worse": one.worse.method,
        "scores": [number(summary.mean) for summary in pair],
        "values": [number(summary.measures[one.measure]) for summary in pair],
        "real": one.real,
        "cards": _cards(exhibit.shots, grid.scenes[place], said),
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
        "cards": _cards(exhibit.shots, name),
    }


def _cards(
    shots: Sequence[Shot], scene: str, said: Mapping[str, str] = MappingProxyType({})
) -> list[list[dict[str, Any]]]:
    """A card for each source and each fusion; a map belongs to the fusion before it.

    Args:
        shots: Of the scene.
        scene: Its name.
        said: What to say of a method's fusion beside its score.
    """
    cards: list[list[dict[str, Any]]] = []
    for shot in shots:
        if shot.role != "lost":
            cards.append([])
        view = _shot_view(shot, scene)
        if shot.role == "fused" and shot.method in said:
            view["figure"] = f"FuScore {view['figure']}, {said[shot.method]}"
        cards[-1].append(view)
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
        "method": shot.method,
        "caption": words,
        "figure": f"{shot.score:.3f}" if shot.role == "fused" else "",
        "alt": f"{words}, scene {scene}",
    }
