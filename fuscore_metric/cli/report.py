"""`fuscore report`: a results table -> one HTML file, and figures for a paper."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fuscore_metric.cli.shared.options import AUTO, Device, check_options
from fuscore_metric.cli.shared.run import Progressing, bar, say
from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.optional import require
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore
    from fuscore_metric.report.build import Report
    from fuscore_metric.report.data import Grid

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
    pictures: Annotated[
        Literal["chosen", "all"],
        typer.Option(
            help="Scenes with pictures: those chosen, or all; a scene with four methods and two "
            "maps takes about 0.3 MB of the page."
        ),
    ] = "chosen",
    highlight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="Method that is bold everywhere and has its picture and map in every scene "
            "shown; may be given several times.",
        ),
    ] = None,
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
    from fuscore_metric.report.data import make_grid
    from fuscore_metric.report.scorer import load_scorer
    from fuscore_metric.results.read import read_results
    from fuscore_metric.runs.page import make_report, write_page

    found = read_results(results)
    table, settings = found.table, found.settings
    board = None
    if table["score"].notna().any():
        board = leaderboard(table, temperature=float(settings.get("temperature") or 1.0))
    grid = make_grid(table, [one.method for one in board.methods] if board else [])
    highlight = _check_highlight(highlight or [], grid)

    def load() -> FuScore:
        with start_up():
            return load_scorer(settings, device)

    content = make_report(
        grid,
        board,
        settings,
        load,
        title=title,
        scenes=scenes,
        per_scene=per_scene,
        attribution=attribution,
        command=shlex.join(["fuscore", *sys.argv[1:]]),
        progress=partial(bar, wanted=progress),
        others=pictures == "all",
        highlight=highlight,
    )
    if content.map_note:
        say(content.map_note)
    write_page(out, content)
    if (size := out.stat().st_size) > _LARGE:
        say(f"{out} has {size / 1e6:.0f} MB; fewer --scenes or --per-scene make it smaller")
    for path in [out, *_write_figures(content, figures)]:
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


def _check_highlight(highlight: list[str], grid: Grid) -> list[str]:
    for name in highlight:
        if name not in grid.methods:
            raise typer.BadParameter(
                f"expected one of the methods {', '.join(grid.methods)}, got {name!r}",
                param_hint="--highlight",
            )
    return highlight


def _write_figures(content: Report, folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    from fuscore_metric.report.build import page_figures
    from fuscore_metric.report.figure_files import save_print
    from fuscore_metric.report.figures import PRINT_WIDTH

    drawn = page_figures(content)
    if not drawn:
        say("no figures: no row of the table has a score")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in drawn.items():
        written += save_print(partial(draw, PRINT_WIDTH), folder / name)
    return written
