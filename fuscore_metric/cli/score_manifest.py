"""`fuscore score-manifest`: a table of triples -> rows in a run folder, by an engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fuscore_metric.cli.shared.options import (
    AUTO,
    CHOICES,
    check_names,
    checked,
    one_of,
    scoring_options,
)
from fuscore_metric.cli.shared.run import (
    SHOWN_ERRORS,
    Out,
    Overwrite,
    Progressing,
    bar,
    report_errors,
    report_failed,
    require_tables,
    say,
    stopping,
)
from fuscore_metric.cli.shared.start_up import STOPPED, start_up
from fuscore_metric.optional import require
from fuscore_metric.prompts import DEFAULT_ASPECT
from fuscore_metric.results.tables import CSV_FILE, PARQUET_FILE
from fuscore_metric.runs.interrupts import Interrupts
from fuscore_metric.runs.scoring import Scoring, score_into

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """The engine that scores a manifest.

    Attributes:
        name: One of `ENGINES`.
        actors: Models that work at once; None for one. Ray's only.
        gpus_per_actor: Share of a GPU for each; None for none. Ray's only.
    """

    name: str
    actors: int | None = None
    gpus_per_actor: float | None = None

    def check(self) -> None:
        """Refuse an unknown engine, options of another engine, and missing packages.

        Raises:
            typer.BadParameter: The options do not fit.
            MissingPackageError: An extra is not installed.
        """
        if self.name not in ENGINES:
            raise typer.BadParameter(f"expected one of {', '.join(ENGINES)}", param_hint="--engine")
        for option, value in (
            ("--actors", self.actors),
            ("--gpus-per-actor", self.gpus_per_actor),
        ):
            if value is not None and self.name != "ray":
                raise typer.BadParameter("needs --engine ray", param_hint=option)
        require_tables("score-manifest")
        if self.name == "ray":
            require("`--engine ray`", "ray", install="fuscore-metric[ray]")


@scoring_options(aspect=DEFAULT_ASPECT, measures=True)
def score_manifest(
    manifest: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Table of triples: CSV, JSON Lines or Parquet.")
    ],
    out: Out = Path("fuscore-results"),
    *,
    scoring: Scoring,
    overwrite: Overwrite = False,
    engine: Annotated[
        str,
        typer.Option(help=f"What computes: {', '.join(ENGINES)}.", autocompletion=one_of(*ENGINES)),
    ] = "local",
    actors: Annotated[
        int | None, typer.Option(min=1, help="With --engine ray: models that work at once.")
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(min=0, help="With --engine ray: share of a GPU for each, such as 0.5."),
    ] = None,
    progress: Progressing = True,
) -> None:
    """Score the triples of a table into a run folder.

    Rows are kept as they come: stopped at any moment, the same command goes on.

    \b
    Examples:
      fuscore score-manifest triples.csv --out results
      fuscore score-manifest triples.parquet --engine ray --actors 4 --out results
    """  # noqa: D301 - \b keeps the lines of a paragraph
    run = _on_ray if engine == "ray" else _here
    how = Engine(engine, actors, gpus_per_actor)
    run(manifest, out, scoring, how, overwrite=overwrite, progress=progress)


def _here(
    manifest: Path, out: Path, scoring: Scoring, engine: Engine, *, overwrite: bool, progress: bool
) -> None:
    with start_up():
        engine.check()
        scoring = checked(scoring)
        from fuscore_metric.runs.manifest import read_manifest

        entries = read_manifest(manifest)
        source = str(manifest.resolve())
        settings = scoring.describe(ir=source, vis=source)
        from fuscore_metric.results.run_folder import RunFolder
    with stopping(), RunFolder(out, settings, overwrite=overwrite) as folder:
        shown = partial(bar, wanted=progress)
        rows = score_into(folder, entries, scoring, progress=shown, tell=say)
    say(f"{len(rows)} rows in {out / CSV_FILE} and {out / PARQUET_FILE}")
    report_errors(rows, out)


def _on_ray(
    manifest: Path, out: Path, scoring: Scoring, engine: Engine, *, overwrite: bool, progress: bool
) -> None:
    with start_up():
        engine.check()
        # Not the device: this machine may have none of the GPUs that the actors have.
        check_names(scoring.aspect, scoring.dtype, aspects=CHOICES)
        if scoring.device == AUTO:
            scoring = replace(scoring, device="cuda" if engine.gpus_per_actor else "cpu")
        source = str(manifest.resolve())
        settings = scoring.describe(ir=source, vis=source)
        from fuscore_metric.runs.on_ray import score_manifest
    try:
        with Interrupts().raised():
            results = score_manifest(
                manifest,
                out,
                settings,
                scoring,
                actors=engine.actors or 1,
                gpus_per_actor=engine.gpus_per_actor or 0,
                overwrite=overwrite,
                progress=partial(bar, wanted=progress),
            )
    except KeyboardInterrupt:
        say(f"Stopped: what is done is in {out}; the same command goes on from there")
        raise typer.Exit(STOPPED) from None
    _report(results)


def _report(results: Path) -> None:
    """Report where the rows are and how many have an error, reading no more than that column."""
    from pyarrow import compute, dataset

    rows = dataset.dataset(results, format="parquet")
    bad = compute.field("error").is_valid()
    total = rows.count_rows()
    say(f"{total} rows in {results}")
    first = rows.head(SHOWN_ERRORS, columns=["scene", "method", "error"], filter=bad)
    report_failed(first.to_pylist(), rows.count_rows(filter=bad), total, results)
