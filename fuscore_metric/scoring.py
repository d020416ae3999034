"""The friendly doors: anything that holds images -> scores. A thin shell over `FuScore.forward`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from fuscore_metric.checkpoints.spec import EMBEDDED
from fuscore_metric.checkpoints.weights import weights_name
from fuscore_metric.compute.forking import in_forked, outlast_fork
from fuscore_metric.compute.placement import check_device, default_device, to_device
from fuscore_metric.images.batches import Batch, Decoder, plan, work_through
from fuscore_metric.images.convert import ImagesLike
from fuscore_metric.images.cropping import check_resize
from fuscore_metric.images.doubts import Doubts
from fuscore_metric.images.lazy import Picture, open_triples, source_pairs
from fuscore_metric.images.thermal_range import ThermalRange, check_thermal_range
from fuscore_metric.model import FuScore, ModelLike
from fuscore_metric.outputs import FuScoreOutput, SourcePairs
from fuscore_metric.prompts import OVERALL, Asked

DEFAULT_BATCH_SIZE = 8


def score(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    model: ModelLike = EMBEDDED,
    aspect: str | None = None,
    aspects: Sequence[str] | None = None,
    device: str | int | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
) -> Tensor:
    """Score how good a person would find each fusion.

    Each of the three arguments is one image, a batch, or anything that yields images, such as a
    list; all three hold equally many, or the sources one image each for all of `fused`. A source
    pair that comes again is encoded once. An image is a file (a path, an open file, bytes), a PIL
    image, a numpy array (HW, HWC; uint8, uint16, float in [0, 1]) or a tensor (CHW, NCHW); see
    `fuscore_metric.as_images` for what the numbers mean. The three images of a triple have one
    size; triples may differ in size.

    A `UserWarning` is given, once, if an infrared image has colours and its visible one has none,
    and if EXIF turns only some of a triple's images.

    Threads may call this at the same time. Start processes by "spawn" or "forkserver": in one that
    was forked only one thread can compute, and a warning says so.

    Args:
        ir: Infrared image(s).
        vis: Visible image(s) of the same scene(s).
        fused: Fusion(s) of the two.
        model: "embedded", a directory or a hub id, or a `FuScore`. What is named is
            loaded once per device and kept, the last two of all such models, and loaded again if
            the directory's files change. For another `revision`, `dtype` or `adapter`, load it
            with `FuScore.from_pretrained` and give that.
        aspect: `overall` (the default), `thermal_retention`, `texture_preservation`, `artifacts`
            (higher = fewer) or `sharpness`: scores are (N,).
        aspects: Instead of it, A of these names, such as `fuscore_metric.prompts.ASPECTS`: scores
            are (N, A) in the order given, also for one name. The images are encoded once for all.
        device: Where to compute; a `FuScore` that is given has to be there. A model that is named
            is loaded there, by default where `fused` is, if that is a tensor, else on a GPU where
            CUDA is available and on the CPU where it is not. "cpu" forces the CPU, 0 is the first
            GPU.
        batch_size: Triples computed at once. Does not change the scores.
        thermal_range: (low, high) of `ir` in counts or degrees: what lies between them is mapped to
            [0, 1], what lies beyond is clipped. Without it, `ir` of floats lies in [0, 1] and that
            of counts is scaled by its own range.
        resize: "crop" for fused images that their method cropped, such as to a multiple of 16: the
            sources are cropped alike, at the place that is found by content, with a `UserWarning`.
            None refuses images of different sizes.

    Returns:
        (N,) float32 scores in [1, 5], higher is better, on the model's device; (N, A) for
        `aspects`. Differentiable if an input tensor requires gradients.

    Raises:
        InputError: An image cannot be used; one line that names the argument.
        CheckpointError: No such weights, or weights that this version cannot use.
        ValueError: An unknown aspect, both `aspect` and `aspects`, a bad batch size or thermal
            range, or a device that cannot be used here.

    Example:
        >>> import fuscore_metric
        >>> fuscore_metric.score("ir.png", "vis.png", "fused_good.png")
        tensor([3.9019])
        >>> fuscore_metric.score("ir.png", "vis.png", ["fused_good.png", "fused_noisy.png"])
        tensor([3.9019, 1.9105])
    """
    return predict(
        ir,
        vis,
        fused,
        model=model,
        aspect=aspect,
        aspects=aspects,
        device=device,
        batch_size=batch_size,
        thermal_range=thermal_range,
        resize=resize,
    ).score


def predict(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    model: ModelLike = EMBEDDED,
    aspect: str | None = None,
    aspects: Sequence[str] | None = None,
    device: str | int | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
) -> FuScoreOutput:
    """Like `score`, with standard deviations, level probabilities and level logits.

    Takes the arguments of `score` and raises what it raises.

    Returns:
        A `FuScoreOutput` of N triples, in the order given.

    Example:
        >>> from fuscore_metric import predict
        >>> output = predict("ir.png", "vis.png", ["fused_good.png", "fused_noisy.png"])
        >>> output
        FuScoreOutput(score=tensor([3.9019, 1.9105]), std=tensor([0.5220, 0.8240]))
        >>> output.probabilities.shape  # of bad, poor, fair, good, excellent
        torch.Size([2, 5])
    """
    asked = Asked.of(aspect, aspects)
    check_request(batch_size, thermal_range, resize)
    triples = open_triples(ir, vis, fused, thermal_range=thermal_range, resize=resize)
    model = choose_model(model, triples, device)
    return score_triples(triples, model, asked, batch_size=batch_size)


def check_request(
    batch_size: int, thermal_range: ThermalRange | None = None, resize: str | None = None
) -> None:
    """Refuse wrong options before any image is opened, and make sure that this process can compute.

    Raises:
        ValueError: A batch size that is not a positive integer, a thermal range that is not two
            numbers, the lower one first, or an unknown way to resize.
    """
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be a positive integer, got {batch_size!r}")
    check_thermal_range(thermal_range)
    check_resize(resize)
    outlast_fork()


def choose_model(
    model: ModelLike,
    triples: Sequence[tuple[Picture, Picture, Picture]],
    device: str | int | torch.device | None,
) -> FuScore:
    """The given model, or that of a name on a device: by default where fused tensors are.

    Raises:
        CheckpointError: No such weights.
        TypeError: It is not a model, a name or a path.
        ValueError: The given model is on another device than the given one.
    """
    if isinstance(model, FuScore):
        if device is not None and check_device(device) != model.device:
            raise ValueError(
                f"Expected `device` as that of `model`, {model.device}, got {str(device)!r}: "
                "use model.to(device)"
            )
        return model
    if device is None:
        device = triples[0][2].device or default_device()
    return shared_model(weights_name(model), device)


def score_triples(
    triples: Sequence[tuple[Picture, Picture, Picture]],
    model: FuScore,
    asked: Asked = OVERALL,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> FuScoreOutput:
    """Score triples that `images.lazy.open_triples` opened; each source pair is encoded once.

    Where memory runs out, batches become smaller and what is done is kept. If something else stops
    it midway, the exception's attribute `scored` has the outputs so far by row number.

    Returns:
        A `FuScoreOutput` of N triples, in the order given, with the rank that was asked for.

    Raises:
        InputError: A file turns out to be broken.
    """
    outputs: list[tuple[tuple[int, ...], FuScoreOutput]] = []
    try:
        with closing(score_each(triples, model, asked.aspects, batch_size=batch_size)) as scored:
            for batch, output in scored:
                if isinstance(output, Exception):
                    raise output
                outputs.append((batch.rows, output.as_asked(asked)))
    except BaseException as error:
        by_row = {row: output[n] for rows, output in outputs for n, row in enumerate(rows)}
        error.scored = by_row  # type: ignore[attr-defined]
        raise
    return _joined(outputs)


def score_each(
    triples: Sequence[tuple[Picture, Picture, Picture]],
    model: FuScore,
    aspects: tuple[str, ...] = OVERALL.aspects,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    doubts: Doubts | None = None,
) -> Generator[tuple[Batch, FuScoreOutput | Exception]]:
    """Score triples batch after batch, going on after those that cannot be scored.

    A batch that does not fit into memory is cut in two. Odd triples are warned of, only once where
    several calls share their `doubts`.

    Yields:
        A batch, whose `rows` are places in `triples`, and the output of its triples, or what kept
        them from being scored: a broken file, or no memory for a single one.
    """
    outlast_fork()
    doubts = doubts or Doubts()
    # What the headers tell is warned of before anything is decoded or computed.
    doubts.turned(triples)
    doubts.cropped(triples)
    needs_graph = any(
        isinstance(picture.source, Tensor) and picture.source.requires_grad
        for triple in triples
        for picture in triple
    )
    # Batches are planned for all triples at once, so that those of one source pair follow each
    # other: the scorer then encodes each pair a single time.
    batches = plan([fused.shape for _, _, fused in triples], source_pairs(triples), batch_size)
    device = model.device
    ahead = device.type != "cpu"  # on a CPU they would compete for its cores
    with Decoder(triples, batches, ahead=ahead, device=device, doubts=doubts) as decoder:
        scorer = _Scorer(model, decoder)

        def work(batch: Batch) -> FuScoreOutput:
            # Not around the loop: the caller's code between two batches would run in this mode.
            with torch.set_grad_enabled(needs_graph and torch.is_grad_enabled()):
                return scorer.score(batch, aspects)

        yield from work_through(batches, work, scorer.forget)


class _Scorer:
    """Scores batches, and holds on to the source pairs of the last one for the next."""

    def __init__(self, model: FuScore, decoder: Decoder) -> None:
        self.model, self.decoder = model, decoder
        self._numbers: tuple[int, ...] = ()
        self._sources: SourcePairs | None = None

    def score(self, batch: Batch, aspects: tuple[str, ...]) -> FuScoreOutput:
        """Score a batch whose images the decoder has: fields (N, A)."""
        self.decoder.begin(batch)
        if self._sources is None or self._numbers != batch.sources:
            self._sources = None  # its memory is free before the next pairs are read
            ir, vis = self.decoder.sources(batch)
            self._numbers, self._sources = batch.sources, self.model.encode_sources(ir, vis)
        fused = self.decoder.fused(batch)
        return self.model.score_fused(self._sources, fused, aspects=aspects, pair=batch.pair)

    def forget(self) -> None:
        """Free the memory of the source pairs."""
        self._sources = None
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _joined(outputs: Sequence[tuple[tuple[int, ...], FuScoreOutput]]) -> FuScoreOutput:
    """Outputs of batches, with the row numbers of their triples -> one output in their order."""
    order = torch.tensor([row for rows, _ in outputs for row in rows], device="cpu")
    joined = FuScoreOutput.joined([output for _, output in outputs])
    if torch.equal(order, torch.arange(len(order), device="cpu")):
        return joined
    return joined[to_device(order.argsort(), joined.score.device)]


def shared_model(name: str, device: str | int | torch.device) -> FuScore:
    """The model of a name on a device, loaded once per process, however many threads ask for it.

    It is kept, so that repeated calls do not load it again, and is never handed out: a caller who
    moved it would move it for all. This is the package's only state beside what `forking` keeps
    about the process.

    Args:
        name: "embedded", a directory or a hub id.
        device: Where it is loaded.

    Raises:
        CheckpointError: No such weights.
        ValueError: PyTorch cannot use the device.
    """
    place = str(check_device(device))  # "cuda" and "cuda:0" are one
    files: tuple[tuple[str, int, int], ...] = ()
    folder = Path(name).expanduser()
    if name != EMBEDDED and folder.is_dir():
        name = str(folder.resolve())
        # After further training that was saved to the same place, the new weights are meant.
        found = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
        files = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in found)
    with _loading:  # the cache alone would let two threads load at the same time
        return _load_shared(name, place, files)


_loading = Lock()


def _unlock() -> None:
    """In a forked process: the thread that was loading, and held the lock, is not there."""
    global _loading
    _loading = Lock()


in_forked(_unlock)


@lru_cache(maxsize=2)
def _load_shared(name: str, device: str, files: tuple[tuple[str, int, int], ...]) -> FuScore:
    del files  # a part of the key
    return FuScore.from_pretrained(name, device=device)
