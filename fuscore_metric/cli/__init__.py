"""The `fuscore` command: a thin shell over the Python doors.

Exit status: 0 fine, 2 for bad input or usage.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from fuscore_metric import __version__
from fuscore_metric.checkpoint import CheckpointError, MissingPackageError
from fuscore_metric.cli import explain, info, merge, pyiqa, rank, score

app = typer.Typer(
    name="fuscore",
    help="Say how good a person would find the fusion of an infrared and a visible image.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("score")(score.score)
app.command("rank")(rank.rank)
app.command("explain")(explain.explain)
app.command("info")(info.info)
app.command("merge")(merge.merge)
app.add_typer(pyiqa.app, name="pyiqa")


def _version(wanted: bool) -> None:
    if wanted:
        Console().print(f"fuscore-metric {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    """Options before the command."""


def main() -> None:
    """Run the command line; bad input becomes one line on stderr and exit status 2."""
    try:
        app()
    except (ValueError, ImportError) as error:
        if not _is_the_users(error):
            raise
        Console(stderr=True).print(
            f"fuscore: {error}", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)


def _is_the_users(error: ValueError | ImportError) -> bool:
    """Whether an error has a finished one-line message; others are our own mistakes."""
    if isinstance(error, (CheckpointError, MissingPackageError)):
        return True
    from fuscore_metric.images import InputError  # imports torch

    return isinstance(error, InputError)
