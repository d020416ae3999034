"""Many fused images of one source pair -> scores, an order, and pairwise preferences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fuscore_metric import levels
from fuscore_metric.checkpoints.spec import EMBEDDED
from fuscore_metric.drawing.notebook import table
from fuscore_metric.errors import InputError
from fuscore_metric.images.convert import ImageLike, ImagesLike
from fuscore_metric.images.lazy import Picture, join, open_pictures
from fuscore_metric.images.thermal_range import ThermalRange
from fuscore_metric.model import ModelLike
from fuscore_metric.outputs import FuScoreOutput
from fuscore_metric.prompts import Asked, main_aspect
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, check_request, choose_model, score_triples

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Ranking:
    """The scores and the order of N candidates.

    Attributes:
        names: Of the candidates, in the order given.
        output: Scores, deviations, probabilities, in the order given.
        preferences: (N, N) probability that a person prefers the candidate of the row to that of
            the column, calibrated by the weights' temperature; 0.5 on the diagonal. (N, N, A) for
            `aspects`.
    """

    names: tuple[str, ...]
    output: FuScoreOutput
    preferences: Tensor = field(repr=False)

    @property
    def score(self) -> Tensor:
        """(N,) scores in [1, 5], higher is better; (N, A) for `aspects`."""
        return self.output.score

    @property
    def order(self) -> list[int]:
        """Numbers of the candidates, best first; equal ones as given.

        Of several aspects `overall` decides, or the first if that is not among them.
        """
        order: list[int] = self._deciding().score.argsort(descending=True, stable=True).tolist()
        return order

    def _deciding(self) -> FuScoreOutput:
        aspects = self.output.aspects
        return self.output.of(main_aspect(aspects)) if aspects else self.output

    def best_first(self) -> list[tuple[str, FuScoreOutput]]:
        """Names and outputs of one row, best first."""
        return [(self.names[n], self.output[n]) for n in self.order]

    def plot(self) -> Figure:
        """Draw the candidates as `FuScoreOutput.plot` does, best first."""
        from fuscore_metric.drawing.plots import plot

        return plot(self.output[self.order], [self.names[n] for n in self.order])

    def _repr_html_(self) -> str:
        return table([self.names[n] for n in self.order], self.output[self.order])

    def __str__(self) -> str:
        """A line for each candidate, best first, with the aspect that decides the order."""
        width = max(len(name) for name in self.names)
        deciding = self._deciding()
        lines = []
        for place, n in enumerate(self.order, start=1):
            score, std = deciding.score[n], deciding.std[n]
            lines.append(f"{place:>3}  {self.names[n]:<{width}}  {score:.3f} +- {std:.3f}")
        return "\n".join(lines)


def rank(
    ir: ImageLike,
    vis: ImageLike,
    candidates: ImagesLike | Mapping[str, ImageLike],
    *,
    model: ModelLike = EMBEDDED,
    aspect: str | None = None,
    aspects: Sequence[str] | None = None,
    device: str | int | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
) -> Ranking:
    """Rank many fused images of one source pair, which is encoded once.

    Args:
        ir: Infrared image, as `score` takes it.
        vis: Visible image of the same scene.
        candidates: Fused images, or images by name, such as that of the method.
        model: As in `score`.
        aspect: As in `score`.
        aspects: As in `score`; `overall` decides the order, or the first if it is not among them.
        device: As in `score`.
        batch_size: Candidates computed at once. Does not change the scores.
        thermal_range: As in `score`.
        resize: As in `score`.

    Returns:
        A `Ranking`. The scores are those that `score` gives.

    Raises:
        InputError: An image cannot be used; one line that names the argument.
        CheckpointError: No such weights, or weights that this version cannot use.
        ValueError: An unknown aspect, both `aspect` and `aspects`, a bad batch size or thermal
            range.

    Example:
        >>> from fuscore_metric import rank
        >>> ranking = rank("ir.png", "vis.png", {"A": "fused_noisy.png", "B": "fused_good.png"})
        >>> print(ranking)
          1  B  3.902 +- 0.522
          2  A  1.911 +- 0.824
    """
    asked = Asked.of(aspect, aspects)
    check_request(batch_size, thermal_range, resize)
    images = candidates.values() if isinstance(candidates, Mapping) else candidates
    fused = open_pictures(images, "fused")
    names: Iterable[object] = candidates if isinstance(candidates, Mapping) else _names(fused)
    read_ir = _one(open_pictures(ir, "ir", thermal_range=thermal_range), "ir")
    read_vis = _one(open_pictures(vis, "vis"), "vis")
    triples = join(read_ir, read_vis, fused, resize=resize)
    model = choose_model(model, triples, device)
    output = score_triples(triples, model, asked, batch_size=batch_size)
    mean, spread = output.score, output.variance
    preferences = levels.preference(
        mean[:, None], mean, spread[:, None], spread, temperature=output.temperature
    )
    return Ranking(tuple(map(str, names)), output, preferences)


def preference(a: FuScoreOutput, b: FuScoreOutput) -> Tensor:
    """Probability that a person prefers a to b, calibrated by the temperature of the weights.

    Args:
        a: Of N triples: what `predict` or a `FuScore` returned, or rows of it.
        b: Of N others, or of one, by the same model; of the same or other scenes.

    Returns:
        (N,) in [0, 1], 0.5 for equal scores; (N, A) for outputs of A aspects.

    Raises:
        ValueError: The two come from weights of different temperatures, whose scores cannot be
            compared.

    Example:
        >>> from fuscore_metric import predict, preference
        >>> output = predict("ir.png", "vis.png", ["fused_good.png", "fused_average.png"])
        >>> preference(output[0], output[1])
        tensor([0.9883])
    """
    if a.temperature != b.temperature:
        raise ValueError(
            "Expected two outputs of the same weights, got temperatures "
            f"{a.temperature:.6g} and {b.temperature:.6g}"
        )
    return levels.preference(a.score, b.score, a.variance, b.variance, temperature=a.temperature)


def _one(found: list[Picture], argument: str) -> list[Picture]:
    if len(found) != 1:
        raise InputError(f"Expected `{argument}` as one image, got {len(found)}")
    return found


def _names(pictures: Sequence[Picture]) -> list[str | int]:
    """Paths; numbers for what has no name."""
    sources = (picture.source for picture in pictures)
    return [source if isinstance(source, str) else n for n, source in enumerate(sources)]
