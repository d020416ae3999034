"""A triple and its output -> a row of the results table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from fuscore_metric.errors import out_of_memory
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT, LEVEL_WORDS, main_aspect

if TYPE_CHECKING:
    from fuscore_metric.outputs import FuScoreOutput

Row: TypeAlias = dict[str, Any]
"""Values by column; None where there is none."""

FURTHER_ASPECTS = tuple(aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT)
NAMES = ("scene", "method")
"""The columns that identify a row."""
FILES = ("ir", "vis", "fused")
NUMBERS = ("score", "std", *LEVEL_WORDS, *FURTHER_ASPECTS, "seconds")
IN_TRAINING = "in_training"
"""Whether the weights learned from the source pair; nothing where that is not known."""
LATER = (IN_TRAINING, "crop")
"""Columns that older tables do not have."""
UNMEASURED = "not measured: "
"""The beginning of the error of a row that has a score."""


def columns(measures: Sequence[str] = ()) -> tuple[str, ...]:
    """Columns of a results table, of classic measures those named."""
    return (*NAMES, *NUMBERS, *measures, *LATER, "error", *FILES)


COLUMNS = columns()


def measures_in(names: Iterable[str]) -> list[str]:
    """Those of a table's columns that are classic measures."""
    further = [name for name in names if name not in COLUMNS]
    if not further:
        return []
    from fuscore_metric.measures.catalogue import MEASURES  # not at the top: it needs torch

    return [name for name in further if name in MEASURES]


@dataclass(frozen=True)
class Entry:
    """A triple to be scored.

    Attributes:
        scene: Name of the source pair.
        method: Name of what made the fused image.
        ir: Path of the infrared image.
        vis: Path of the visible image.
        fused: Path of the fused image.
    """

    scene: str
    method: str
    ir: str
    vis: str
    fused: str

    @property
    def key(self) -> tuple[str, str]:
        """What identifies its row."""
        return self.scene, self.method


def score_row(entry: Entry, output: FuScoreOutput, seconds: float, **more: object) -> Row:
    """Make the row of a triple that was scored.

    Args:
        entry: The triple.
        output: Of this triple alone: fields (1, A), (1, A, 5). Of several aspects, `score`, `std`
            and the probabilities are those of `main_aspect`.
        seconds: What it took.
        **more: Values of `LATER`.
    """
    main = main_aspect(output.aspects)
    further = {name: output.of(name).score.item() for name in output.aspects if name != main}
    one = output.of(main)
    levels = dict(zip(LEVEL_WORDS, one.probabilities[0].tolist(), strict=True))
    numbers = {"score": one.score.item(), "std": one.std.item(), **levels, **further}
    return _row(entry, numbers | {"seconds": seconds} | more)


def error_row(entry: Entry, error: BaseException) -> Row:
    """Make the row of a triple that could not be scored."""
    return _row(entry, {"error": describe_error(error)})


def measured_row(row: Row, measured: dict[str, float] | Exception) -> Row:
    """Add classic measures to the row of a triple that was scored, or why it has none."""
    if isinstance(measured, Exception):
        return row | {"error": UNMEASURED + describe_error(measured)}
    return row | {"error": None} | measured


def describe_error(error: BaseException) -> str:
    """Describe in one line why a triple could not be scored; for lack of memory, what helps."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not out_of_memory(error):
        return text
    return f"out of memory with this triple alone; smaller images or more memory help: {text}"


def without_numbers(errors: Iterable[str], failed: int, total: int) -> str:
    """Say how many triples have an error; `errors` are theirs, or the first of them."""
    unmeasured = any(error.startswith(UNMEASURED) for error in errors)
    return f"{failed} of {total} triples have no score{' or lack measures' * unmeasured}"


def _row(entry: Entry, values: Row) -> Row:
    return dict.fromkeys(COLUMNS) | asdict(entry) | values
