"""A results table -> the HTML page of `fuscore report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuscore_metric.prompts import DEFAULT_ASPECT, main_aspect, run_aspects
from fuscore_metric.report.build import Report, render
from fuscore_metric.report.measures import MOST_CONTRADICTIONS, contradictions
from fuscore_metric.report.pictures import choose, count_steps, illustrate
from fuscore_metric.report.scorer import OtherWeightsError
from fuscore_metric.results.run_folder import replace_text

if TYPE_CHECKING:
    from fuscore_metric.leaderboard.statistics import Leaderboard
    from fuscore_metric.model import FuScore
    from fuscore_metric.report.data import Grid


def make_report(
    grid: Grid,
    board: Leaderboard | None,
    settings: Mapping[str, Any],
    load: Callable[[], FuScore],
    *,
    title: str,
    scenes: int,
    per_scene: int,
    attribution: bool,
    command: str,
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
    others: bool = False,
    highlight: Sequence[str] = (),
) -> Report:
    """Choose scenes and read their pictures.

    Args:
        grid: The scores.
        board: The leaderboard; None where no row has a score.
        settings: Of the run.
        load: Loads the model that gave the scores, or raises `OtherWeightsError`; it is called
            only where maps are wanted.
        title: Heading of the page.
        scenes: Best, worst and most disputed scenes with pictures, of each kind.
        per_scene: Methods with pictures for such a scene.
        attribution: Whether to map where score was lost.
        command: The command line that makes the page again.
        progress: As `runs.scoring.ProgressBar`, for pictures and maps.
        others: Whether all other scenes have pictures too.
        highlight: Methods whose names stand out everywhere.
    """
    listed = choose(grid, scenes=scenes, per_scene=per_scene, others=others, highlight=highlight)
    contrary = contradictions(grid, board, min(scenes, MOST_CONTRADICTIONS))
    choices = [*listed, *(one.choice for one in contrary)]
    model, note = None, ""
    if attribution and choices:
        try:
            model = load()
        except OtherWeightsError as error:
            note = f"No maps of where the score was lost: {error}"
    aspect = DEFAULT_ASPECT
    if model is not None:  # the settings of a table may name anything
        aspect = main_aspect(run_aspects(str(settings.get("aspect") or DEFAULT_ASPECT)))
    with progress(count_steps(choices, maps=model is not None)) as advance:
        exhibits = [
            illustrate(
                one,
                grid,
                model=model,
                aspect=aspect,
                thermal_range=settings.get("thermal_range"),
                progress=lambda _: advance(1),
            )
            for one in choices
        ]
    return Report(
        title=title,
        grid=grid,
        board=board,
        settings=settings,
        exhibits=exhibits[: len(listed)],
        contradictions=list(zip(contrary, exhibits[len(listed) :], strict=True)),
        pictures_wanted=scenes > 0 or others,
        map_note=note,
        command=command,
        highlight=highlight,
    )


def write_page(path: Path, report: Report) -> None:
    """Write the page whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    # What UTF-8 has no bytes for (names of files that are not text) becomes a character reference.
    replace_text(path, render(report).encode("utf-8", "xmlcharrefreplace").decode())
