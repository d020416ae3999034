"""How the triples of a run are scored, and the functions that score them into a run folder.

Imports little, so that a command can refuse wrong options at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fuscore_metric.errors import InputError
from fuscore_metric.prompts import run_aspects
from fuscore_metric.results.rows import Entry, Row
from fuscore_metric.runs.interrupts import Interrupts
from fuscore_metric.runs.measuring import NO_MEASURES, Measuring

if TYPE_CHECKING:
    from fuscore_metric.images.thermal_range import ThermalRange
    from fuscore_metric.model import FuScore
    from fuscore_metric.results.read import Results
    from fuscore_metric.results.run_folder import Key, RunFolder
    from fuscore_metric.results.settings import RunSettings

log = logging.getLogger(__name__)

Tell: TypeAlias = Callable[[str], None]
"""Takes sentences for people."""
ProgressBar: TypeAlias = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Takes the number of triples; the function that it opens takes how many more are done."""


@dataclass(frozen=True)
class Scoring:
    """How the triples of a run are scored.

    Attributes:
        model: "embedded", a directory, a hub id, or a model.
        revision: Hub revision of the weights.
        aspect: What is scored: an aspect, or "all" for every one.
        device: Where to compute; of a command "auto" until its options were checked.
        dtype: Floating dtype of the weights, or None.
        batch_size: Triples computed at once.
        thermal_range: As in `fuscore_metric.score`.
        resize: As in `fuscore_metric.score`.
        starting: A context that is entered while libraries are imported and weights are read.
        measuring: The classic measures beside the scores.
    """

    model: str | FuScore
    revision: str | None
    aspect: str
    device: str
    dtype: str | None
    batch_size: int
    thermal_range: ThermalRange | None = None
    resize: str | None = None
    starting: Callable[[], AbstractContextManager[None]] = nullcontext
    measuring: Measuring = NO_MEASURES

    def load(self) -> FuScore:
        """Load the model.

        Raises:
            CheckpointError: The weights cannot be had or used.
        """
        with self.starting():
            from fuscore_metric.model import FuScore

            if isinstance(self.model, FuScore):
                return self.model
            return FuScore.from_pretrained(
                self.model, revision=self.revision, device=self.device, dtype=self.dtype
            )

    def rows(
        self, entries: Sequence[Entry], scored: Mapping[Key, Row], model: FuScore | None
    ) -> Generator[list[Row]]:
        """Score and measure triples.

        Args:
            entries: The triples.
            scored: The rows of those of them that lack measures only.
            model: The model; None where all have scores.

        Yields:
            What `runs.local.score_entries` and `runs.local.measure_entries` do.
        """
        from fuscore_metric.runs.local import measure_entries, score_entries

        options: dict[str, Any] = {
            "batch_size": self.batch_size,
            "thermal_range": self.thermal_range,
            "resize": self.resize,
        }
        if model is not None:
            unscored = [entry for entry in entries if entry.key not in scored]
            aspects, measuring = run_aspects(self.aspect), self.measuring
            yield from score_entries(
                unscored, model, aspects=aspects, measuring=measuring, **options
            )
        by_lacking: dict[tuple[str, ...], list[Entry]] = {}
        for entry in entries:
            if (row := scored.get(entry.key)) is not None:
                lacking = tuple(name for name in self.measuring.names if row.get(name) is None)
                by_lacking.setdefault(lacking, []).append(entry)
        for names, some in by_lacking.items():
            measuring = replace(self.measuring, names=names)
            yield from measure_entries(
                some, scored, device=self.device, measuring=measuring, **options
            )

    def weights_here(self) -> str:
        """Identify by content the weights that this machine has under the name, without loading.

        Raises:
            CheckpointError: They are not here.
        """
        from fuscore_metric.checkpoints.locate import find_checkpoint
        from fuscore_metric.results.settings import weights_hash

        found = find_checkpoint(str(self.model), revision=self.revision, local_files_only=True)
        return weights_hash(found)

    def describe(self, *, ir: str, vis: str) -> RunSettings:
        """Record what the scores are made with, without loading weights that have a name.

        The device need not be one of this machine.

        Raises:
            CheckpointError: The weights cannot be had, or not in this dtype.
        """
        with self.starting():
            from fuscore_metric.backbones import backbone_class
            from fuscore_metric.checkpoints.locate import find_checkpoint
            from fuscore_metric.compute.placement import choose_dtype
            from fuscore_metric.results.settings import describe, weights_hash

            if isinstance(self.model, str):
                found = find_checkpoint(self.model, revision=self.revision)
                on_cpu = self.device.partition(":")[0] == "cpu"
                dtype = choose_dtype(self.dtype, backbone_class(found.spec.family), on_cpu=on_cpu)
                spec, digest, source = found.spec, weights_hash(found), self.model
            else:
                spec, dtype, source = self.model.spec, self.model.dtype, ""
                digest = _state_hash(self.model)
            return describe(
                spec,
                weights_hash=digest,
                dtype=str(dtype).removeprefix("torch."),
                device=self.device,
                source=source,
                revision=self.revision,
                aspect=self.aspect,
                batch_size=self.batch_size,
                thermal_range=None if self.thermal_range is None else list(self.thermal_range),
                measures=list(self.measuring.names),
                measures_convention=self.measuring.convention,
                measures_colour=self.measuring.colour,
                ir=ir,
                vis=vis,
            )


