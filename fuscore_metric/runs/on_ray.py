"""A manifest -> rows of the results table, by actors of Ray Data on one machine or many.

Read the manifest -> number the bucket of each source pair -> shuffle rows, never pixels, by bucket
-> each actor loads the model once, and scores bucket by bucket what has no score yet -> Parquet
parts. Actors write the parts themselves, each as it is done: what was computed outlasts an actor,
the driver or the cluster, and no results go through Ray's object store.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuscore_metric.errors import CheckpointError, InputError
from fuscore_metric.optional import require
from fuscore_metric.results.parts import Bucket, Plan, begin_session, read_parts
from fuscore_metric.results.rows import NAMES, Entry, Row
from fuscore_metric.results.run_folder import (
    PARTS_FOLDER,
    Key,
    begin,
    cannot_write,
    lock_folder,
    read_settings,
)
from fuscore_metric.results.settings import RunSettings
from fuscore_metric.results.tables import replace_tables, schema
from fuscore_metric.runs.manifest import (
    COLUMNS,
    CSV,
    JSON_LINES,
    PARQUET,
    complete,
    csv_options,
    json_options,
    json_rows,
    kind,
    read_table,
)
from fuscore_metric.runs.ray_cluster import SPARE_CPUS, cluster, plain_errors, quiet
from fuscore_metric.runs.scoring import ProgressBar, Scoring, no_bar

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

BUCKET_ROWS = 1024
"""Triples of a bucket, about: what an actor takes at once."""
LEAST_BUCKETS_AN_ACTOR = 4
"""So that a few slow ones are evened out."""
MOST_PARTITIONS = 4096
"""Of the shuffle, which makes an object for each and each block of the manifest."""
PART_SECONDS = 30.0
"""Rows of a bucket are written this often: what a killed actor loses at most."""
FEW_ROWS = 2_000_000
"""Up to so many the driver holds the manifest to check it, and the results to write the tables."""
FEW_BYTES = 512 * 2**20
"""The same of a manifest of text, whose rows would have to be counted."""
TASK_RETRIES = 5
"""How often the work of an actor that died is tried again: a file may be what kills it."""


@dataclass(frozen=True)
class Job:
    """All that an actor needs.

    Attributes:
        folder: The run folder, absolute: every node must reach it, and the images.
        plan: How rows are divided.
        settings: What all rows of the run are made with, as JSON.
        weights_hash: What the weights must be, wherever an actor finds them.
        scoring: How an actor scores.
        threads: Threads of an actor.
        part_seconds: See `PART_SECONDS`.
    """

    folder: Path
    plan: Plan
    settings: str
    weights_hash: str
    scoring: Scoring
    threads: int
    part_seconds: float


def score_manifest(
    manifest: Path,
    out: Path,
    settings: RunSettings,
    scoring: Scoring,
    *,
    actors: int | tuple[int, int] = 1,
    gpus_per_actor: float = 0,
    cpus_per_actor: float = 1,
    address: str | None = None,
    overwrite: bool = False,
    progress: ProgressBar = no_bar,
) -> Path:
    """Score the triples of a manifest with Ray; what has a score already is not computed again.

    Args:
        manifest: As in `fuscore_metric.runs.manifest.read_manifest`.
        out: Run folder. Whatever stops this, the same call goes on from there.
        settings: What the scores are made with.
        scoring: The same for the actors.
        actors: Models that work at once, or the least and the most of them.
        gpus_per_actor: Share of a GPU for each, such as 0.5; 0 for none.
        cpus_per_actor: CPUs, and threads, for each.
        address: A running cluster, as in `ray.init`; None starts one in this machine if this
            process has none, and stops it afterwards.
        overwrite: Begin anew, and remove what is in the run folder.
        progress: As `ProgressBar`.

    Returns:
        `results.parquet`, or the folder of parts if there are too many rows for one table.

    Raises:
        InputError: The manifest or the folder cannot be used, or the folder has a run that was
            made with other settings.
        CheckpointError: An actor finds no weights, or others.
        MissingPackageError: Ray or pyarrow is missing.
    """
    require("The Ray engine", "ray", "pandas", "pyarrow", install="fuscore-metric[ray]")
    most = actors if isinstance(actors, int) else actors[1]
    _check_resources(actors, gpus_per_actor, cpus_per_actor, scoring.device)
    total = read_table(manifest).num_rows if _is_small(manifest) else None
    lock = lock_folder(out)
    try:
        recorded = begin(out, settings, overwrite=overwrite, kept_in=PARTS_FOLDER)
        need = {"CPU": most * cpus_per_actor + SPARE_CPUS, "GPU": most * gpus_per_actor}
        held = FEW_ROWS if total is None else total
        with cluster(address, need, held), plain_errors(), quiet():
            total = _counted(manifest) if total is None else total
            least_buckets = max(LEAST_BUCKETS_AN_ACTOR * most, total // BUCKET_ROWS)
            job = Job(
                folder=out.absolute(),
                plan=begin_session(out, least_buckets),
                settings=recorded.to_json(),
                weights_hash=settings.weights_hash,
                scoring=replace(scoring, starting=nullcontext),  # an actor is not a command
                threads=max(1, int(cpus_per_actor)),
                part_seconds=PART_SECONDS,
            )
            run = _pipeline(manifest, job, actors, gpus_per_actor, cpus_per_actor)
            try:
                _follow(run, total, progress)
            finally:
                table = _finish(out, total)
    finally:
        lock.release()
    return table


class Scorer:
    """Scores buckets of triples; an actor has one.

    Args:
        job: What to do.

    Raises:
        CheckpointError: The weights are not there, or are not those of the run.
    """

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.threads)
        self._job = job
        self._model = job.scoring.load()
        # Another node may have another directory of that name.
        if (here := job.scoring.weights_here()) != job.weights_hash:
            raise CheckpointError(
                f"Expected the weights {job.weights_hash} in {job.scoring.model!r}, "
                f"an actor found {here}"
            )

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Score the waiting triples of one bucket, and write their rows.

        Args:
            rows: Columns of a manifest, and `bucket`, of one value.

        Yields:
            One row: how many triples there are, and how many of them were known.
        """
        import pyarrow as pa

        job, order = self._job, [(name, "ascending") for name in ("ir", "vis", *NAMES)]
        columns = (rows.sort_by(order)[name].to_pylist() for name in COLUMNS)
        entries = [Entry(*values) for values in zip(*columns, strict=True)]
        number, measures = rows["bucket"][0].as_py(), job.scoring.measuring.names
        bucket = Bucket(job.folder, number, job.plan.session, measures)
        waiting = bucket.waiting(entries)
        for some in self._done(waiting, bucket.scored(waiting)):
            bucket.add(some, job.settings)
        yield pa.table({"rows": [len(entries)], "known": [len(entries) - len(waiting)]})

    def _done(self, entries: list[Entry], scored: dict[Key, Row]) -> Iterator[list[Row]]:
        """Rows, as many at once as are done in `part_seconds`."""
        begun, done = time.monotonic(), list[Row]()
        rows = self._job.scoring.rows(entries, scored, self._model)
        with closing(rows) as batches:
            for batch in batches:
                done += batch
                if time.monotonic() - begun >= self._job.part_seconds:
                    yield done
                    begun, done = time.monotonic(), []
        if done:
            yield done


