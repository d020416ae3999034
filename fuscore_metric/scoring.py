"""The friendly doors: anything that holds images -> scores. A thin shell over `FuScore.forward`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import fields
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from fuscore_metric.batches import Batch, BrokenFileError, Decoder, plan
from fuscore_metric.doubts import Doubts
from fuscore_metric.forking import in_forked, outlast_fork
from fuscore_metric.images import ImagesLike
from fuscore_metric.model import FuScore, FuScoreOutput, SourcePairs
from fuscore_metric.pictures import Picture, open_triples, source_pairs
from fuscore_metric.placement import check_device, default_device, to_device
from fuscore_metric.prompts import ALL_ASPECTS, DEFAULT_ASPECT, build_prompt
from fuscore_metric.thermal_range import ThermalRange, check_thermal_range

log = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 8


def score(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    model: FuScore | None = None,
    aspect: str = DEFAULT_ASPECT,
    device: str | int | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
) -> Tensor:
    """Say how good a person would find each fusion.

    Each of the three arguments is one image, a batch, or anything that yields images, such as a
    list; all three hold equally many, or the sources one image each for all of `fused`. A source
    pair that comes again is read once. An image is a file (a path, an open file, bytes), a PIL
    image, a numpy array (HW, HWC; uint8, uint16, float in [0, 1]) or a tensor (CHW, NCHW); see
    `fuscore_metric.images.as_images` for what the numbers mean. The three images of a triple have
    one size; triples may differ in size.

    A `UserWarning` says, once, if an infrared image has colours and its visible one has none, and
    if EXIF turns only some of a triple's images.

    Threads may call this at the same time. Start processes by "spawn" or "forkserver": in one that
    was forked only one thread can compute, and a warning says so.

    Args:
        ir: Infrared image(s).
        vis: Visible image(s) of the same scene(s).
        fused: Fusion(s) of the two.
        model: What judges; the embedded weights by default, loaded once a device.
        aspect: `overall`, `thermal_retention`, `texture_preservation`, `artifacts` (higher =
            fewer) or `sharpness`; "all" for the five in this order, from one look at the images.
        device: Where to compute; a `model` that is given has to be there. Without one, by default
            where `fused` is, if that is a tensor, else on a GPU where CUDA is available and on the
            CPU where it is not. "cpu" forces the CPU, 0 is the first GPU.
        batch_size: Triples computed at once. Does not change the scores.
        thermal_range: (low, high) of `ir` in counts or degrees: what lies between them is mapped to
            [0, 1], what lies beyond is clipped. Without it, `ir` of floats lies in [0, 1] and that
            of counts is scaled by its own range.

    Returns:
        (N,) float32 scores in [1, 5], higher is better, on the model's device; (N, 5) of "all".
        Differentiable if an input tensor requires gradients.

    Raises:
        InputError: An image cannot be used; one line that names the argument.
        ValueError: An unknown aspect, a bad batch size or thermal range, or a device that cannot be
            used here.
    """
    return predict(
        ir,
        vis,
        fused,
        model=model,
        aspect=aspect,
        device=device,
        batch_size=batch_size,
        thermal_range=thermal_range,
    ).score


def predict(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    model: FuScore | None = None,
    aspect: str = DEFAULT_ASPECT,
    device: str | int | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
) -> FuScoreOutput:
    """Like `score`, with standard deviations, level probabilities and level logits.

    Takes the arguments of `score` and raises what it raises.

    Returns:
        A `FuScoreOutput` of N triples, in the order given.
    """
    check_request(aspect, batch_size, thermal_range)
    triples = open_triples(ir, vis, fused, thermal_range=thermal_range)
    model = choose_model(model, triples, device)
    return judge(triples, model, aspect=aspect, batch_size=batch_size)


def check_request(aspect: str, batch_size: int, thermal_range: ThermalRange | None = None) -> None:
    """Refuse wrong options before any image is opened, and see that this process can compute.

    Raises:
        ValueError: An unknown aspect, a batch size that is no positive integer, or a thermal range
            that is not two numbers, the lower one first.
    """
    if aspect != ALL_ASPECTS:
        build_prompt(aspect)
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be a positive integer, got {batch_size!r}")
    check_thermal_range(thermal_range)
    outlast_fork()


def choose_model(
    model: FuScore | None,
    triples: Sequence[tuple[Picture, Picture, Picture]],
    device: str | int | torch.device | None,
) -> FuScore:
    """The given model, or the embedded one on a device: by default where fused tensors are.

    Raises:
        ValueError: The given model is on another device than the given one.
    """
    if model is not None:
        if device is not None and check_device(device) != model.device:
            raise ValueError(
                f"Expected `device` as that of `model`, {model.device}, got {str(device)!r}: "
                "use model.to(device)"
            )
        return model
    if device is None:
        device = triples[0][2].device or default_device()
    return default_model(device)


def judge(
    triples: Sequence[tuple[Picture, Picture, Picture]],
    model: FuScore,
    *,
    aspect: str = DEFAULT_ASPECT,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> FuScoreOutput:
    """Judge triples that `pictures.open_triples` opened, each source pair read once.

    Where memory runs out, batches become smaller and what is done is kept. Whatever else stops it
    midway, the exception's attribute `scored` has the outputs so far by row number.

    Returns:
        A `FuScoreOutput` of N triples, in the order given.

    Raises:
        InputError: A file turns out to be broken.
    """
    outputs: list[tuple[tuple[int, ...], FuScoreOutput]] = []
    try:
        with closing(judge_each(triples, model, aspect=aspect, batch_size=batch_size)) as judged:
            for batch, output in judged:
                if isinstance(output, Exception):
                    raise output
                outputs.append((batch.rows, output))
    except BaseException as error:
        by_row = {row: output[n] for rows, output in outputs for n, row in enumerate(rows)}
        error.scored = by_row  # type: ignore[attr-defined]
        raise
    return _joined(outputs)


def judge_each(
    triples: Sequence[tuple[Picture, Picture, Picture]],
    model: FuScore,
    *,
    aspect: str = DEFAULT_ASPECT,
    batch_size: int = DEFAULT_BATCH_SIZE,
    doubts: Doubts | None = None,
) -> Generator[tuple[Batch, FuScoreOutput | Exception]]:
    """Judge triples batch after batch, going on after those that cannot be judged.

    A batch that does not fit into memory is cut in two. What looks odd is warned of, through
    `doubts` of several calls only once.

    Yields:
        A batch, whose `rows` are places in `triples`, and the output of its triples, or what kept
        them from being judged: a broken file, or no memory for a single one.
    """
    outlast_fork()
    doubts = doubts or Doubts()
    doubts.turned(triples)
    needs_graph = any(
        isinstance(picture.source, Tensor) and picture.source.requires_grad
        for triple in triples
        for picture in triple
    )
    batches = plan([fused.shape for _, _, fused in triples], source_pairs(triples), batch_size)
    device = model.device
    ahead = device.type != "cpu"
    with Decoder(triples, batches, ahead=ahead, device=device, doubts=doubts) as decoder:
        waiting, reader = deque(batches), _Reader(model, decoder)
        while waiting:
            batch = waiting.popleft()
            output: FuScoreOutput | Exception | None = None
            try:
                # Not around the loop: the mode would hold for whoever takes from this generator.
                with torch.set_grad_enabled(needs_graph and torch.is_grad_enabled()):
                    output = reader.judge(batch, aspect)
            except BrokenFileError as error:
                broken, sound = batch.part(error.rows)
                if sound is not None:
                    waiting.appendleft(sound)
                batch, output = broken, error
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(batch.rows) == 1:
                    output = error
            if output is not None:
                yield batch, output
                continue
            # Out here, because an exception holds on to all that was computed.
            reader.forget()
            count = len(batch.rows)
            size = -(-count // 2)
            log.warning("out of memory with %d triples at once, going on with %d", count, size)
            waiting = deque(part for whole in (batch, *waiting) for part in whole.split(size))


class _Reader:
    """Judges batches, and holds on to the source pairs of the last one for the next."""

    def __init__(self, model: FuScore, decoder: Decoder) -> None:
        self.model, self.decoder = model, decoder
        self._numbers: tuple[int, ...] = ()
        self._sources: SourcePairs | None = None

    def judge(self, batch: Batch, aspect: str) -> FuScoreOutput:
        """Judge a batch whose images the decoder has."""
        self.decoder.begin(batch)
        if self._sources is None or self._numbers != batch.sources:
            self._sources = None  # its memory is free before the next pairs are read
            ir, vis = self.decoder.sources(batch)
            self._numbers, self._sources = batch.sources, self.model.read(ir, vis)
        return self.model.judge(self._sources, self.decoder.fused(batch), aspect, batch.pair)

    def forget(self) -> None:
        """Free the memory of the source pairs."""
        self._sources = None
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU."""
    # torch has no class of its own for the CPU, nor for a kernel that CUDA cannot load any more.
    said = ("DefaultCPUAllocator", "CUDA error: out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def _joined(outputs: Sequence[tuple[tuple[int, ...], FuScoreOutput]]) -> FuScoreOutput:
    """Outputs of batches, with the row numbers of their triples -> one output in their order."""
    order = torch.tensor([row for rows, _ in outputs for row in rows], device="cpu")
    parts = (
        torch.cat([getattr(output, field.name) for _, output in outputs])
        for field in fields(FuScoreOutput)
    )
    if torch.equal(order, torch.arange(len(order), device="cpu")):
        return FuScoreOutput(*parts)
    back = to_device(order.argsort(), outputs[0][1].score.device)
    return FuScoreOutput(*(part[back] for part in parts))


def default_model(device: str | int | torch.device) -> FuScore:
    """The embedded model on a device, loaded once a process, however many threads ask for it.

    It is kept, so that repeated calls do not load it again. The cache's key is the device's name,
    with its number. It is the package's only state, but for what `forking` knows of the process.

    Raises:
        ValueError: PyTorch cannot use the device.
    """
    name = str(check_device(device))  # "cuda" and "cuda:0" are one
    with _loading:  # the cache alone would let two threads load at the same time
        return _load_default(name)


_loading = Lock()


def _unlock() -> None:
    """In a forked process: the thread that was loading, and held the lock, is not there."""
    global _loading
    _loading = Lock()


in_forked(_unlock)


@lru_cache(maxsize=2)
def _load_default(device: str) -> FuScore:
    return FuScore.from_pretrained(device=device)