def _state_hash(model: FuScore) -> str:
    """Identify the weights of a model in memory by content."""
    import torch

    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    return f"state:{digest.hexdigest()}"


@contextmanager
def no_bar(_: int) -> Iterator[Callable[[int], None]]:
    """Show no progress."""
    yield lambda count: None


def score_into(
    folder: RunFolder,
    entries: Sequence[Entry],
    scoring: Scoring,
    *,
    progress: ProgressBar = no_bar,
    tell: Tell = log.info,
) -> list[Row]:
    """Score and measure what is not there yet, keep each batch as it comes, and write the tables.

    Where nothing is left to score, no model is loaded. Ctrl-C or `kill` ends it after the tables
    are written; the same call goes on later.

    Args:
        folder: Where the rows go, opened.
        entries: The triples.
        scoring: How they are scored.
        progress: Told how many are done.
        tell: Takes a sentence about what is there already.

    Returns:
        All rows of the folder.

    Raises:
        InputError: The folder cannot be written.
        CheckpointError: The weights cannot be used.
        KeyboardInterrupt: Stopped by the user; its text says where the rows are.
    """
    waiting = folder.waiting(entries)
    if known := len(entries) - len(waiting):
        tell(f"{known} of {len(entries)} triples are in {folder.path} already")
    if not waiting:
        folder.finish()
        return folder.rows
    scored = folder.scored(waiting)
    if scored:
        tell(f"{len(scored)} of {len(entries)} triples lack measures only")
    model = scoring.load() if len(scored) < len(waiting) else None
    rows = scoring.rows(waiting, scored, model)
    interrupts = Interrupts()
    try:
        with interrupts.raised(), closing(rows), progress(len(waiting)) as advance:
            for some in rows:
                with interrupts.shielded():
                    folder.append(some)
                advance(len(some))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(folder.rows)} rows are in {folder.path}") from None
    finally:
        folder.finish()
    return folder.rows


def score_folders(
    ir: Path,
    vis: Path,
    methods: Mapping[str, Path],
    scoring: Scoring,
    out: Path,
    *,
    skipped: Sequence[str] = (),
    pair: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: ProgressBar = no_bar,
    warn: Tell,
    tell: Tell = log.info,
    command: str | None = None,
) -> Results:
    """Match the images of folders by name, and score the triples into a run folder.

    Args:
        ir: Folder of infrared images.
        vis: Folder of visible images.
        methods: Folders of fused images by name of the method.
        scoring: How they are scored.
        out: Run folder.
        skipped: Paths of what is not a folder of a method.
        pair: As in `fuscore_metric.evaluate`.
        strict: As in `fuscore_metric.evaluate`.
        overwrite: As in `fuscore_metric.evaluate`.
        progress: Told how many are done.
        warn: Takes sentences about images without a partner, before anything is computed.
        tell: Takes a sentence about what is there already.
        command: The command in the settings; by default the command line.

    Returns:
        The rows that the run folder has of these methods.

    Raises:
        InputError: As `fuscore_metric.evaluate`, but nothing needs to have a score.
        CheckpointError: The weights cannot be had or used.
        KeyboardInterrupt: Stopped; its text says where the rows are.
    """
    from fuscore_metric.results.read import Results, read_results
    from fuscore_metric.results.run_folder import RunFolder
    from fuscore_metric.results.tables import as_text
    from fuscore_metric.runs.folders import match_folders

    matched = match_folders(ir, vis, methods, pair=pair)
    for note in matched.notes(skipped):
        warn(note)
    if strict and matched.unmatched:
        raise InputError(
            "Stopped before anything was computed, as `strict` (--strict) asks: images without a "
            "partner"
        )
    settings = scoring.describe(ir=str(ir.resolve()), vis=str(vis.resolve()))
    if command is not None:
        settings = replace(settings, command=command)
    with RunFolder(out, settings, overwrite=overwrite) as folder:
        score_into(folder, matched.entries, scoring, progress=progress, tell=tell)
    found = read_results(out)
    asked = found.table["method"].isin([as_text(name) for name in methods])
    return Results(found.table[asked].reset_index(drop=True), found.settings)
