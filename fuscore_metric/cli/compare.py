"""`fuscore compare`: two folders of fused images, or two methods of a table -> which is better."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuscore_metric.cli.shared.console import make_console
from fuscore_metric.cli.shared.options import Pair, checked, one_of, scoring_options
from fuscore_metric.cli.shared.run import (
    Out,
    Overwrite,
    Progressing,
    bar,
    report_errors,
    require_tables,
    say,
    stopping,
)
from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.prompts import ALL_ASPECTS
from fuscore_metric.runs.scoring import Scoring, score_into

if TYPE_CHECKING:
    import pandas

    from fuscore_metric.results.read import Results
    from fuscore_metric.results.rows import Row

FORMATS = ("text", "csv", "json", "latex", "markdown")


@scoring_options(aspect=ALL_ASPECTS)
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="Folder of fused images, or NAME=FOLDER; with --results a method."
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    ir: Annotated[Path | None, typer.Option(help="Folder of infrared images.")] = None,
    vis: Annotated[
        Path | None, typer.Option(help="Folder of visible images of the same names.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Compare two methods of this table or run folder; nothing is scored."),
    ] = None,
    pair: Pair = None,
    out: Out = Path("fuscore-results"),
    *,
    scoring: Scoring,
    output_format: Annotated[
        str,
        typer.Option(
            "--format", help=f"One of {', '.join(FORMATS)}.", autocompletion=one_of(*FORMATS)
        ),
    ] = "text",
    limit: Annotated[
        int,
        typer.Option(min=0, help="Scenes listed, and of those that disagree; JSON, CSV have all."),
    ] = 20,
    overwrite: Overwrite = False,
    progress: Progressing = True,
) -> None:
    """Tell which of two methods is better, how surely, and which scenes disagree.

    Prints the win rate with its interval, the difference of means with its, a paired test, and
    P(A is better than B) by scene. With --aspect all, `overall` is compared. Triples that a run
    folder has already, such as that of `fuscore rank`, are not scored again.

    Example: fuscore compare fused/ours fused/U2Fusion --ir ir --vis vis

    Example: fuscore compare new=runs/2/out old=runs/1/out --ir ir --vis vis --format json

    Example: fuscore compare ours U2Fusion --results results.parquet
    """
    with start_up():
        if output_format not in FORMATS:
            raise typer.BadParameter(f"expected one of {', '.join(FORMATS)}", param_hint="--format")
        require_tables("compare")
        scoring = checked(scoring)
    if results is not None:
        if ir is not None or vis is not None or pair is not None:
            raise typer.BadParameter("expected without --ir, --vis, --pair", param_hint="--results")
        from fuscore_metric.results.read import read_results

        found = read_results(results)
        _show(found.table, found.settings, (a, b), output_format, limit)
    elif ir is not None and vis is not None:
        names, rows = _score(
            (a, b), ir, vis, pair, scoring, out, overwrite=overwrite, progress=progress
        )
        found = _shared_results(out, names, rows)
        _show(found.table, found.settings, names, output_format, limit)
        report_errors(rows, out)
    else:
        raise typer.BadParameter("expected both, or --results", param_hint="--ir and --vis")


def _score(
    given: tuple[str, str],
    ir: Path,
    vis: Path,
    pair: str | None,
    scoring: Scoring,
    out: Path,
    *,
    overwrite: bool,
    progress: bool,
) -> tuple[tuple[str, str], list[Row]]:
    """Score two folders into a run folder; the names of the two methods, and their rows."""
    with start_up():
        from fuscore_metric.runs.folders import match_folders, method_folders

        folders, _ = method_folders(given, None)
        if len(folders) < 2:
            raise typer.BadParameter("expected two folders, got one twice", param_hint="A and B")
        matched = match_folders(ir, vis, folders, pair=pair)
        for note in matched.notes():
            say(note)
        settings = scoring.describe(ir=str(ir.resolve()), vis=str(vis.resolve()))
        from fuscore_metric.results.run_folder import RunFolder
    with stopping(), RunFolder(out, settings, overwrite=overwrite) as folder:
        shown = partial(bar, wanted=progress)
        rows = score_into(folder, matched.entries, scoring, progress=shown, tell=say)
    asked = {entry.key for entry in matched.entries}
    first, second = folders
    return (first, second), [row for row in rows if (row["scene"], row["method"]) in asked]


def _shared_results(out: Path, names: tuple[str, str], rows: list[Row]) -> Results:
    """The results of some rows of a run folder, which may hold more."""
    from fuscore_metric.results.read import Results, read_results

    scored = {name: _scenes(rows, name) for name in names}
    if not scored[names[0]] & scored[names[1]]:
        report_errors(rows, out)  # it is the errors that left nothing to compare
    found = read_results(out)
    here = found.table["scene"].isin({row["scene"] for row in rows})
    return Results(found.table[here], found.settings)


def _scenes(rows: list[Row], method: str) -> set[str]:
    return {row["scene"] for row in rows if row["method"] == method and row["error"] is None}


def _show(
    table: pandas.DataFrame,
    settings: Mapping[str, Any],
    names: tuple[str, str],
    output_format: str,
    limit: int,
) -> None:
    from fuscore_metric.leaderboard import comparison_tables
    from fuscore_metric.leaderboard.comparison import compare

    result = compare(table, *names, temperature=float(settings.get("temperature") or 1.0))
    if output_format in ("csv", "json"):
        whole = {"csv": comparison_tables.as_csv, "json": comparison_tables.as_json}
        typer.echo(whole[output_format](result, settings=settings))
    elif output_format == "text":
        shown = comparison_tables.as_rich(result, settings=settings, limit=limit)
        make_console().print(shown)
    else:
        renders = {"markdown": comparison_tables.as_markdown, "latex": comparison_tables.as_latex}
        typer.echo(renders[output_format](result, settings=settings, limit=limit))
