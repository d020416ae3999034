"""`fuscore rank`: folders of fused images -> a results table and a leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuscore_metric.cli._console import make_console
from fuscore_metric.cli._options import (
    AUTO,
    CHOICES,
    Aspect,
    Device,
    Dtype,
    Pair,
    Revision,
    ThermalRange,
    Weights,
    check_options,
    one_of,
)
from fuscore_metric.cli._run import (
    BatchSize,
    Out,
    Overwrite,
    Progressing,
    Scoring,
    report_errors,
    report_matched,
    require_tables,
    say,
    score_into,
)
from fuscore_metric.cli._start_up import start_up
from fuscore_metric.prompts import ALL_ASPECTS
from fuscore_metric.results.tables import BOARD_FILES

if TYPE_CHECKING:
    from fuscore_metric.leaderboard.statistics import Leaderboard

FORMATS = ("text", "csv", "json", "latex", "markdown")


def rank(
    ir: Annotated[Path, typer.Option(help="Folder of infrared images.")],
    vis: Annotated[Path, typer.Option(help="Folder of visible images of the same names.")],
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Folders of fused images, one a method; FOLDER or NAME=FOLDER."),
    ] = None,
    more_methods: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER",
            help="More of them: --methods a b c is three.",
            show_default=False,
        ),
    ] = None,
    methods_root: Annotated[
        Path | None, typer.Option(help="Folder whose subfolders are methods.")
    ] = None,
    pair: Pair = None,
    out: Out = Path("fuscore-results"),
    weights: Weights = "embedded",
    revision: Revision = None,
    aspect: Aspect = ALL_ASPECTS,
    device: Device = AUTO,
    dtype: Dtype = None,
    batch_size: BatchSize = 8,
    thermal_range: ThermalRange = None,
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Of the leaderboard: {', '.join(FORMATS)}.",
            autocompletion=one_of(*FORMATS),
        ),
    ] = "text",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop if an image has no partner.")
    ] = False,
    overwrite: Overwrite = False,
    progress: Progressing = True,
) -> None:
    """Score every method on every scene, and say which differences are real.

    Images belong together that have one name, whatever the extension, or one by --pair. Rows are
    kept as they come: stopped at any moment, the same command goes on. The run folder's results.csv
    and results.parquet have all rows it ever got; the leaderboard is of the methods given, and
    is written into that folder too, as leaderboard.csv, .json, .tex and .md.

    \b
    Examples:
      fuscore rank --ir ir --vis vis --methods-root fused
      fuscore rank --ir ir --vis vis --methods ours U2=../u2/out --format latex > table.tex
    """  # noqa: D301 - \b keeps the lines of a paragraph
    with start_up():
        if output_format not in FORMATS:
            raise typer.BadParameter(f"expected one of {', '.join(FORMATS)}", param_hint="--format")
        require_tables("rank")
        device = check_options(aspect, device, dtype, aspects=CHOICES)
        from fuscore_metric.folders import match_folders, method_folders

        folders, skipped = method_folders(
            [*(methods or ()), *(more_methods or ())], methods_root, others=(ir, vis, out)
        )
        matched = match_folders(ir, vis, folders, pair=pair)
        report_matched(matched, skipped)
        if strict and matched.unmatched:
            from fuscore_metric.images import InputError

            raise InputError(
                "Stopped before anything was computed: images without a partner, --strict"
            )
        scoring = Scoring(weights, revision, aspect, device, dtype, batch_size, thermal_range)
        settings = scoring.describe(ir=str(ir.resolve()), vis=str(vis.resolve()))
        from fuscore_metric.results.run_folder import RunFolder
    with RunFolder(out, settings, overwrite=overwrite) as folder:
        rows = score_into(folder, matched.entries, scoring, progress=progress)
    say(f"{len(rows)} rows in {out / 'results.csv'} and {out / 'results.parquet'}")
    asked = [row for row in rows if row["method"] in folders]
    if any(row["error"] is None for row in asked):
        show_leaderboard(out, output_format, list(folders))
    report_errors(asked, out)


def show_leaderboard(results: Path, output_format: str, methods: Sequence[str]) -> None:
    """Print the leaderboard of some methods of a run folder, which may hold more, and write it."""
    from fuscore_metric.leaderboard import tables
    from fuscore_metric.leaderboard.statistics import leaderboard
    from fuscore_metric.results.read import read_results
    from fuscore_metric.results.run_folder import replace_text

    found = read_results(results)
    table = found.table[found.table["method"].isin(methods)]
    board = leaderboard(table, temperature=found.settings.get("temperature", 1.0))
    texts = _rendered(board, found.settings)
    for name, file in BOARD_FILES.items():
        replace_text(results / file, texts[name] + "\n")
    say(f"the leaderboard, all columns: {', '.join(BOARD_FILES.values())} in {results}")
    if output_format == "text":
        console = make_console()
        console.print(tables.as_rich(board, settings=found.settings, width=console.width))
    else:
        typer.echo(texts[output_format])


def _rendered(board: Leaderboard, settings: Mapping[str, Any]) -> dict[str, str]:
    """The leaderboard in each format of `BOARD_FILES`."""
    from fuscore_metric.leaderboard import tables

    renders = {
        "csv": tables.as_csv,
        "json": tables.as_json,
        "latex": tables.as_latex,
        "markdown": tables.as_markdown,
    }
    return {name: render(board, settings=settings) for name, render in renders.items()}