def _check_resources(actors: int | tuple[int, int], gpus: float, cpus: float, device: str) -> None:
    least, most = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= least <= most:
        raise InputError(f"Expected one actor at least, and the most no less, got {actors}")
    if gpus < 0 or cpus <= 0:
        raise InputError(f"Expected CPUs, and 0 GPUs or more, an actor, got {cpus} and {gpus}")
    if bool(gpus) != device.startswith("cuda"):
        raise InputError(
            f"Expected the device cuda, and a share of a GPU for each actor, or neither; got "
            f"device {device} and {gpus:g} GPUs an actor"
        )


def _is_small(manifest: Path) -> bool:
    """Whether the driver may hold a manifest."""
    if kind(manifest) != PARQUET:
        return manifest.stat().st_size <= FEW_BYTES
    from pyarrow import ArrowException, dataset

    try:
        return int(dataset.dataset(manifest, format="parquet").count_rows()) <= FEW_ROWS
    except (OSError, ArrowException):
        return True  # the reader will refuse it


def _read(manifest: Path) -> Any:
    """The manifest's rows as a data set of Ray's, complete."""
    import ray.data

    what, path = kind(manifest), str(manifest.absolute())
    if what == CSV:
        rows = ray.data.read_csv(path, file_extensions=None, **csv_options(manifest))
    elif what == JSON_LINES:
        deque(
            json_rows(manifest), maxlen=0
        )  # pyarrow would end the process at lines that this refuses
        rows = ray.data.read_json(path, parse_options=json_options(manifest), file_extensions=None)
    else:
        rows = ray.data.read_parquet(path)
    return rows.map_batches(
        partial(complete, path=manifest.absolute()), batch_format="pyarrow", zero_copy_batch=True
    )


