"""`fuscore rank`: folders of fused images -> a results table and a leaderboard."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fuscore_metric.cli.shared.console import make_console
from fuscore_metric.cli.shared.options import Pair, checked, one_of, scoring_options
from fuscore_metric.cli.shared.run import (
    SHOWN_ERRORS,
    Out,
    Overwrite,
    Progressing,
    bar,
    report_failed,
    require_tables,
    say,
    stopping,
)
from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.prompts import ALL_ASPECTS
from fuscore_metric.results.rows import Row
from fuscore_metric.results.tables import BOARD_FILES, CSV_FILE, PARQUET_FILE
from fuscore_metric.runs.scoring import Scoring, score_folders

if TYPE_CHECKING:
    from fuscore_metric.results.read import Results

FORMATS = ("text", "csv", "json", "latex", "markdown")


@scoring_options(aspect=ALL_ASPECTS, measures=True)
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
    *,
    scoring: Scoring,
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
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Rank only scenes that the weights did not learn from."),
    ] = False,
    overwrite: Overwrite = False,
    progress: Progressing = True,
) -> None:
    """Score every method on every scene, and tell which differences are real.

    Images belong together that have one name, whatever the extension, or one by --pair. Rows are
    kept as they come: stopped at any moment, the same command goes on. The run folder's results.csv
    and results.parquet have all rows it ever got; the leaderboard is of the methods given, and
    is written into that folder too, as leaderboard.csv, .json, .tex and .md.

    \b
    Examples:
      fuscore rank --ir ir --vis vis --methods-root fused
      fuscore rank --ir ir --vis vis --methods ours U2=../u2/out --format latex > table.tex
      fuscore rank --ir ir --vis vis --methods-root fused --measures paper
    """  # noqa: D301 - \b keeps the lines of a paragraph
    with start_up():
        if output_format not in FORMATS:
            raise typer.BadParameter(f"expected one of {', '.join(FORMATS)}", param_hint="--format")
        require_tables("rank")
        scoring = checked(scoring)
        from fuscore_metric.runs.folders import method_folders

        folders, skipped = method_folders(
            [*(methods or ()), *(more_methods or ())], methods_root, others=(ir, vis, out)
        )
    with stopping():
        found = score_folders(
            ir,
            vis,
            folders,
            scoring,
            out,
            skipped=skipped,
            pair=pair,
            strict=strict,
            overwrite=overwrite,
            progress=partial(bar, wanted=progress),
            warn=say,
            tell=say,
        )
    say(f"all rows are in {out / CSV_FILE} and {out / PARQUET_FILE}")
    if found.table["score"].notna().any():
        _show(found, out, output_format, held_out=held_out)
    failed = found.table[found.table["error"].notna()]
    first: list[Row] = failed.head(SHOWN_ERRORS).to_dict("records")  # type: ignore[assignment]
    report_failed(first, len(failed), len(found.table), out / CSV_FILE)


def _show(found: Results, results: Path, output_format: str, *, held_out: bool) -> None:
    """Print the leaderboard, and write it in all formats."""
    from fuscore_metric.runs.evaluation import summarise

    made = summarise(found, held_out=held_out)
    made.write(results)
    say(f"the leaderboard, all columns: {', '.join(BOARD_FILES.values())} in {results}")
    if output_format != "text":
        typer.echo(made.rendered()[output_format])
        return
    from fuscore_metric.leaderboard import tables

    console = make_console()
    shown = tables.as_rich(made.leaderboard, settings=made.settings, width=console.width)
    console.print(shown)
