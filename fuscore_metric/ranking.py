"""Many fused images of one source pair -> scores, an order, and who beats whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fuscore_metric.images import ImageLike, ImagesLike, InputError
from fuscore_metric.levels import preference
from fuscore_metric.model import FuScore, FuScoreOutput
from fuscore_metric.notebook import table
from fuscore_metric.pictures import Picture, join, open_pictures
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, check_request, choose_model, judge
from fuscore_metric.thermal_range import ThermalRange


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a model says of N candidates.

    Attributes:
        names: Of the candidates, in the order given.
        output: Scores, deviations, probabilities, in the order given.
        preferences: (N, N) probability that a person prefers the candidate of the row to that of
            the column, calibrated by the weights' temperature; 0.5 on the diagonal. (N, N, A) of
            all aspects.
    """

    names: tuple[str, ...]
    output: FuScoreOutput
    preferences: Tensor

    @property
    def score(self) -> Tensor:
        """(N,) scores in [1, 5], higher is better; (N, A) of all aspects."""
        return self.output.score

    @property
    def order(self) -> list[int]:
        """Numbers of the candidates, best first; equal ones as given. By `overall` of "all"."""
        score = self.score if self.score.ndim == 1 else self.score[:, ASPECTS.index(DEFAULT_ASPECT)]
        order: list[int] = score.argsort(descending=True, stable=True).tolist()
        return order

    def best_first(self) -> list[tuple[str, FuScoreOutput]]:
        """Names and outputs of one row, best first."""
        return [(self.names[n], self.output[n]) for n in self.order]

    def _repr_html_(self) -> str:
        return table([self.names[n] for n in self.order], self.output[self.order])

    def __str__(self) -> str:
        """A line for each candidate, best first; of one aspect, or `overall` of "all"."""
        width = max(len(name) for name in self.names)
        lines = []
        for place, (name, output) in enumerate(self.best_first(), start=1):
            score, std = output.score.flatten()[0], output.std.flatten()[0]
            lines.append(f"{place:>3}  {name:<{width}}  {score:.3f} +- {std:.3f}")
        return "\n".join(lines)


def rank(
    ir: ImageLike,
    vis: ImageLike,
    candidates: ImagesLike | Mapping[str, ImageLike],
    *,
    model: FuScore | None = None,
    aspect: str = DEFAULT_ASPECT,
    device: str | int | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
) -> Ranking:
    """Rank many fused images of one source pair, which is read once.

    Args:
        ir: Infrared image, as `score` takes it.
        vis: Visible image of the same scene.
        candidates: Fused images, or images by name, such as that of the method.
        model: What judges; the embedded weights by default.
        aspect: As in `score`; "all" ranks by `overall`.
        device: As in `score`.
        batch_size: Candidates computed at once. Does not change the scores.
        thermal_range: As in `score`.

    Returns:
        A `Ranking`. The scores are those that `score` gives.

    Raises:
        InputError: An image cannot be used; one line that names the argument.
        ValueError: An unknown aspect, a bad batch size or thermal range.
    """
    check_request(aspect, batch_size, thermal_range)
    images = candidates.values() if isinstance(candidates, Mapping) else candidates
    fused = open_pictures(images, "fused")
    names: Iterable[object] = candidates if isinstance(candidates, Mapping) else _names(fused)
    read_ir = _one(open_pictures(ir, "ir", thermal_range=thermal_range), "ir")
    triples = join(read_ir, _one(open_pictures(vis, "vis"), "vis"), fused)
    model = choose_model(model, triples, device)
    output = judge(triples, model, aspect=aspect, batch_size=batch_size)
    mean, spread = output.score, output.variance
    preferences = preference(
        mean[:, None], mean, spread[:, None], spread, temperature=model.spec.temperature
    )
    return Ranking(tuple(map(str, names)), output, preferences)


def _one(found: list[Picture], argument: str) -> list[Picture]:
    if len(found) != 1:
        raise InputError(f"Expected `{argument}` as one image, got {len(found)}")
    return found


def _names(pictures: Sequence[Picture]) -> list[str | int]:
    """Paths; numbers for what has no name."""
    sources = (picture.source for picture in pictures)
    return [source if isinstance(source, str) else n for n, source in enumerate(sources)]
