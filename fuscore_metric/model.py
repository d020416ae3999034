"""FuScore: (ir, vis, fused) -> level logits -> probabilities -> score, for tensors."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, SupportsIndex

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from typing_extensions import Self

from fuscore_metric.attribution import DEFAULT_STEPS, attribute
from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.base import INT8, Backbone, Encoded, own_pairs
from fuscore_metric.backbones.prompt_tree import Prefix
from fuscore_metric.checkpoint import (
    EMBEDDED,
    CheckpointError,
    FuScoreSpec,
    replace_checkpoint,
)
from fuscore_metric.forking import outlast_fork
from fuscore_metric.images import InputError, check_batch, check_batches, check_sources
from fuscore_metric.levels import (
    SCORE_RANGE,
    expected_score,
    level_probabilities,
    preference,
    score_variance,
)
from fuscore_metric.locate import find_checkpoint
from fuscore_metric.notebook import table
from fuscore_metric.own_terms import on_own_terms, own_terms, with_own_gradient
from fuscore_metric.placement import check_device, choose_dtype, default_device
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, DEFAULT_ASPECT, build_prompt
from fuscore_metric.range_guard import RangeGuard

# What readers of files, of JSON and of state dicts raise at damaged or foreign weights.
_LOADING_ERRORS = (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError)


@dataclass(frozen=True, eq=False)
class FuScoreOutput:
    """What FuScore says of a batch of N triples, in float32 whatever the model's dtype.

    Asked for all aspects at once, every field has an axis more: (N, A), in the order of
    `fuscore_metric.prompts.ASPECTS`. `len(output)` is N, and `output[2]`, `output[0:2]` and
    `output[[0, 2]]` are outputs of those triples.

    Attributes:
        score: (N,) expected level in [1, 5], higher is better.
        std: (N,) standard deviation of the level: the model's own uncertainty, in score units.
        probabilities: (N, 5) of bad, poor, fair, good, excellent.
        level_logits: (N, 5) before the softmax.
    """

    score: Tensor
    std: Tensor
    probabilities: Tensor = field(repr=False)
    level_logits: Tensor = field(repr=False)

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
        return type(self)(*(getattr(self, part.name)[rows] for part in fields(self)))

    def _repr_html_(self) -> str:
        return table([str(number) for number in range(len(self))], self)

    def __iter__(self) -> NoReturn:
        """Refuse, where `nn.DataParallel` would take row after row without end."""
        raise TypeError(
            "A FuScoreOutput cannot be iterated over (take rows as output[n]), nor gathered by "
            "nn.DataParallel (wrap a module that returns its `score`, or a FuScoreReward)"
        )

    @classmethod
    def from_logits(cls, level_logits: Tensor) -> Self:
        """Make the output of (N, 5) level logits of any dtype."""
        level_logits = level_logits.float()
        probabilities = level_probabilities(level_logits)
        # The square root's slope is infinite at 0, which a certain answer reaches.
        std = score_variance(probabilities).clamp_min(1e-12).sqrt()
        return cls(expected_score(probabilities), std, probabilities, level_logits)


@dataclass
class SourcePairs:
    """U source pairs as a model has read them: what `FuScore.judge` takes.

    Attributes:
        count: U.
        size: (height, width) of the images, in pixels.
        seen: What the vision part holds of them; its own business.
        prefix: Keys and values of the prompt before `fused`; made at the first `judge`.
        images: (ir, vis), if a gradient of the sources may be asked for.
        leaves: What stands for them in the graph of `seen`.
    """

    count: int
    size: tuple[int, int]
    seen: Any
    prefix: Prefix | None = None
    images: tuple[Tensor, ...] = ()
    leaves: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.count


class FuScore(nn.Module):
    """A frozen, differentiable judge of infrared-visible image fusion.

    Always in eval mode, also inside a parent that is switched to training; its parameters do not
    require gradients, its inputs may.

    Args:
        backbone: The multimodal LLM.
        spec: What its weights are and were trained on.
    """

    higher_is_better = True
    is_differentiable = True
    score_range = SCORE_RANGE

    def __init__(self, backbone: Backbone, spec: FuScoreSpec) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.spec = spec
        self._ranges = RangeGuard()
        self.train(False)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"FuScore({self.spec.name}, {self.spec.family}, {self.device}, {dtype})"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = EMBEDDED,
        *,
        revision: str | None = None,
        adapter: str | Path | None = None,
        adapter_revision: str | None = None,
        device: str | int | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        device_map: str | dict[str, Any] | None = None,
        quantize: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load weights.

        An adapter's checkpoint names its base model and the revision it was trained on; that is
        loaded too. Give `adapter` to take the base model from somewhere else.

        Args:
            name_or_path: "embedded" (comes with the package), a directory, or a hub id; the base
                model's, if `adapter` is given.
            revision: Hub revision; pin a commit hash for scores that must not change.
            adapter: Directory or hub id of an adapter's checkpoint.
            adapter_revision: Its hub revision.
            device: Where to compute: "cpu", "cuda", "cuda:1" or 1, "mps". By default on the GPU
                where CUDA is available, else on the CPU.
            dtype: "float32", "bfloat16", or "float16" for families known to be safe in it. By
                default float32, for the big families bfloat16 on anything but a CPU.
            device_map: Instead of `device`, for a big model over several devices: "auto", or parts
                by name, as accelerate understands it.
            quantize: For big models; moves the scores. "4bit" or "8bit" weights by bitsandbytes, or
                "int8": linear layers in 8 bits on a CPU, which is then the default device: about
                twice as fast, without gradients.
            local_files_only: Never download.

        Raises:
            CheckpointError: No such weights, or weights that this version cannot use.
            ValueError: The device cannot be used here, or an option is not for this family.
            ImportError: An optional library is missing; the message says which.
        """
        if device is not None and device_map is not None:
            raise ValueError("Expected one of `device` and `device_map`, got both")
        outlast_fork()
        found = find_checkpoint(
            str(name_or_path),
            revision=revision,
            adapter=None if adapter is None else str(adapter),
            adapter_revision=adapter_revision,
            local_files_only=local_files_only,
        )
        family = backbone_class(found.spec.family)
        if device is None:
            device = "cpu" if quantize == INT8 else default_device()
        place = check_device(device)
        on_cpu = place.type == "cpu" and (device_map is None or not torch.cuda.is_available())
        dtype = choose_dtype(dtype, family, on_cpu=on_cpu)
        family.check_options(device_map=device_map, quantize=quantize)
        if quantize == INT8 and not (on_cpu and device_map is None):
            raise ValueError("Expected `quantize='int8'` on a CPU; '8bit' is for GPUs")
        if quantize not in (None, INT8) and device_map is None:
            device_map = {"": str(place)}  # quantised weights are made where they stay
        try:
            with own_terms():
                backbone = family.load(
                    found.weights,
                    found.spec.preprocessing,
                    dtype=dtype,
                    device_map=device_map,
                    quantize=quantize,
                )
                if found.adapter is not None:
                    backbone.add_adapter(found.adapter)
                if quantize == INT8:
                    backbone.quantize_linear()
        except (CheckpointError, torch.OutOfMemoryError, ImportError):
            raise
        except _LOADING_ERRORS as error:
            raise CheckpointError(
                f"Cannot load the weights in {str(found.weights)!r}: {' '.join(str(error).split())}"
            ) from error
        return cls(backbone.to(place) if device_map is None else backbone, found.spec)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a checkpoint that `from_pretrained` reads: safetensors and `fuscore.json`.

        Of a model with an adapter, the adapter alone; `merge` first to have all weights in one. An
        earlier checkpoint in the directory is replaced once all is written.

        Raises:
            ValueError: The weights are quantised.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=directory, prefix=".saving-") as folder:
            self.backbone.save(Path(folder))
            self.spec.save(Path(folder))
            replace_checkpoint(Path(folder), directory)

    def merge(self) -> Self:
        """Add the adapter to the weights, in place: one checkpoint, no peft needed.

        In bfloat16 the sum is rounded; load in float32 to merge exactly.

        Raises:
            ValueError: There is no adapter, or the weights are quantised.
        """
        with own_terms():
            self.backbone.merge_adapter()
        self.backbone.requires_grad_(False)
        self.spec = replace(self.spec, weights="merged")
        return self

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str = "",
        private: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ) -> str:
        """Upload this checkpoint, adapter or whole, to the Hugging Face hub.

        Args:
            repo_id: "owner/name"; made if it is not there.
            card: Text of its README.md. By default a few lines, with what the weights were trained
                on; `hub_card/upload.py` in the repository makes a full one.
            private: Whether a new repository is private.
            revision: Branch to write to; made if it is not there.
            token: Access token, by default that of `hf auth login`.

        Returns:
            The new commit's hash: what to pin as `revision`.

        Raises:
            CheckpointError: The hub refuses or cannot be reached; the message says why.
        """
        from fuscore_metric.hub import upload

        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(card or self.spec.short_card(repo_id))
            return upload(Path(folder), repo_id, private=private, revision=revision, token=token)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return self.backbone.dtype

    def compile(self) -> None:
        """Let `torch.compile` speed the model up, in place: see `benchmarks/speed/README.md`.

        The first batches of a new shape take seconds to minutes longer. Needs a C++ compiler on a
        CPU. Scores move by rounding only.
        """
        self.backbone.compile_parts()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: a judge does not change with its parent's mode."""
        del mode
        return super().train(False)

    def forward(
        self, ir: Tensor, vis: Tensor, fused: Tensor, aspect: str = DEFAULT_ASPECT
    ) -> FuScoreOutput:
        """Judge a batch of triples; differentiable with respect to all three images.

        What the caller has set in PyTorch (autocast, default dtype and device, inference mode) does
        not change what is said, nor the gradient. A gradient of second order is refused.

        Values far outside [0, 1] are refused; `fuscore_metric.score` is stricter. On a GPU, which
        should not wait at every step, batches after the first are found wrong a call or more late.

        Args:
            ir: (N, 3, H, W) float in [0, 1], on the model's device; or (1, 3, H, W): one for all.
            vis: As many as `ir`.
            fused: (N, 3, H, W), likewise.
            aspect: One of `fuscore_metric.prompts.ASPECTS`, or "all": the images are read once
                for all five, and every result has a second axis in that order, (N, A, ...).

        Raises:
            InputError: A shape, dtype, range or device is wrong, or the three differ in shape.
            ValueError: The aspect is unknown.
            RuntimeError: Inside `torch.jit.trace` or `torch.export`.
        """
        check_sources(ir, vis, fused)
        return self.judge(self.read(ir, vis), fused, aspect)

    @on_own_terms
    def read(self, ir: Tensor, vis: Tensor) -> SourcePairs:
        """Read U source pairs, for `judge`, which may be called with them many times.

        All that does not depend on `fused` is computed once, at the first `judge`, and kept: what
        the vision part saw, and the language part's keys and values. Many fused images of one
        source pair cost little more than themselves. (On a CPU the embedded family keeps the maps
        of a single pair, which are large; several pairs are looked at anew by each `judge`.)
        Threads may share what this returns.

        Args:
            ir: (U, 3, H, W) float in [0, 1], on the model's device.
            vis: Likewise.

        Raises:
            InputError: A shape, dtype, range or device is wrong, or the two differ in shape.
        """
        outlast_fork()
        check_batches(ir=ir, vis=vis)
        self._check_content(ir=ir, vis=vis)
        size = ir.shape[-2], ir.shape[-1]
        if not (torch.is_grad_enabled() and (ir.requires_grad or vis.requires_grad)):
            return SourcePairs(len(ir), size, self.backbone.encode_sources(ir, vis))
        leaves = tuple(image.detach().requires_grad_(image.requires_grad) for image in (ir, vis))
        seen = self.backbone.encode_sources(*leaves)
        return SourcePairs(len(ir), size, seen, images=(ir, vis), leaves=leaves)

    @on_own_terms
    def judge(
        self,
        sources: SourcePairs,
        fused: Tensor,
        aspect: str = DEFAULT_ASPECT,
        pair: Tensor | None = None,
    ) -> FuScoreOutput:
        """Judge fused images beside sources that were read before.

        Differentiable with respect to `fused`, and to the sources if they were read with a graph.

        Args:
            sources: What `read` returned.
            fused: (N, 3, H, W) float in [0, 1], on the model's device.
            aspect: As in `forward`.
            pair: (N,) int64: the source pair, in [0, U), of each. May be left out if there is one
                pair for all, or one for each.

        Raises:
            InputError: A shape, dtype, range or device is wrong, or the images differ in size.
            ValueError: The aspect is unknown, or `pair` does not say which.
        """
        outlast_fork()
        aspects = ASPECTS if aspect == ALL_ASPECTS else (build_prompt(aspect).aspect,)
        check_batch(fused, "fused")
        self._check_content(fused=fused)
        if torch.is_grad_enabled() and fused.requires_grad and not self.backbone.differentiable:
            raise ValueError("Expected `fused` without gradient: 8-bit linear layers pass none on")
        if tuple(fused.shape[-2:]) != sources.size:
            height, width = sources.size
            raise InputError(
                f"Expected `fused` of the sources' size {height}x{width}, "
                f"got {fused.shape[-2]}x{fused.shape[-1]}"
            )
        if sources.images and not torch.is_grad_enabled():
            # What is kept now has no graph, and would cost a later call its gradient.
            sources = replace(sources, seen=copy(sources.seen))
        which = _pairs(pair, len(sources), len(fused))

        def level_logits(fused: Tensor) -> Tensor:
            encoded: Encoded = self.backbone.encode_fused(sources.seen, fused, which)
            if sources.prefix is None:
                sources.prefix = self.backbone.read_sources(encoded)
            return self.backbone.aspect_logits(encoded, aspects, sources.prefix)

        logits = with_own_gradient(level_logits, fused, sources.images, sources.leaves)
        return FuScoreOutput.from_logits(logits if aspect == ALL_ASPECTS else logits[:, 0])

    def _check_content(self, **images: Tensor) -> None:
        for name, batch in images.items():
            if batch.device != self.device:
                raise InputError(
                    f"Expected `{name}` on the model's device {self.device}, got {batch.device}: "
                    f"use .to({str(self.device)!r}), or fuscore_metric.score, which does it"
                )
            self._ranges.check(batch, name)

    def attribution(
        self,
        ir: Tensor,
        vis: Tensor,
        fused: Tensor,
        aspect: str = DEFAULT_ASPECT,
        *,
        steps: int = DEFAULT_STEPS,
        baseline: Tensor | None = None,
    ) -> Tensor:
        """Show where `fused` lost its score: see `fuscore_metric.attribution.attribute`.

        Returns:
            (N, H, W) float32 >= 0: points of score lost per pixel, smoothed.

        Raises:
            InputError: A shape or dtype is wrong, or the images differ in shape.
            ValueError: An unknown aspect, or `steps` below 1.
        """
        return attribute(self, ir, vis, fused, aspect=aspect, steps=steps, baseline=baseline)

    def preference(self, a: FuScoreOutput, b: FuScoreOutput) -> Tensor:
        """Probability that a person prefers a to b, calibrated by the weights' temperature.

        Args:
            a: What this model said of N triples.
            b: What it said of N others, or of one; of the same or other scenes.

        Returns:
            (N,) in [0, 1]; (N, A) for outputs of all aspects.
        """
        return preference(
            a.score, b.score, a.variance, b.variance, temperature=self.spec.temperature
        )


def _pairs(pair: Tensor | None, count: int, fused: int) -> Tensor:
    """The source pair of each fused image, checked."""
    if pair is None:
        return own_pairs(count, fused)
    if pair.dtype != torch.int64 or tuple(pair.shape) != (fused,):
        raise ValueError(
            f"Expected `pair` as ({fused},) int64, got {tuple(pair.shape)} {pair.dtype}"
        )
    pair = pair.cpu()
    if not 0 <= int(pair.min()) <= int(pair.max()) < count:
        raise ValueError(f"Expected `pair` with values in [0, {count}), got {pair.tolist()}")
    return pair
