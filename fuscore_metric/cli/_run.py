"""What the commands share that score many triples into a run folder."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuscore_metric.cli._console import make_console, one_line
from fuscore_metric.cli._start_up import STOPPED, start_up
from fuscore_metric.optional import require
from fuscore_metric.results.rows import Entry, Row
from fuscore_metric.results.tables import CSV_FILE

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console
    from rich.progress import Progress

    from fuscore_metric.folders import Matched
    from fuscore_metric.model import FuScore
    from fuscore_metric.results.run_folder import RunFolder
    from fuscore_metric.results.settings import RunSettings
    from fuscore_metric.thermal_range import ThermalRange

SOME_FAILED = 1
"""Exit status: some rows have an error instead of a score."""

Out = Annotated[
    Path,
    typer.Option(help="Run folder: what is there is kept, a run that was stopped goes on."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Begin anew; what is in the run folder is lost.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Triples computed at once; changes no score.")]
Progressing = Annotated[bool, typer.Option(help="Show a progress bar, on a terminal.")]


def require_tables(command: str) -> None:
    """Refuse a command that makes tables where the packages for them are missing.

    Raises:
        MissingPackageError: The extra [report] is not installed.
    """
    require(f"`fuscore {command}`", "pandas", "pyarrow", "scipy", install="fuscore-metric[report]")


@dataclass(frozen=True)
class Scoring:
    """How the triples of a run are scored.

    Attributes:
        weights: "embedded", a directory, or a hub id.
        revision: Hub revision of the weights.
        aspect: What to judge.
        device: Where to compute; `AUTO` until the options were checked.
        dtype: Floating dtype of the weights, or None.
        batch_size: Triples computed at once.
        thermal_range: As in `fuscore_metric.score`.
    """

    weights: str
    revision: str | None
    aspect: str
    device: str
    dtype: str | None
    batch_size: int
    thermal_range: ThermalRange | None = None

    def load(self) -> FuScore:
        """Load the model.

        Raises:
            CheckpointError: The weights cannot be had or used.
        """
        from fuscore_metric.model import FuScore

        return FuScore.from_pretrained(
            self.weights, revision=self.revision, device=self.device, dtype=self.dtype
        )

    def describe(self, *, ir: str, vis: str) -> RunSettings:
        """Record what the weights score with, without loading them; the device need not be here.

        Raises:
            CheckpointError: The weights cannot be had, or not in this dtype.
        """
        from fuscore_metric.backbones import backbone_class
        from fuscore_metric.locate import find_checkpoint
        from fuscore_metric.placement import choose_dtype
        from fuscore_metric.results.settings import describe

        found = find_checkpoint(self.weights, revision=self.revision)
        on_cpu = self.device.partition(":")[0] == "cpu"
        dtype = choose_dtype(self.dtype, backbone_class(found.spec.family), on_cpu=on_cpu)
        return describe(
            found,
            dtype=str(dtype).removeprefix("torch."),
            device=self.device,
            source=self.weights,
            revision=self.revision,
            aspect=self.aspect,
            batch_size=self.batch_size,
            thermal_range=None if self.thermal_range is None else list(self.thermal_range),
            ir=ir,
            vis=vis,
        )


def score_into(
    folder: RunFolder, entries: Sequence[Entry], scoring: Scoring, *, progress: bool
) -> list[Row]:
    """Score what has no score yet, keep each batch as it comes, and write the tables.

    Where nothing is left to score, no model is loaded. Ctrl-C or `kill` ends it after the tables
    are written; the same call goes on later.

    Args:
        folder: Where the rows go, opened.
        entries: The triples.
        scoring: How they are scored.
        progress: Whether to show a bar on stderr, if that is a terminal.

    Returns:
        All rows of the folder.

    Raises:
        InputError: The folder cannot be written.
        CheckpointError: The weights cannot be used.
        typer.Exit: Stopped by the user.
    """
    waiting = folder.waiting(entries)
    if known := len(entries) - len(waiting):
        say(f"{known} of {len(entries)} triples are in {folder.path} already")
    if not waiting:
        folder.finish()
        return folder.rows
    with start_up():
        from fuscore_metric.engines.local import score_entries

        model = scoring.load()
    rows = score_entries(
        waiting,
        model,
        aspect=scoring.aspect,
        batch_size=scoring.batch_size,
        thermal_range=scoring.thermal_range,
    )
    interrupts = Interrupts()
    try:
        with interrupts.raised(), closing(rows), bar(len(waiting), progress) as advance:
            for some in rows:
                with interrupts.shielded():
                    folder.append(some)
                advance(len(some))
    except KeyboardInterrupt:
        say(
            f"Stopped: {len(folder.rows)} rows are in {folder.path}; "
            "the same command goes on from there"
        )
        raise typer.Exit(STOPPED) from None
    finally:
        folder.finish()
    return folder.rows


def report_errors(rows: Sequence[Row], folder: Path) -> None:
    """Say which rows have an error, and leave with status 1 if one has.

    Raises:
        typer.Exit: One has.
    """
    failed = [row for row in rows if row["error"] is not None]
    report_failed(failed[:SHOWN_ERRORS], len(failed), len(rows), folder / CSV_FILE)


def report_failed(first: Sequence[Row], failed: int, total: int, where: Path) -> None:
    """Do the same where not all rows are at hand.

    Args:
        first: The first rows with an error.
        failed: How many there are.
        total: How many rows there are.
        where: What has all of them.

    Raises:
        typer.Exit: There are some.
    """
    for row in first:
        say(f"failed: {row['scene']}, {row['method']}: {row['error']}")
    if failed:
        say(
            f"{failed} of {total} triples have no score; all errors are in {where}. "
            "The same command tries them again"
        )
        raise typer.Exit(SOME_FAILED)


def report_matched(matched: Matched, skipped: Sequence[str] = ()) -> None:
    """Say which images of folders have no partner, what may help, and what is left alone.

    Args:
        matched: What was found.
        skipped: Paths of what is no folder of a method.
    """
    for sentence in matched.unmatched:
        say(f"without a partner: {sentence}")
    for hint in matched.hints:
        say(f"hint: {hint}")
    if skipped := [*skipped, *matched.skipped]:
        more = ", ..." if len(skipped) > SHOWN_ERRORS else ""
        shown = ", ".join(skipped[:SHOWN_ERRORS])
        say(f"skipped {len(skipped)} that are no images or methods: {shown}{more}")


SHOWN_ERRORS = 5


def say(text: str) -> None:
    """Write a line to stderr, for people."""
    make_console(stderr=True).print(one_line(text), markup=False, soft_wrap=True)


@contextmanager
def bar(total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Show progress, with rate and time left, on a terminal; yields what to tell it."""
    console = make_console(stderr=True)
    if not (wanted and total and console.is_terminal) or console.is_dumb_terminal:
        yield lambda count: None
        return
    with _progress(console) as progress:
        task = progress.add_task("scoring", total=total)
        yield lambda count: progress.advance(task, count)


def _progress(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Triples a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")

    columns = (BarColumn(None), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, expand=True, refresh_per_second=4)


class Interrupts:
    """Ctrl-C and `kill` alike raise KeyboardInterrupt, but never while rows are written.

    `kill`, because queues and containers end their jobs so.
    """

    def __init__(self) -> None:
        self._shielded = self._pending = False

    @contextmanager
    def raised(self) -> Generator[None]:
        """Have signals end what is done in this context."""
        numbers = signal.SIGINT, signal.SIGTERM
        before: list[Any] = [signal.signal(number, self._interrupt) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    @contextmanager
    def shielded(self) -> Generator[None]:
        """Have them wait for the end of this context."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._pending:
            raise KeyboardInterrupt

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        self._pending = True
        if not self._shielded:
            raise KeyboardInterrupt
