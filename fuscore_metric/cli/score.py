"""`fuscore score`: fusions of one source pair, or a manifest of many triples -> scores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from fuscore_metric.cli._manifest import ENGINES, Engine, score_file
from fuscore_metric.cli._options import (
    AUTO,
    CHOICES,
    Aspect,
    Device,
    Dtype,
    Revision,
    ThermalRange,
    Weights,
    check_options,
    one_of,
)
from fuscore_metric.cli._run import (
    SHOWN_ERRORS,
    SOME_FAILED,
    BatchSize,
    Progressing,
    Scoring,
    bar,
    say,
)
from fuscore_metric.cli._scores import SHOWN, Judged
from fuscore_metric.cli._start_up import start_up
from fuscore_metric.prompts import DEFAULT_ASPECT

if TYPE_CHECKING:
    from fuscore_metric.images import InputError
    from fuscore_metric.model import FuScore
    from fuscore_metric.pictures import Picture

    Opened: TypeAlias = tuple[Picture, Picture, Picture] | InputError
    """A triple whose files were looked at, or why it cannot be judged."""

T = TypeVar("T")

_MANY = "Many triples"
"""Heading of the options that go with a manifest, in the help."""


def score(
    ir: Annotated[Path | None, typer.Option(help="Infrared image.")] = None,
    vis: Annotated[
        Path | None, typer.Option(help="Visible image of the same scene and size.")
    ] = None,
    fused: Annotated[
        list[Path] | None,
        typer.Option(
            help="Fusion of the two; several to compare them. Of - their paths are read from "
            "standard input, one a line or as find -print0 gives them."
        ),
    ] = None,
    more_fused: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FUSED", help="More of them, as in --fused *.png.", show_default=False
        ),
    ] = None,
    weights: Weights = "embedded",
    revision: Revision = None,
    aspect: Aspect = DEFAULT_ASPECT,
    device: Device = AUTO,
    dtype: Dtype = None,
    batch_size: BatchSize = 8,
    thermal_range: ThermalRange = None,
    progress: Progressing = True,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"Of what is printed: {', '.join(SHOWN)}.",
            autocompletion=one_of(*SHOWN),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Table of triples, instead of --ir, --vis and --fused.", rich_help_panel=_MANY
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder for the rows of a manifest: a run that was stopped goes on.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Begin anew; what is in the run folder is lost.",
            rich_help_panel=_MANY,
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help=f"What runs a manifest: {', '.join(ENGINES)}.",
            autocompletion=one_of(*ENGINES),
            rich_help_panel=_MANY,
        ),
    ] = "local",
    actors: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --engine ray: models that work at once.", rich_help_panel=_MANY
        ),
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With --engine ray: share of a GPU for each, such as 0.5.",
            rich_help_panel=_MANY,
        ),
    ] = None,
) -> None:
    """Score fusions of one source pair; or the triples of a manifest, into a run folder.

    Of several fused images a bad one is reported and the others are scored: exit status 1. Nothing
    to score is status 2.

    \b
    Examples:
      fuscore score --ir ir.png --vis vis.png --fused fused.png
      fuscore score --ir ir.png --vis vis.png --fused out/*.png --json
      find out -name '*.png' | fuscore score --ir ir.png --vis vis.png --fused -
      fuscore score --manifest triples.csv --out results
      fuscore score --manifest triples.parquet --engine ray --actors 4 --out results
    """  # noqa: D301 - \b keeps the lines of a paragraph
    given = [*(fused or ()), *(more_fused or ())]
    scoring = Scoring(weights, revision, aspect, device, dtype, batch_size, thermal_range)
    if manifest is not None:
        _refuse(
            "does not go with --manifest",
            {
                "--ir": ir,
                "--vis": vis,
                "--fused": given,
                "--json": as_json,
                "--format": output_format,
            },
        )
        how = Engine(engine, actors, gpus_per_actor)
        score_file(manifest, out, scoring, how, overwrite=overwrite, progress=progress)
        return
    _refuse(
        "needs --manifest",
        {
            "--out": out,
            "--overwrite": overwrite,
            "--engine": engine != "local",
            "--actors": actors,
            "--gpus-per-actor": gpus_per_actor,
        },
    )
    if output_format not in (None, *SHOWN):
        raise typer.BadParameter(f"expected one of {', '.join(SHOWN)}", param_hint="--format")
    ir, vis, given = _needed("--ir", ir), _needed("--vis", vis), _needed("--fused", given)
    with start_up():
        device = check_options(aspect, device, dtype, aspects=CHOICES)
        # Files are checked before the model's code is even imported: the usual mistake should
        # answer at once.
        _refuse_folders(ir, vis, given)
        paths = _listed(given)
        opened = _opened(ir, vis, paths, thermal_range)
        from fuscore_metric.model import FuScore

        model = FuScore.from_pretrained(weights, revision=revision, device=device, dtype=dtype)
    judged = _judge(paths, opened, model, scoring, progress=progress)
    show = SHOWN["json" if as_json else output_format or "text"]
    show(judged, model.spec, aspect)
    _report_errors(judged)


def _refuse(why: str, options: dict[str, object]) -> None:
    for option, value in options.items():
        if value not in (None, False, []):
            raise typer.BadParameter(why, param_hint=option)


def _needed(option: str, value: T | None) -> T:
    if not value:
        raise typer.BadParameter(
            "missing; expected --ir, --vis and --fused, or --manifest", param_hint=option
        )
    return value


def _refuse_folders(ir: Path, vis: Path, fused: Sequence[Path]) -> None:
    """Say what is for folders. One among other fused images is a bad image like any.

    Raises:
        InputError: A source, or all that is fused, is a folder.
    """
    from fuscore_metric.images import InputError

    for name, paths in (("ir", [ir]), ("vis", [vis]), ("fused", fused)):
        if all(path.is_dir() for path in paths):
            raise InputError(
                f"Expected `{name}` as an image, got the directory {str(paths[0])!r}: use "
                "`fuscore rank --ir DIRECTORY --vis DIRECTORY --methods DIRECTORY`"
            )


def _listed(given: Sequence[Path]) -> list[str]:
    """The paths given, for - those on standard input."""
    from fuscore_metric.images import InputError

    paths: list[str] = []
    for path in map(str, given):
        paths += _from_stdin() if path == "-" else [path]
    if not paths:
        raise InputError("Expected the path of a `fused` image on standard input, got none")
    return paths


def _from_stdin() -> list[str]:
    content = sys.stdin.buffer.read()
    end = b"\0" if b"\0" in content else b"\n"  # no path has a NUL in it
    return [str(Path(os.fsdecode(path))) for path in content.split(end) if path]


def _opened(
    ir: Path, vis: Path, fused: Sequence[str], thermal_range: tuple[float, float] | None
) -> list[Opened]:
    """Look at all files. Of a single fused image everything is read, of several the headers.

    Raises:
        InputError: A source cannot be used, or none of the fused images.
    """
    from fuscore_metric.images import InputError, check_triples
    from fuscore_metric.pictures import join, open_pictures

    opened_ir = open_pictures(ir, "ir", thermal_range=thermal_range)
    read_ir, read_vis = (
        [picture.loaded() for picture in pictures]
        for pictures in (opened_ir, open_pictures(vis, "vis"))
    )
    check_triples(read_ir, read_vis, read_ir)
    if len(fused) == 1:
        read_fused = [picture.loaded() for picture in open_pictures(fused[0], "fused")]
        return list(join(read_ir, read_vis, read_fused))
    opened: list[Opened] = []
    for path in fused:
        try:
            opened += join(read_ir, read_vis, open_pictures(path, "fused"))
        except InputError as error:
            opened.append(error)
    _check_some(opened)
    return opened


def _check_some(found: Sequence[object]) -> None:
    """Refuse to go on with nothing but errors.

    Raises:
        InputError: There is nothing else; the message is the first one's.
    """
    from fuscore_metric.images import InputError

    if all(isinstance(one, Exception) for one in found):
        if len(found) == 1 and isinstance(found[0], InputError):
            raise found[0]
        raise InputError(f"None of {len(found)} fused images can be scored; the first: {found[0]}")


def _judge(
    paths: Sequence[str],
    opened: Sequence[Opened],
    model: FuScore,
    scoring: Scoring,
    *,
    progress: bool,
) -> list[Judged]:
    """Judge what can be judged.

    Raises:
        InputError: That is nothing.
    """
    from fuscore_metric.scoring import judge_each

    found: dict[int, Judged] = {}
    places = [n for n, one in enumerate(opened) if isinstance(one, tuple)]
    triples = [one for one in opened if isinstance(one, tuple)]
    batch_size = scoring.batch_size
    batches = judge_each(triples, model, aspect=scoring.aspect, batch_size=batch_size)
    # A bar for a single batch would be gone before it could be read.
    with bar(len(triples), progress and len(triples) > batch_size) as advance, closing(batches):
        for batch, output in batches:
            for n, row in enumerate(batch.rows):
                place = places[row]
                found[place] = (
                    Judged(paths[place], None, _as_input_error(output))
                    if isinstance(output, Exception)
                    else Judged(paths[place], output[n])
                )
            advance(len(batch.rows))
    for n, one in enumerate(opened):
        if not isinstance(one, tuple):
            found[n] = Judged(paths[n], None, one)
    judged = [found[n] for n in range(len(paths))]
    _check_some([one.error for one in judged])
    return judged


def _as_input_error(error: Exception) -> InputError:
    """What kept an image from being judged, with what helps if that was lack of memory."""
    from fuscore_metric.images import InputError
    from fuscore_metric.results.rows import describe_error

    return error if isinstance(error, InputError) else InputError(describe_error(error))


def _report_errors(judged: Iterable[Judged]) -> None:
    """Say which images have no score, and leave with status 1 if one has none.

    Raises:
        typer.Exit: One has none.
    """
    judged = list(judged)
    failed = [one for one in judged if one.error is not None]
    for one in failed[:SHOWN_ERRORS]:
        say(f"failed: {one.path}: {' '.join(str(one.error).split())}")
    if failed:
        say(f"{len(failed)} of {len(judged)} fused images have no score")
        raise typer.Exit(SOME_FAILED)