def _counted(manifest: Path) -> int:
    """Check that no scene and method comes twice; return the number of rows."""
    pairs = _read(manifest).select_columns(list(NAMES))
    counts = pairs.groupby(list(NAMES), num_partitions=MOST_PARTITIONS).count().materialize()
    twice = counts.map_batches(_repeated, batch_format="pyarrow").take(1)
    if twice:
        raise InputError(
            f"Expected a scene and method once in the manifest {str(manifest)!r}, got scene "
            f"{twice[0]['scene']!r}, method {twice[0]['method']!r} in {twice[0]['count()']} rows"
        )
    return int(counts.count())


def _repeated(counts: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return counts.filter(pc.greater(counts["count()"], 1))


def _pipeline(
    manifest: Path, job: Job, actors: int | tuple[int, int], gpus: float, cpus: float
) -> Any:
    from ray.data import ActorPoolStrategy

    least, most = (actors, actors) if isinstance(actors, int) else actors
    # No more than one bucket waits at an actor: others may be idle at the end.
    pool = ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=2)
    numbered = _read(manifest).map_batches(
        partial(_number, plan=job.plan), batch_format="pyarrow", zero_copy_batch=True
    )
    groups = numbered.groupby("bucket", num_partitions=min(job.plan.buckets, MOST_PARTITIONS))
    return groups.map_groups(
        Scorer,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        compute=pool,
        num_cpus=cpus,
        num_gpus=gpus or None,
        max_task_retries=TASK_RETRIES,
    )


def _number(rows: pa.Table, plan: Plan) -> pa.Table:
    import pyarrow as pa

    pairs = zip(rows["ir"].to_pylist(), rows["vis"].to_pylist(), strict=True)
    return rows.append_column("bucket", pa.array([plan.bucket(*p) for p in pairs], pa.int64()))


def _follow(run: Any, total: int, progress: ProgressBar) -> None:
    """Wait until all is done."""
    with progress(total) as advance:
        for batch in run.iter_batches(batch_size=None, batch_format="pyarrow"):
            advance(sum(batch["rows"].to_pylist()))


def _finish(out: Path, total: int) -> Path:
    """Write the tables, unless there are too many rows for one; return where results are."""
    parts = out / PARTS_FOLDER
    if total > FEW_ROWS:
        log.warning("%d rows are too many for one table: they stay in %s", total, parts)
        return parts
    settings = read_settings(out).to_json()
    table = read_parts(out, settings)
    if not table.num_rows:
        return parts
    try:
        _, path = replace_tables(table.cast(schema(settings)), out)
    except OSError as error:
        raise cannot_write(out, error) from error
    return path
