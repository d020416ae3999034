"""Folders of fused images -> scores on disk or in memory -> a leaderboard: `evaluate`."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from fuscore_metric.checkpoints.spec import EMBEDDED
from fuscore_metric.compute.placement import check_device, default_device
from fuscore_metric.errors import InputError
from fuscore_metric.images.thermal_range import ThermalRange
from fuscore_metric.model import FuScore
from fuscore_metric.optional import require
from fuscore_metric.prompts import ALL_ASPECTS, run_aspects
from fuscore_metric.results.read import Results
from fuscore_metric.results.rows import without_numbers
from fuscore_metric.results.run_folder import replace_text
from fuscore_metric.results.tables import BOARD_FILES
from fuscore_metric.runs.folders import method_folders
from fuscore_metric.runs.measuring import Measuring
from fuscore_metric.runs.scoring import ProgressBar, Scoring, no_bar, score_folders
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, check_request

if TYPE_CHECKING:
    import pandas

    from fuscore_metric.leaderboard.statistics import Leaderboard

log = logging.getLogger(__name__)

Folder: TypeAlias = str | os.PathLike[str]

COMMAND = "fuscore_metric.evaluate(...)"
"""The text that a run's settings have in the place of a command line."""
_WIDTH = 160
"""Characters of a leaderboard as text: all of its columns."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Fusion methods over the scenes of folders: which are better, and which differences are real.

    `print` it for the table that `fuscore rank` shows; a notebook shows it as HTML.

    Attributes:
        leaderboard: Means with intervals, ranks, tests and groups, best method first.
        rows: A row for each triple, columns `fuscore_metric.results.rows.columns`; one that has no
            score has an `error`.
        settings: What the scores were made with.
        notes: Sentences on what has no partner or no score, and what cannot be concluded.
        model: The model, if it was given as one.
    """

    leaderboard: Leaderboard
    rows: pandas.DataFrame
    settings: dict[str, Any]
    notes: tuple[str, ...]
    model: FuScore | None = None

    def to_pandas(self) -> pandas.DataFrame:
        """Give the leaderboard as a data frame: a row per method, best first."""
        import pandas as pd

        methods = self.leaderboard.methods
        numbers = pd.DataFrame([asdict(one) for one in methods]).drop(
            columns=["aspects", "measures"]
        )
        return numbers.join(pd.DataFrame([one.aspects | one.measures for one in methods]))

    def to_markdown(self) -> str:
        """Give the leaderboard as a Markdown table."""
        return self.rendered()["markdown"]

    def to_latex(self) -> str:
        """Give the leaderboard as a LaTeX table, which needs booktabs."""
        return self.rendered()["latex"]

    def rendered(self) -> dict[str, str]:
        """Give the leaderboard in each format of `fuscore_metric.results.tables.BOARD_FILES`."""
        from fuscore_metric.leaderboard import tables

        renders = {
            "csv": tables.as_csv,
            "json": tables.as_json,
            "latex": tables.as_latex,
            "markdown": tables.as_markdown,
        }
        return {
            name: render(self.leaderboard, settings=self.settings)
            for name, render in renders.items()
        }

    def write(self, folder: Path) -> None:
        """Write the leaderboard into a folder, as `BOARD_FILES`.

        Raises:
            InputError: It cannot be written.
        """
        texts = self.rendered()
        for name, file in BOARD_FILES.items():
            replace_text(folder / file, texts[name] + "\n")

    def report(
        self,
        path: Folder,
        *,
        title: str = "Fusion quality",
        scenes: int = 3,
        per_scene: int = 4,
        attribution: bool = True,
    ) -> None:
        """Write the HTML page that `fuscore report` makes: leaderboard, plots, scenes, pictures.

        Args:
            path: The file.
            title: Heading of the page.
            scenes: Best, worst and most disputed scenes with pictures, of each kind.
            per_scene: Methods with pictures for such a scene: its ends.
            attribution: Whether to map where the best and the worst fusion of a scene lost score.

        Raises:
            InputError: It cannot be written.
            MissingPackageError: The extra [report] is not installed.
        """
        require("A report", "jinja2", "matplotlib", install="fuscore-metric[report]")
        from fuscore_metric.report.data import make_grid
        from fuscore_metric.report.scorer import load_scorer
        from fuscore_metric.runs.page import make_report, write_page

        page = make_report(
            make_grid(self.rows, [one.method for one in self.leaderboard.methods]),
            self.leaderboard,
            self.settings,
            lambda: self.model or load_scorer(self.settings, self.settings["device"]),
            title=title,
            scenes=scenes,
            per_scene=per_scene,
            attribution=attribution,
            command=f"{COMMAND}.report(...)",
            progress=no_bar,
        )
        write_page(Path(os.path.expanduser(path)), page)

    def __str__(self) -> str:
        """The table of `fuscore rank`, with what it means below."""
        from rich.console import Console

        from fuscore_metric.leaderboard import tables

        shown = tables.as_rich(self.leaderboard, settings=self.settings, width=_WIDTH)
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, highlight=False)
        with console.capture() as captured:
            console.print(shown)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def _repr_html_(self) -> str:
        from fuscore_metric.leaderboard.markup import provenance
        from fuscore_metric.leaderboard.tables import about_measures

        about = about_measures(self.leaderboard, self.settings)
        table = self.to_pandas().to_html(index=False, float_format="{:.3f}".format, border=0)
        below = [*self.notes, *about, provenance(self.settings)]
        return table + "".join(f"<p>{escape(sentence)}</p>" for sentence in below)


