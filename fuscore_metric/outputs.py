"""What a model answers, and what it keeps of source pairs: `FuScoreOutput`, `SourcePairs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import torch
from torch import Tensor
from typing_extensions import Self

from fuscore_metric.backbones.prompt_tree import Prefix
from fuscore_metric.drawing.notebook import table
from fuscore_metric.levels import expected_score, level_probabilities, score_variance
from fuscore_metric.prompts import Asked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WITH_ROWS = ("score", "std", "probabilities", "level_logits")
"""Fields of an output that have a row for each triple."""


@dataclass(frozen=True, eq=False)
class FuScoreOutput:
    """The answer about a batch of N triples, in float32 whatever the model's dtype.

    One rule gives the shapes at every door: `aspect=NAME`, or nothing, gives fields (N, ...), and
    `aspects=(NAME, ...)` gives (N, A, ...), in the order asked for, also where A is 1.

    `len(output)` is N, and `output[2]`, `output[0:2]` and `output[[0, 2]]` are outputs of those
    triples. `output.of("sharpness")` is the output of one of several aspects.

    Attributes:
        score: (N,) expected level in [1, 5], higher is better.
        std: (N,) standard deviation of the level: the model's own uncertainty, in score units.
        probabilities: (N, 5) of bad, poor, fair, good, excellent.
        level_logits: (N, 5) before the softmax.
        temperature: That of the weights; `fuscore_metric.preference` reads it.
        aspects: The names of the second axis; empty where there is none.
    """

    score: Tensor
    std: Tensor
    probabilities: Tensor = field(repr=False)
    level_logits: Tensor = field(repr=False)
    temperature: float = field(default=1.0, repr=False)
    aspects: tuple[str, ...] = field(default=(), repr=False)

    @property
    def variance(self) -> Tensor:
        """(N,) variance of the level, as `levels.preference` takes it."""
        return score_variance(self.probabilities)

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Self:
        """Take some triples' rows, or one's: fields (1,), (1, 5) and so on."""
        if isinstance(rows, SupportsIndex) and not isinstance(rows, Tensor):
            rows = [range(len(self))[rows]]
        return replace(self, **{name: getattr(self, name)[rows] for name in _WITH_ROWS})

    def of(self, aspect: str) -> Self:
        """Take one of several aspects: fields (N,), (N, 5).

        Raises:
            ValueError: The output does not have this aspect on its second axis.
        """
        if aspect not in self.aspects:
            names = ", ".join(self.aspects) or "an output of several aspects"
            raise ValueError(f"Expected `aspect` to be one of {names}, got {aspect!r}")
        place = self.aspects.index(aspect)
        fields: dict[str, Any] = {name: getattr(self, name)[:, place] for name in _WITH_ROWS}
        return replace(self, aspects=(), **fields)

    def as_asked(self, asked: Asked) -> Self:
        """Take the second axis away where one aspect was asked for by name."""
        return self.of(asked.aspects[0]) if asked.alone else self

    def plot(self) -> Figure:
        """Draw scores with their standard deviations, and the level probabilities beside them.

        Returns:
            A matplotlib `Figure`, which pyplot does not know of.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        from fuscore_metric.drawing.plots import plot

        return plot(self, [str(number) for number in range(len(self))])

    def _repr_html_(self) -> str:
        return table([str(number) for number in range(len(self))], self)

    def __iter__(self) -> NoReturn:
        """Refuse, where `nn.DataParallel` would take row after row without end."""
        raise TypeError(
            "A FuScoreOutput cannot be iterated over (take rows as output[n]), nor gathered by "
            "nn.DataParallel (wrap a module that returns its `score`, or a FuScoreReward)"
        )

    @classmethod
    def joined(cls, outputs: Sequence[Self]) -> Self:
        """Put outputs of one model, at least one, below each other."""
        joined: dict[str, Any] = {
            name: torch.cat([getattr(output, name) for output in outputs]) for name in _WITH_ROWS
        }
        return replace(outputs[0], **joined)

    @classmethod
    def from_logits(
        cls, level_logits: Tensor, *, temperature: float = 1.0, aspects: tuple[str, ...] = ()
    ) -> Self:
        """Make the output of level logits of any dtype: (N, 5), or (N, A, 5) of A `aspects`."""
        level_logits = level_logits.float()
        probabilities = level_probabilities(level_logits)
        # The square root's slope is infinite at 0, which a certain answer reaches.
        std = score_variance(probabilities).clamp_min(1e-12).sqrt()
        score = expected_score(probabilities)
        return cls(score, std, probabilities, level_logits, temperature, aspects)


@dataclass
class SourcePairs:
    """U encoded source pairs: what `FuScore.score_fused` takes.

    Attributes:
        count: U.
        size: (height, width) of the images, in pixels.
        encoded: What the vision part made of them; its form is the model family's own.
        prefix: Keys and values of the prompt before `fused`; made at the first `score_fused`.
        images: (ir, vis), if a gradient of the sources may be asked for.
        leaves: Copies of `images` from which the graph of `encoded` starts.
    """

    count: int
    size: tuple[int, int]
    encoded: Any
    prefix: Prefix | None = None
    images: tuple[Tensor, ...] = ()
    leaves: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.count
