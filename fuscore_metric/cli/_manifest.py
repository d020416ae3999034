"""`fuscore score --manifest`: a table of triples -> rows in a run folder, by an engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import typer

from fuscore_metric.cli._options import AUTO, CHOICES, check_names, check_options
from fuscore_metric.cli._run import (
    SHOWN_ERRORS,
    Interrupts,
    Scoring,
    bar,
    report_errors,
    report_failed,
    require_tables,
    say,
    score_into,
)
from fuscore_metric.cli._start_up import STOPPED, start_up
from fuscore_metric.optional import require
from fuscore_metric.results.tables import CSV_FILE, PARQUET_FILE

ENGINES = ("local", "ray")
OUT = Path("fuscore-results")
"""Where the rows go if nothing is said."""


@dataclass(frozen=True)
class Engine:
    """What runs a manifest.

    Attributes:
        name: One of `ENGINES`.
        actors: Models that work at once; None for one. Ray's only.
        gpus_per_actor: Share of a GPU for each; None for none. Ray's only.
    """

    name: str
    actors: int | None = None
    gpus_per_actor: float | None = None

    def check(self) -> None:
        """Refuse an unknown engine, options that are another's, and missing packages.

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
        require_tables("score --manifest")
        if self.name == "ray":
            require("`--engine ray`", "ray", install="fuscore-metric[ray]")


def score_file(
    manifest: Path,
    out: Path | None,
    scoring: Scoring,
    engine: Engine,
    *,
    overwrite: bool,
    progress: bool,
) -> None:
    """Score the triples of a manifest into a run folder.

    Args:
        manifest: The table of triples.
        out: Run folder; None for `OUT`.
        scoring: How they are scored.
        engine: What runs them.
        overwrite: Whether to begin anew.
        progress: Whether to show a bar.

    Raises:
        InputError: The manifest or the folder cannot be used.
        typer.Exit: Stopped by the user, or some rows have an error.
    """
    out = OUT if out is None else out
    run = _on_ray if engine.name == "ray" else _here
    run(manifest, out, scoring, engine, overwrite=overwrite, progress=progress)


def _here(
    manifest: Path, out: Path, scoring: Scoring, engine: Engine, *, overwrite: bool, progress: bool
) -> None:
    with start_up():
        engine.check()
        device = check_options(scoring.aspect, scoring.device, scoring.dtype, aspects=CHOICES)
        scoring = replace(scoring, device=device)
        from fuscore_metric.manifest import read_manifest

        entries = read_manifest(manifest)
        source = str(manifest.resolve())
        settings = scoring.describe(ir=source, vis=source)
        from fuscore_metric.results.run_folder import RunFolder
    with RunFolder(out, settings, overwrite=overwrite) as folder:
        rows = score_into(folder, entries, scoring, progress=progress)
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
        from fuscore_metric.engines.on_ray import score_manifest
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
    """Say where the rows are and how many have an error, reading no more than that column."""
    from pyarrow import compute, dataset

    rows = dataset.dataset(results, format="parquet")
    bad = compute.field("error").is_valid()
    total = rows.count_rows()
    say(f"{total} rows in {results}")
    first = rows.head(SHOWN_ERRORS, columns=["scene", "method", "error"], filter=bad)
    report_failed(first.to_pylist(), rows.count_rows(filter=bad), total, results)