def evaluate(
    ir_dir: Folder,
    vis_dir: Folder,
    methods: Folder | Iterable[Folder] | Mapping[str, Folder],
    *,
    model: str | os.PathLike[str] | FuScore = EMBEDDED,
    revision: str | None = None,
    aspect: str = ALL_ASPECTS,
    device: str | int | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
    measures: str | Sequence[str] | None = None,
    measures_convention: str | None = None,
    measures_colour: str | None = None,
    pair: str | None = None,
    strict: bool = False,
    held_out: bool = False,
    out: Folder | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    r"""Score every fusion method on every scene, and tell which differences are real.

    Does what `fuscore rank` does. Images belong together that have one name, whatever the
    extension, or one by `pair`. What has no partner, and how many triples have no score, is logged
    as a warning and is in `notes` of the result. Needs the extra [report].

    Args:
        ir_dir: Folder of infrared images.
        vis_dir: Folder of visible images of the same names.
        methods: A folder whose subfolders are methods, folders of fused images, or such folders by
            the name of the method.
        model: "embedded", a directory, a hub id, or a model.
        revision: Hub revision of the weights.
        aspect: One of `fuscore_metric.prompts.ASPECTS`, or the word "all": `overall` is ranked
            then, and the other aspects are columns.
        device: Where to compute; by default on a GPU where CUDA is available, else on the CPU.
        dtype: As in `FuScore.from_pretrained`.
        batch_size: Triples computed at once. Does not change the scores.
        thermal_range: As in `fuscore_metric.score`.
        resize: As in `fuscore_metric.score`; `crop` of `rows` names where sources were cropped.
        measures: Classic measures beside the scores: "paper" for the ten of a usual table, "all",
            or names such as "EN,SSIM". Of those in `out` only what its rows lack is computed.
        measures_convention: As `convention` of `fuscore_metric.measure`.
        measures_colour: As `colour` of `fuscore_metric.measure`.
        pair: Regular expression that is searched in each name without extension; its first group is
            the scene, as in r"0*(\d+)".
        strict: Whether to stop before anything is computed if an image has no partner.
        held_out: Whether only scenes are ranked that the weights are known not to have learned
            from; `rows` has all.
        out: Run folder. What is there is kept, so that a run that was stopped goes on, and a
            method can be added. None keeps nothing on disk.
        overwrite: Whether to begin anew in `out`; what is there is lost.
        progress: Told (done, total) triples after each batch.

    Returns:
        An `Evaluation`.

    Raises:
        InputError: A folder cannot be used, nothing has a score, or the run in `out` was made with
            other settings.
        CheckpointError: The weights cannot be had or used.
        MissingPackageError: The extra [report] is not installed.
        ValueError: A wrong option.
        KeyboardInterrupt: Stopped; the rows in `out` are whole.
    """
    require("`evaluate`", "pandas", "pyarrow", "scipy", install="fuscore-metric[report]")
    run_aspects(aspect)  # refuses an unknown one
    check_request(batch_size, thermal_range, resize)
    weights, place, kept = _placed(model, device, dtype)
    measuring = Measuring.of(measures, measures_convention, measures_colour)
    scoring = Scoring(
        *(weights, revision, aspect, place, kept, batch_size, thermal_range, resize),
        measuring=measuring,
    )
    ir, vis = (Path(os.path.expanduser(folder)) for folder in (ir_dir, vis_dir))
    notes: list[str] = []

    def warn(note: str) -> None:
        notes.append(note)
        log.warning("%s", note)

    with _run_folder(out) as folder:
        named, skipped = _methods(methods, others=(ir, vis, folder))
        found = score_folders(
            ir,
            vis,
            named,
            scoring,
            folder,
            skipped=skipped,
            pair=pair,
            strict=strict,
            overwrite=overwrite,
            progress=_counting(progress),
            warn=warn,
            command=COMMAND,
        )
        errors, total = found.table["error"].dropna(), len(found.table)
        if found.table["score"].isna().all():
            raise InputError(f"None of {total} triples can be scored; the first: {errors.iloc[0]}")
        if len(errors):
            warn(f"{without_numbers(errors, len(errors), total)}: see `rows`")
        made = summarise(
            found, notes, model if isinstance(model, FuScore) else None, held_out=held_out
        )
        if out is not None:
            made.write(folder)
    return made


def summarise(
    found: Results,
    notes: Sequence[str] = (),
    model: FuScore | None = None,
    *,
    held_out: bool = False,
) -> Evaluation:
    """Rank the methods of a results table.

    Args:
        found: The table.
        notes: Further sentences for its reader.
        model: The model that gave the scores, if it is in memory.
        held_out: As in `evaluate`.

    Raises:
        InputError: Nothing has a score, or no scene is known to be held out.
    """
    from fuscore_metric.leaderboard.statistics import leaderboard

    temperature = found.settings.get("temperature", 1.0)
    board = leaderboard(found.table, temperature=temperature, held_out=held_out)
    return Evaluation(board, found.table, found.settings, (*notes, *board.notes), model)


def _placed(
    model: str | os.PathLike[str] | FuScore,
    device: str | int | torch.device | None,
    dtype: str | torch.dtype | None,
) -> tuple[str | FuScore, str, str | None]:
    """Model, device and dtype for `Scoring`, checked."""
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    if not isinstance(model, FuScore):
        place = default_device() if device is None else check_device(device)
        return os.fspath(model), str(place), name
    for option, given, there in (
        ("device", None if device is None else str(check_device(device)), str(model.device)),
        ("dtype", name, str(model.dtype).removeprefix("torch.")),
    ):
        if given not in (None, there):
            raise ValueError(f"Expected `{option}` as that of `model`, {there}, got {given!r}")
    return model, str(model.device), name


def _methods(
    methods: Folder | Iterable[Folder] | Mapping[str, Folder], *, others: Sequence[Path]
) -> tuple[dict[str, Path], list[str]]:
    """Folders by name of the method, and paths of what is not a folder of one."""
    if isinstance(methods, Mapping):
        return {str(name): Path(folder) for name, folder in methods.items()}, []
    if isinstance(methods, (str, os.PathLike)):
        return method_folders([], Path(methods), others=others)
    return method_folders([os.fspath(folder) for folder in methods], None)


@contextmanager
def _run_folder(out: Folder | None) -> Iterator[Path]:
    """The folder for the rows; a temporary one if they are not to be kept."""
    if out is not None:
        yield Path(os.path.expanduser(out))
        return
    with TemporaryDirectory(prefix="fuscore-") as folder:
        try:
            yield Path(folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("no rows are kept without `out`") from None


def _counting(progress: Callable[[int, int], object] | None) -> ProgressBar:
    if progress is None:
        return no_bar

    @contextmanager
    def opened(total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield advance

    return opened
