"""`fuscore report`: a results table -> one HTML file, and figures for a paper."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuscore_metric.cli._options import AUTO, Device, check_options
from fuscore_metric.cli._run import Progressing, bar, say
from fuscore_metric.cli._start_up import start_up
from fuscore_metric.optional import require
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, DEFAULT_ASPECT

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore
    from fuscore_metric.report.build import Report
    from fuscore_metric.report.data import Grid
    from fuscore_metric.report.pictures import Choice, Exhibit

_LARGE = 10_000_000
_PACKAGES = ("jinja2", "matplotlib", "pandas", "pyarrow", "scipy")


def report(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS",
            exists=True,
            help="results.parquet, results.csv, or the folder of a run.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Fusion quality",
    scenes: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Best, worst and most disputed scenes with pictures, of each kind."
        ),
    ] = 3,
    per_scene: Annotated[
        int,
        typer.Option(min=1, max=100, help="Methods with pictures for such a scene: its ends."),
    ] = 4,
    attribution: Annotated[
        bool,
        typer.Option(help="Map where the best and the worst fusion of such a scene lost score."),
    ] = True,
    device: Device = AUTO,
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder to write the figures to as PDF and PNG, in print style."),
    ] = None,
    progress: Progressing = True,
) -> None:
    """Make one HTML file of a results table: leaderboard, plots, scenes, pictures, settings.

    The file needs no network and nothing beside it. Pictures are small copies, of chosen scenes.

    Example: fuscore report fuscore-results -o report.html

    Example: fuscore report results.parquet --scenes 5 --no-attribution --figures figures
    """
    require("`fuscore report`", *_PACKAGES, install="fuscore-metric[report]")
    _check_out(out, figures)
    device = check_options(DEFAULT_ASPECT, device, None, aspects=ASPECTS)
    from fuscore_metric.leaderboard.statistics import leaderboard
    from fuscore_metric.report.build import Report, render
    from fuscore_metric.report.data import make_grid
    from fuscore_metric.report.pictures import choose
    from fuscore_metric.results.read import read_results

    found = read_results(results)
    table, settings = found.table, found.settings
    board = None
    if table["score"].notna().any():
        board = leaderboard(table, temperature=float(settings.get("temperature") or 1.0))
    grid = make_grid(table, [one.method for one in board.methods] if board else [])
    choices = choose(grid, scenes=scenes, per_scene=per_scene)
    judge, map_note = _judge(settings, device, wanted=attribution and bool(choices))
    content = Report(
        title=title,
        grid=grid,
        board=board,
        settings=settings,
        exhibits=_exhibits(choices, grid, judge, settings, progress=progress),
        pictures_wanted=scenes > 0,
        map_note=map_note,
        command=_command(),
    )
    written = [_write(out, render(content)), *_write_figures(content, figures)]
    for path in written:
        typer.echo(str(path))


def _check_out(out: Path, figures: Path | None) -> None:
    """Refuse what cannot be written before anything is computed."""
    if out.is_dir():
        raise typer.BadParameter(
            f"expected a file, got the folder {str(out)!r}", param_hint="--out"
        )
    if not out.parent.is_dir():
        raise typer.BadParameter(
            f"expected a file in a folder that exists, got {str(out)!r}", param_hint="--out"
        )
    if figures is not None and figures.exists() and not figures.is_dir():
        raise typer.BadParameter(
            f"expected a folder, got the file {str(figures)!r}", param_hint="--figures"
        )


def _judge(settings: Mapping[str, Any], device: str, *, wanted: bool) -> tuple[FuScore | None, str]:
    """The model that gave the scores, or None and why there are no maps; said on stderr too."""
    if not wanted:
        return None, ""
    from fuscore_metric.report.judge import OtherWeightsError, load_judge

    try:
        with start_up():
            return load_judge(settings, device), ""
    except OtherWeightsError as error:
        note = f"No maps of where the score was lost: {error}"
        say(note)
        return None, note


def _exhibits(
    choices: list[Choice],
    grid: Grid,
    judge: FuScore | None,
    settings: Mapping[str, Any],
    *,
    progress: bool,
) -> list[Exhibit]:
    from fuscore_metric.report.pictures import count_steps, illustrate

    aspect = str(settings.get("aspect") or DEFAULT_ASPECT)
    if aspect == ALL_ASPECTS:
        aspect = DEFAULT_ASPECT
    thermal_range = settings.get("thermal_range")
    steps = count_steps(choices, maps=judge is not None)
    with bar(steps, progress) as advance:
        return [
            illustrate(
                one,
                grid,
                judge=judge,
                aspect=aspect,
                thermal_range=thermal_range,
                progress=lambda _: advance(1),
            )
            for one in choices
        ]


def _command() -> str:
    """What was typed, to stand in the page."""
    return shlex.join(["fuscore", *sys.argv[1:]])


def _write(out: Path, page: str) -> Path:
    """Write the page whole or not at all."""
    # What UTF-8 has no bytes for (names of files that are no text) becomes a replacement sign.
    content = page.encode("utf-8", "xmlcharrefreplace")
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, out)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise typer.BadParameter(
            f"cannot write {str(out)!r}: {error}", param_hint="--out"
        ) from error
    if len(content) > _LARGE:
        say(f"{out} has {len(content) / 1e6:.0f} MB; fewer --scenes make it smaller")
    return out


def _write_figures(content: Report, folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    from fuscore_metric.report.build import page_figures
    from fuscore_metric.report.figures import PRINT_WIDTH, save_print

    drawn = page_figures(content)
    if not drawn:
        say("no figures: no row of the table has a score")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in drawn.items():
        written += save_print(partial(draw, PRINT_WIDTH), folder / name)
    return written
