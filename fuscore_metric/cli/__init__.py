"""The `fuscore` command: a thin shell over the Python doors.

Exit status: 0 fine, 1 if some of several images or triples have no score, 2 for bad input or usage,
130 if stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from fuscore_metric import __version__
from fuscore_metric.cli import (
    compare,
    explain,
    measures,
    pyiqa,
    rank,
    report,
    score,
    score_manifest,
    weights,
)
from fuscore_metric.cli.shared import console
from fuscore_metric.cli.shared.run import say
from fuscore_metric.cli.shared.start_up import STOPPED
from fuscore_metric.errors import CheckpointError, InputError, MissingPackageError, out_of_memory


class _Commands(TyperGroup):
    """The commands; what they were called before still works for one version."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find a command after old names were replaced, with a line that says so."""
        if old := _places(args, "--weights"):
            say("--weights is called --model now; the old name will go with the next version")
        for place in old:
            args[place] = "--model" + args[place].removeprefix("--weights")
        if args[0] == "score" and (old := _places(args, "--manifest")):
            say(
                "fuscore score --manifest TABLE is called fuscore score-manifest TABLE now; "
                "the old name will go with the next version"
            )
            args[0] = "score-manifest"
            for place in reversed(old):
                args[place : place + 1] = args[place].split("=", 1)[1:]
        return super().resolve_command(ctx, args)


def _places(args: list[str], option: str) -> list[int]:
    """Where an option stands among arguments, with its value behind it or after a "="."""
    return [place for place, arg in enumerate(args) if arg.partition("=")[0] == option]


app = typer.Typer(
    name="fuscore",
    cls=_Commands,
    help="Say how good a person would find the fusion of an infrared and a visible image.",
    epilog="Exit status: 0 fine, 1 some rows have no score, 2 bad input or usage, 130 stopped.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("score", short_help="Score fusions of one source pair.")(score.score)
app.command("score-manifest", short_help="Score a table of triples into a run folder.")(
    score_manifest.score_manifest
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
app.command("measures", short_help="List the classic measures, and which of them to trust.")(
    measures.measures
)
app.command("info", short_help="Show what the weights are, and all versions.")(weights.info)
app.command("merge", short_help="Merge an adapter into the weights of its base model.")(
    weights.merge
)
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
        console.accept_any_name()
        app.rich_markup_mode = console.help_style()
        app(prog_name="fuscore")
    except KeyboardInterrupt:  # before the command began
        sys.exit(STOPPED)
    except (ValueError, ImportError, OSError, MemoryError, RuntimeError) as error:
        message = _message(error)
        if message is None:
            raise
        if isinstance(error, OSError):
            console.close_output()  # it may be what cannot be written
        say(f"fuscore: {message}")
        sys.exit(2)


def _message(error: Exception) -> str | None:
    """One line about a mistake of the user or a fault of the machine; None for our own mistakes."""
    if out_of_memory(error):
        return "out of memory: free some, or use smaller images. What was written before is whole"
    if isinstance(error, (InputError, CheckpointError, MissingPackageError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename!r}" if error.filename else ""
        return f"{error.strerror}{where}"
    return None
