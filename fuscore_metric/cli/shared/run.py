"""What the commands share that score many triples into a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fuscore_metric.cli.shared.console import make_console, one_line
from fuscore_metric.cli.shared.start_up import STOPPED
from fuscore_metric.optional import require
from fuscore_metric.results.rows import Row, without_numbers
from fuscore_metric.results.tables import CSV_FILE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SOME_FAILED = 1
"""Exit status: some rows have an error instead of a score."""

Out = Annotated[
    Path,
    typer.Option(help="Run folder: what is there is kept, a run that was stopped goes on."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Begin anew; what is in the run folder is lost.")
]
Progressing = Annotated[bool, typer.Option(help="Show a progress bar, on a terminal.")]


def require_tables(command: str) -> None:
    """Refuse a command that makes tables where the packages for them are missing.

    Raises:
        MissingPackageError: The extra [report] is not installed.
    """
    require(f"`fuscore {command}`", "pandas", "pyarrow", "scipy", install="fuscore-metric[report]")


@contextmanager
def stopping() -> Iterator[None]:
    """Where a run is stopped, report what is kept of it, and leave.

    Raises:
        typer.Exit: Stopped by the user.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = f": {stop}" if stop.args else ""
        say(f"Stopped{kept}; the same command goes on from there")
        raise typer.Exit(STOPPED) from None


def report_errors(rows: Sequence[Row], folder: Path) -> None:
    """Report the rows that have an error, and leave with status 1 if there is one.

    Raises:
        typer.Exit: A row has an error.
    """
    failed = [row for row in rows if row["error"] is not None]
    report_failed(failed[:SHOWN_ERRORS], len(failed), len(rows), folder / CSV_FILE)


def report_failed(first: Sequence[Row], failed: int, total: int, where: Path) -> None:
    """Do what `report_errors` does where not all rows are at hand.

    Args:
        first: The first rows with an error.
        failed: How many there are.
        total: How many rows there are.
        where: The file that has all rows.

    Raises:
        typer.Exit: There are rows with an error.
    """
    for row in first:
        say(f"failed: {row['scene']}, {row['method']}: {row['error']}")
    if failed:
        lacking = without_numbers([row["error"] for row in first], failed, total)
        say(f"{lacking}; all errors are in {where}. The same command tries them again")
        raise typer.Exit(SOME_FAILED)


SHOWN_ERRORS = 5


def say(text: str) -> None:
    """Write a line to stderr, for people."""
    make_console(stderr=True).print(one_line(text), markup=False, soft_wrap=True)


@contextmanager
def bar(total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Show progress, with rate and time left, on a terminal; yields what is told each advance."""
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
