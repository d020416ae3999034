"""The `fuscore` command: a thin shell over the Python doors.

Exit status: 0 fine, 1 if some of several images or triples have no score, 2 for bad input or usage,
130 if stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from fuscore_metric import __version__
from fuscore_metric.checkpoint import CheckpointError, MissingPackageError
from fuscore_metric.cli import _console, compare, explain, info, merge, pyiqa, rank, report, score
from fuscore_metric.cli._run import say
from fuscore_metric.cli._start_up import STOPPED

app = typer.Typer(
    name="fuscore",
    help="Say how good a person would find the fusion of an infrared and a visible image.",
    epilog="Exit status: 0 fine, 1 some rows have no score, 2 bad input or usage, 130 stopped.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("score", short_help="Score fusions of one source pair, or a manifest of triples.")(
    score.score
)
app.command("rank", short_help="Score folders of methods: a results table and a leaderboard.")(
    rank.rank
)
app.command("compare", short_help="Say which of two methods is better, scene by scene.")(
    compare.compare
)
app.command("report", short_help="Make an HTML page, and figures, of a results table.")(
    report.report
)
app.command("explain", short_help="Draw where a fusion lost its score.")(explain.explain)
app.command("info", short_help="Show what the weights are, and all versions.")(info.info)
app.command("merge", short_help="Merge an adapter into the weights of its base model.")(merge.merge)
app.add_typer(pyiqa.app, name="pyiqa")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fuscore-metric {__version__}")
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
        _console.accept_any_name()
        app.rich_markup_mode = _console.help_style()
        app(prog_name="fuscore")
    except KeyboardInterrupt:  # before the command began
        sys.exit(STOPPED)
    except (ValueError, ImportError, OSError, MemoryError, RuntimeError) as error:
        message = _message(error)
        if message is None:
            raise
        if isinstance(error, OSError):
            _console.close_output()  # it may be what cannot be written
        say(f"fuscore: {message}")
        sys.exit(2)


def _message(error: Exception) -> str | None:
    """One line on what the user, or the machine, did wrong; None for our own mistakes."""
    if _is_out_of_memory(error):
        return "out of memory: free some, or use smaller images. What was written before is whole"
    if isinstance(error, (CheckpointError, MissingPackageError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename!r}" if error.filename else ""
        return f"{error.strerror}{where}"
    # Where images were never imported, which takes torch, the error is not theirs.
    images = sys.modules.get("fuscore_metric.images")
    return str(error) if images and isinstance(error, images.InputError) else None


def _is_out_of_memory(error: Exception) -> bool:
    # Where scoring was never imported, which takes seconds, torch has not computed anything.
    scoring = sys.modules.get("fuscore_metric.scoring")
    return isinstance(error, MemoryError) or bool(scoring and scoring.out_of_memory(error))
