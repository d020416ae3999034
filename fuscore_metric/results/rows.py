"""A triple and what a model said of it -> a row of the results table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, DEFAULT_ASPECT, LEVEL_WORDS

if TYPE_CHECKING:
    from fuscore_metric.model import FuScoreOutput

Row: TypeAlias = dict[str, Any]
"""Values by column; None where there is none."""

FURTHER_ASPECTS = tuple(aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT)
NAMES = ("scene", "method")
"""The columns that identify a row."""
FILES = ("ir", "vis", "fused")
NUMBERS = ("score", "std", *LEVEL_WORDS, *FURTHER_ASPECTS, "seconds")
COLUMNS = (*NAMES, *NUMBERS, "error", *FILES)


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


def score_row(entry: Entry, output: FuScoreOutput, aspect: str, seconds: float) -> Row:
    """Make the row of a triple that was judged.

    Args:
        entry: The triple.
        output: Of this triple alone: fields (1,), (1, 5); of all aspects (1, A), (1, A, 5).
        aspect: What was asked for. Of "all", `score`, `std` and the probabilities are `overall`'s.
        seconds: What it took.
    """
    score, std, probabilities = output.score[0], output.std[0], output.probabilities[0]
    aspects: Row = {}
    if aspect == ALL_ASPECTS:
        by_name = dict(zip(ASPECTS, score.tolist(), strict=True))
        aspects = {name: by_name[name] for name in FURTHER_ASPECTS}
        place = ASPECTS.index(DEFAULT_ASPECT)
        score, std, probabilities = score[place], std[place], probabilities[place]
    levels = dict(zip(LEVEL_WORDS, probabilities.tolist(), strict=True))
    numbers = {"score": score.item(), "std": std.item(), **levels, **aspects, "seconds": seconds}
    return _row(entry, numbers)


def error_row(entry: Entry, error: BaseException) -> Row:
    """Make the row of a triple that could not be judged."""
    return _row(entry, {"error": describe_error(error)})


def describe_error(error: BaseException) -> str:
    """Say in one line why a triple could not be judged; of lack of memory, what helps."""
    from fuscore_metric.scoring import out_of_memory

    text = " ".join(str(error).split()) or type(error).__name__
    if not out_of_memory(error):
        return text
    return f"out of memory with this triple alone; smaller images or more memory help: {text}"


def _row(entry: Entry, values: Row) -> Row:
    return dict.fromkeys(COLUMNS) | asdict(entry) | values
