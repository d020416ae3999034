"""`fuscore score`: fusions of one source pair -> scores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from fuscore_metric.cli.shared.options import Ir, Vis, checked, one_of, scoring_options
from fuscore_metric.cli.shared.run import SHOWN_ERRORS, SOME_FAILED, Progressing, bar, say
from fuscore_metric.cli.shared.scores import SHOWN, Scored, as_input_error
from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.errors import InputError
from fuscore_metric.prompts import DEFAULT_ASPECT, run_aspects
from fuscore_metric.runs.scoring import Scoring

if TYPE_CHECKING:
    from fuscore_metric.images.lazy import Picture
    from fuscore_metric.model import FuScore

    Opened: TypeAlias = tuple[Picture, Picture, Picture] | InputError
    """A triple whose files were opened, or why it cannot be scored."""


@scoring_options(aspect=DEFAULT_ASPECT, measures=True)
def score(
    ir: Ir,
    vis: Vis,
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
    *,
    scoring: Scoring,
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
) -> None:
    """Score fusions of one source pair.

    Of several fused images a bad one is reported and the others are scored: exit status 1. If no
    image can be scored, the status is 2.

    \b
    Examples:
      fuscore score --ir ir.png --vis vis.png --fused fused.png
      fuscore score --ir ir.png --vis vis.png --fused out/*.png --json
      fuscore score --ir ir.png --vis vis.png --fused fused.png --measures EN,SSIM
      find out -name '*.png' | fuscore score --ir ir.png --vis vis.png --fused -
    """  # noqa: D301 - \b keeps the lines of a paragraph
    given = [*(fused or ()), *(more_fused or ())]
    if output_format not in (None, *SHOWN):
        raise typer.BadParameter(f"expected one of {', '.join(SHOWN)}", param_hint="--format")
    if not given:
        raise typer.BadParameter("missing; expected --ir, --vis and --fused", param_hint="--fused")
    with start_up():
        scoring = checked(scoring)
        # Files are checked before the model's code is even imported: the usual mistake should
        # answer at once.
        _refuse_folders(ir, vis, given)
        paths = _listed(given)
        opened = _opened(ir, vis, paths, scoring)
        loaded = scoring.load()
    scored = _score(paths, opened, loaded, scoring, progress=progress)
    show = SHOWN["json" if as_json else output_format or "text"]
    show(scored, loaded.spec, scoring.aspect, scoring.measuring)
    _report_errors(scored)


def _refuse_folders(ir: Path, vis: Path, fused: Sequence[Path]) -> None:
    """Name the command for folders. A folder among several fused images is a bad image like any.

    Raises:
        InputError: A source, or all that is fused, is a folder.
    """
    for name, paths in (("ir", [ir]), ("vis", [vis]), ("fused", fused)):
        if all(path.is_dir() for path in paths):
            raise InputError(
                f"Expected `{name}` as an image, got the directory {str(paths[0])!r}: use "
                "`fuscore rank --ir DIRECTORY --vis DIRECTORY --methods DIRECTORY`"
            )


def _listed(given: Sequence[Path]) -> list[str]:
    """The paths given, for - those on standard input."""
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


def _opened(ir: Path, vis: Path, fused: Sequence[str], scoring: Scoring) -> list[Opened]:
    """Open all files. Of a single fused image everything is read, of several the headers.

    Raises:
        InputError: A source cannot be used, or none of the fused images.
    """
    from fuscore_metric.images.checks import check_triples
    from fuscore_metric.images.lazy import join, open_pictures

    opened_ir = open_pictures(ir, "ir", thermal_range=scoring.thermal_range)
    read_ir, read_vis = (
        [picture.loaded() for picture in pictures]
        for pictures in (opened_ir, open_pictures(vis, "vis"))
    )
    check_triples(read_ir, read_vis, read_ir)
    if len(fused) == 1:
        read_fused = [picture.loaded() for picture in open_pictures(fused[0], "fused")]
        return list(join(read_ir, read_vis, read_fused, resize=scoring.resize))
    opened: list[Opened] = []
    for path in fused:
        try:
            opened += join(read_ir, read_vis, open_pictures(path, "fused"), resize=scoring.resize)
        except InputError as error:
            opened.append(error)
    _check_some(opened)
    return opened


def _check_some(found: Sequence[object]) -> None:
    """Refuse to go on with nothing but errors.

    Raises:
        InputError: There is nothing else; the message is that of the first.
    """
    if all(isinstance(one, Exception) for one in found):
        if len(found) == 1 and isinstance(found[0], InputError):
            raise found[0]
        raise InputError(f"None of {len(found)} fused images can be scored; the first: {found[0]}")


def _score(
    paths: Sequence[str],
    opened: Sequence[Opened],
    model: FuScore,
    scoring: Scoring,
    *,
    progress: bool,
) -> list[Scored]:
    """Score the images that can be scored.

    Raises:
        InputError: No image can be scored.
    """
    from fuscore_metric.images.doubts import Doubts
    from fuscore_metric.scoring import score_each

    found: dict[int, Scored] = {}
    places = [n for n, one in enumerate(opened) if isinstance(one, tuple)]
    triples = [one for one in opened if isinstance(one, tuple)]
    aspects, batch_size, doubts = run_aspects(scoring.aspect), scoring.batch_size, Doubts()
    batches = score_each(triples, model, aspects, batch_size=batch_size, doubts=doubts)
    measuring = scoring.measuring.each(
        triples, device=model.device, batch_size=batch_size, doubts=doubts
    )
    # A bar for a single batch would be gone before it could be read.
    with bar(len(triples), progress and len(triples) > batch_size) as advance, closing(batches):
        for batch, output in batches:
            for n, row in enumerate(batch.rows):
                place = places[row]
                found[place] = (
                    Scored(paths[place], None, as_input_error(output))
                    if isinstance(output, Exception)
                    else Scored(paths[place], output[n])
                )
            advance(len(batch.rows))
    for measured in measuring:
        for row, values in measured.items():
            found[places[row]] = found[places[row]].measured(values)
    for n, one in enumerate(opened):
        if not isinstance(one, tuple):
            found[n] = Scored(paths[n], None, one)
    scored = [found[n] for n in range(len(paths))]
    _check_some([one.error if one.output is None else one.output for one in scored])
    return scored


def _report_errors(scored: Iterable[Scored]) -> None:
    """Report the images without a score, and leave with status 1 if there is one.

    Raises:
        typer.Exit: An image has no score.
    """
    scored = list(scored)
    failed = [one for one in scored if one.error is not None]
    for one in failed[:SHOWN_ERRORS]:
        say(f"failed: {one.path}: {' '.join(str(one.error).split())}")
    if failed:
        unmeasured = any(one.output is not None for one in failed)
        lack = "no score or lack measures" if unmeasured else "no score"
        say(f"{len(failed)} of {len(scored)} fused images have {lack}")
        raise typer.Exit(SOME_FAILED)
