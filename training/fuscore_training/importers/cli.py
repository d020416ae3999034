"""`fuscore-train import`, `import-mos`, `import-preferences`: other ratings -> a table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from fuscore_training.ratings import RatingsTable

Out = Annotated[Path, typer.Option(help="Ratings table to write, .csv or .parquet.")]
Kind = Annotated[
    str, typer.Option(help='Who rated: "human" (people, nobody else), "model" or "proxy".')
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("import")(import_dataset)
    app.command("import-mos")(import_mos)
    app.command("import-preferences")(import_preferences)


def import_dataset(
    source: Annotated[
        str, typer.Argument(help="Hub id, save_to_disk folder, Parquet file or folder of them.")
    ],
    work: Annotated[Path, typer.Option(help="Folder for images, ratings.parquet and a report.")],
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of a hub data set.")
    ] = None,
    fractions: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Shares of train, val and test; its own proportions by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of our split.")] = 0,
    label_kind: Annotated[
        str, typer.Option(help='Who rated: "model" for EVAFusion; "human" only if all were people.')
    ] = "model",
    local_files_only: Annotated[
        bool, typer.Option("--local-files-only", help="Ask no hub, take what is in the cache.")
    ] = False,
) -> None:
    """Import EVAFusion or a data set of its schema, with splits that share no scene."""
    from fuscore_training.importers.eva_fusion import REPORT, load_ratings
    from fuscore_training.importers.import_report import read_report, summary
    from fuscore_training.ratings import SPLITS

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    table = load_ratings(
        source,
        work=work,
        revision=revision,
        fractions=dict(zip(SPLITS, fractions, strict=True)) if fractions else None,
        seed=seed,
        label_kind=cast(Any, label_kind),
        local_files_only=local_files_only,
    )
    if (work / REPORT).is_file():
        typer.echo(summary(read_report(work / REPORT)))
    typer.echo(f"{len(table)} ratings of kind {table.label_kind!r}")
    if "split" in table.frame:
        counts = table.frame["split"].value_counts()
        typer.echo(f"our split: {', '.join(f'{name} {counts.get(name, 0)}' for name in SPLITS)}")


def import_mos(
    source: Annotated[Path, typer.Argument(help="CSV of opinions, one row per triple and rater.")],
    out: Out,
    label_kind: Kind,
    scale: Annotated[
        tuple[float, float], typer.Option(help="Worst and best value of the study's scale.")
    ] = (1.0, 5.0),
    screening: Annotated[
        str, typer.Option(help='"bt500" leaves out erratic raters as ITU-R BT.500 does.')
    ] = "none",
    standardisation: Annotated[
        str, typer.Option(help='"raters" gives all raters one mean and spread.')
    ] = "none",
) -> None:
    """Average single raters' opinions; their spread becomes the width of the labels."""
    from fuscore_training.importers.mean_opinions import import_mean_opinions

    report = _report_beside(out)
    table = import_mean_opinions(
        source,
        label_kind=cast(Any, label_kind),
        scale=scale,
        screening=cast(Any, screening),
        standardisation=cast(Any, standardisation),
        report=report,
    )
    _finish(table, out, report)


def import_preferences(
    source: Annotated[Path, typer.Argument(help="CSV of choices between two fusions.")],
    triples: Annotated[Path, typer.Option(help="CSV of what was shown.")],
    out: Out,
    label_kind: Kind,
    model: Annotated[str, typer.Option(help='"thurstone" or "bradley-terry".')] = "thurstone",
    disconnected: Annotated[
        str, typer.Option(help='"separate" scales parts of a scene that were never compared.')
    ] = "error",
) -> None:
    """Turn pairwise choices into scale values, and these into ratings."""
    from fuscore_training.importers.preferences import import_preferences as imported

    report = _report_beside(out)
    table = imported(
        source,
        triples,
        label_kind=cast(Any, label_kind),
        model=cast(Any, model),
        disconnected=cast(Any, disconnected),
        report=report,
    )
    _finish(table, out, report)


def _report_beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.import_report.json")


def _finish(table: RatingsTable, out: Path, report: Path) -> None:
    """Write a table and show what became of the rows."""
    from fuscore_training.importers.import_report import read_report, summary
    from fuscore_training.ratings import write_ratings

    write_ratings(table, out)
    typer.echo(summary(read_report(report)))
    typer.echo(f"{out}: {len(table)} ratings of kind {table.label_kind!r}; details in {report}")
