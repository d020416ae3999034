"""The door: images -> classic measures, for the inputs of `fuscore_metric.score`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TypeAlias

import torch
from torch import Tensor

from fuscore_metric.compute.forking import outlast_fork
from fuscore_metric.compute.placement import check_device, default_device
from fuscore_metric.images.batches import CPU, Batch, Decoder, plan, work_through
from fuscore_metric.images.convert import ImagesLike
from fuscore_metric.images.doubts import Doubts
from fuscore_metric.images.lazy import Picture, open_triples, source_pairs
from fuscore_metric.images.thermal_range import ThermalRange
from fuscore_metric.measures.catalogue import CONVENTIONS, STANDARD, Convention, chosen
from fuscore_metric.measures.grey import Grey, channel_levels, luma_levels
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, check_request

LEVELS = {"luma": luma_levels, "channels": channel_levels}
"""How images become planes (C, N, H, W) of grey levels, by the name of `colour`."""

Planes: TypeAlias = list[tuple[Grey, Grey, Grey]]
"""ir, vis and fused of each channel."""


def measure(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    names: str | Sequence[str] = "paper",
    colour: str | None = None,
    convention: str = STANDARD.name,
    device: str | int | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
) -> dict[str, Tensor]:
    """Compute the classic measures of fusion that papers print.

    They are formulas, not opinions: `fuscore measures` lists them with their direction and how far
    each agrees with what eyes say.

    Args:
        ir: Infrared image(s), as for `fuscore_metric.score`.
        vis: Visible image(s) of the same scene(s).
        fused: Fusion(s) of the two.
        names: "paper" for the ten of a usual table, "all", or names such as "EN" or "EN,SSIM".
        colour: "luma" measures the brightness of colour images, "channels" red, green and blue
            each for itself and takes the mean. By default that of the convention, usually "luma".
        convention: "standard" for the definitions, or an evaluator whose published numbers are to
            be matched: "vifb", "tang", "tang2022" or "cddfuse".
        device: Where to compute; by default where `fused` is, if that is a tensor, else on a GPU
            where CUDA is available.
        batch_size: Triples computed at once on a GPU. Does not change the numbers.
        thermal_range: As for `fuscore_metric.score`.
        resize: As for `fuscore_metric.score`.

    Returns:
        A tensor (N,) float64 by name, on the device. Differentiable where an input tensor requires
        gradients and the measure is: see `Measure.differentiable`.

    Raises:
        InputError: An image cannot be used; one line that names the argument.
        ValueError: There is no such measure, convention or colour, a bad batch size or thermal
            range, or a device that cannot be used here.

    Example:
        >>> import fuscore_metric
        >>> fuscore_metric.measure("ir.png", "vis.png", "fused_good.png", names="SD")
        {'SD': tensor([25.0745], dtype=torch.float64)}
    """
    check_request(batch_size, thermal_range, resize)
    asked = chosen(names, convention)
    rule = CONVENTIONS[convention]
    check_colour(colour)
    triples = open_triples(ir, vis, fused, thermal_range=thermal_range, resize=resize)
    place = check_device(device) if device is not None else triples[0][2].device or default_device()
    found: dict[int, dict[str, Tensor]] = {}
    batches = measure_each(triples, asked, rule, colour, device=place, batch_size=batch_size)
    with closing(batches) as measured:
        for batch, values in measured:
            if isinstance(values, Exception):
                raise values
            for n, row in enumerate(batch.rows):
                found[row] = {name: value[n] for name, value in values.items()}
    return {name: torch.stack([found[row][name] for row in range(len(triples))]) for name in asked}


def check_colour(colour: str | None) -> None:
    """Refuse an unknown way to measure colour images.

    Raises:
        ValueError: It is none of `LEVELS`, nor None.
    """
    if colour is not None and colour not in LEVELS:
        raise ValueError(f"Expected `colour` of {', '.join(LEVELS)}, got {colour!r}")


def measure_each(
    triples: Sequence[tuple[Picture, Picture, Picture]],
    names: Sequence[str],
    convention: Convention = STANDARD,
    colour: str | None = None,
    *,
    device: torch.device,
    batch_size: int = DEFAULT_BATCH_SIZE,
    doubts: Doubts | None = None,
) -> Generator[tuple[Batch, dict[str, Tensor] | Exception]]:
    """Measure triples batch after batch, going on after those that cannot be measured.

    A batch that does not fit into memory is cut in two. What the measures need of a source pair is
    computed once for all of its fused images.

    Args:
        triples: What `images.lazy.open_triples` opened.
        names: Measures that the convention has.
        convention: Whose formulas.
        colour: As in `measure`.
        device: Where to compute; the CPU in the place of Apple's GPUs, which lack float64.
        batch_size: Triples computed at once on a GPU.
        doubts: Warns of odd triples, once where several calls share it.

    Yields:
        A batch, whose `rows` are places in `triples`, and (N,) values by name, or what kept its
        triples from being measured: a broken file, or no memory for a single one.
    """
    outlast_fork()
    doubts = doubts or Doubts()
    doubts.turned(triples)
    doubts.cropped(triples)
    device = CPU if device.type == "mps" else device
    on_cpu = device.type == "cpu"
    shapes = [fused.shape for _, _, fused in triples]
    # A single image stays in a CPU's cache.
    batches = plan(shapes, source_pairs(triples), 1 if on_cpu else batch_size)
    with Decoder(triples, batches, ahead=not on_cpu, device=device, doubts=doubts) as decoder:
        measurer = _Measurer(decoder, names, convention, colour or convention.colour)
        yield from work_through(batches, measurer.measure, measurer.forget)


class _Measurer:
    """Measures batches, and holds on to the sources of the last one for the next."""

    def __init__(
        self, decoder: Decoder, names: Sequence[str], convention: Convention, colour: str
    ) -> None:
        self._decoder, self._levels = decoder, LEVELS[colour]
        self._computes = {name: convention.computes[name] for name in names}
        self._side_by_side = convention.side_by_side
        self._numbers: tuple[int, ...] = ()
        self._sources: list[tuple[Grey, Grey]] = []

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """(N,) values by name.

        Raises:
            BrokenFileError: A file is broken, or values are out of range.
        """
        self._decoder.begin(batch)
        # Of several pairs the sources stand beside their fused images, so those must be the same.
        numbers = batch.sources if len(batch.sources) == 1 else batch.pairs
        if self._numbers != numbers:
            ir, vis = (self._levels(images) for images in self._decoder.sources(batch))
            if len(batch.sources) > 1:
                pair = batch.pair.to(ir.device)
                ir, vis = ir[:, pair], vis[:, pair]
            self._numbers = numbers
            self._sources = [(Grey(one), Grey(other)) for one, other in zip(ir, vis, strict=True)]
        fused = map(Grey, self._levels(self._decoder.fused(batch)))
        planes = [(*pair, one) for pair, one in zip(self._sources, fused, strict=True)]
        return {
            name: torch.stack([compute(*one) for one in self._seen_by(name, planes)]).mean(0)
            for name, compute in self._computes.items()
        }

    def forget(self) -> None:
        """Free the memory of the sources."""
        self._numbers, self._sources = (), []
        torch.cuda.empty_cache()  # does nothing without CUDA

    def _seen_by(self, name: str, planes: Planes) -> Planes:
        if name not in self._side_by_side:
            return planes
        ir, vis, fused = (
            Grey(torch.cat([one.pixels for one in channels], -1))
            for channels in zip(*planes, strict=True)
        )
        return [(ir, vis, fused)]
