"""FuScore: (ir, vis, fused) -> level logits -> probabilities -> score, for tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from typing_extensions import Self

from fuscore_metric.attribution import DEFAULT_STEPS, attribute
from fuscore_metric.backbones.base import Backbone, Encoded, checked_pairs
from fuscore_metric.checkpoints.spec import EMBEDDED, FuScoreSpec
from fuscore_metric.checkpoints.weights import load, push, save
from fuscore_metric.compute.forking import outlast_fork
from fuscore_metric.compute.own_terms import on_own_terms, own_terms, with_own_gradient
from fuscore_metric.errors import InputError
from fuscore_metric.images.checks import check_batch, check_batches, check_sources, to_batch
from fuscore_metric.images.convert import ImagesLike
from fuscore_metric.images.doubts import Doubts
from fuscore_metric.images.lazy import load_triples
from fuscore_metric.images.range_guard import RangeGuard
from fuscore_metric.levels import SCORE_RANGE
from fuscore_metric.outputs import FuScoreOutput, SourcePairs
from fuscore_metric.prompts import DEFAULT_ASPECT, Asked


class FuScore(nn.Module):
    """A frozen, differentiable metric of infrared-visible image fusion.

    Always in eval mode, also inside a parent that is switched to training; its parameters do not
    require gradients, its inputs may.

    Args:
        backbone: The multimodal LLM.
        spec: What its weights are and were trained on.

    Example:
        >>> from fuscore_metric import FuScore
        >>> model = FuScore.from_pretrained("embedded", device="cpu")
        >>> model
        FuScore(fuscore-lite-5, lite_llama, cpu, float32)
        >>> model("ir.png", "vis.png", "fused_good.png")
        FuScoreOutput(score=tensor([3.9019]), std=tensor([0.5220]))
    """

    higher_is_better = True
    is_differentiable = True
    score_range = SCORE_RANGE

    def __init__(self, backbone: Backbone, spec: FuScoreSpec) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.spec = spec
        self._ranges, self._doubts = RangeGuard(), Doubts()
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
        backbone, spec = load(
            name_or_path,
            revision=revision,
            adapter=adapter,
            adapter_revision=adapter_revision,
            device=device,
            dtype=dtype,
            device_map=device_map,
            quantize=quantize,
            local_files_only=local_files_only,
        )
        return cls(backbone, spec)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a checkpoint that `from_pretrained` reads: safetensors and `fuscore.json`.

        Of a model with an adapter, the adapter alone; `merge` first to have all weights in one. An
        earlier checkpoint in the directory is replaced once all is written.

        Raises:
            ValueError: The weights are quantised.
        """
        save(self.backbone, self.spec, Path(directory))

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
        return push(
            self.backbone, self.spec, repo_id, card, private=private, revision=revision, token=token
        )

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
        """Stay in eval mode: a metric does not change with its parent's mode."""
        del mode
        return super().train(False)

    def forward(
        self,
        ir: ImagesLike,
        vis: ImagesLike,
        fused: ImagesLike,
        *,
        aspect: str | None = None,
        aspects: Sequence[str] | None = None,
    ) -> FuScoreOutput:
        """Score a batch of triples; differentiable with respect to all three images.

        Files, PIL images, arrays and lists are read as `fuscore_metric.predict` reads them. Three
        tensors are taken as they are, and have to be as described below.

        What the caller has set in PyTorch (autocast, default dtype and device, inference mode)
        changes neither scores nor gradients. A gradient of second order is refused.

        Values far outside [0, 1] are refused; `fuscore_metric.score` is stricter. On a GPU, which
        should not wait at every step, batches after the first are found wrong a call or more late.

        Args:
            ir: (N, 3, H, W) float in [0, 1], on the model's device; or (1, 3, H, W): one for all.
            vis: As many as `ir`.
            fused: (N, 3, H, W), likewise.
            aspect: One of `fuscore_metric.prompts.ASPECTS`, by default `overall`: every field of
                the result is (N, ...).
            aspects: Instead of it, A of them: the images are encoded once for all, and every field
                is (N, A, ...) in this order.

        Raises:
            InputError: A shape, dtype, range or device is wrong, or the three differ in shape.
            ValueError: An aspect is unknown, or both `aspect` and `aspects` are given.
            RuntimeError: Inside `torch.jit.trace` or `torch.export`.
        """
        if isinstance(ir, Tensor) and isinstance(vis, Tensor) and isinstance(fused, Tensor):
            check_sources(ir, vis, fused)
            sources = self.encode_sources(ir, vis)
            self._warn_if_swapped(ir, vis)
            return self.score_fused(sources, fused, aspect=aspect, aspects=aspects)
        from fuscore_metric.scoring import predict  # which needs this module

        return predict(ir, vis, fused, model=self, aspect=aspect, aspects=aspects)

    @on_own_terms
    def encode_sources(self, ir: Tensor, vis: Tensor) -> SourcePairs:
        """Encode U source pairs for `score_fused`, which may be called with them many times.

        All that does not depend on `fused` is computed once, at the first `score_fused`, and kept:
        what the vision part returned, and the language part's keys and values. Many fused images of
        one source pair cost little more than themselves. (On a CPU the embedded family keeps the
        maps of a single pair, which are large; of several pairs each `score_fused` computes them
        anew.)
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
        encoded = self.backbone.encode_sources(*leaves)
        return SourcePairs(len(ir), size, encoded, images=(ir, vis), leaves=leaves)

    @on_own_terms
    def score_fused(
        self,
        sources: SourcePairs,
        fused: Tensor,
        *,
        aspect: str | None = None,
        aspects: Sequence[str] | None = None,
        pair: Tensor | None = None,
    ) -> FuScoreOutput:
        """Score fused images beside sources that were encoded before.

        Differentiable with respect to `fused`, and to the sources if they were encoded with a
        graph.

        Args:
            sources: What `encode_sources` returned.
            fused: (N, 3, H, W) float in [0, 1], on the model's device.
            aspect: As in `forward`.
            aspects: As in `forward`.
            pair: (N,) int64: the source pair, in [0, U), of each. May be left out if there is one
                pair for all, or one for each.

        Raises:
            InputError: A shape, dtype, range or device is wrong, or the images differ in size.
            ValueError: An aspect is unknown, both `aspect` and `aspects` are given, or `pair` does
                not fit.
        """
        outlast_fork()
        asked = Asked.of(aspect, aspects)
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
            sources = replace(sources, encoded=copy(sources.encoded))
        which = checked_pairs(pair, len(sources), len(fused))

        def level_logits(fused: Tensor) -> Tensor:
            encoded: Encoded = self.backbone.encode_fused(sources.encoded, fused, which)
            if sources.prefix is None:
                sources.prefix = self.backbone.read_sources(encoded)
            return self.backbone.aspect_logits(encoded, asked.aspects, sources.prefix)

        logits = with_own_gradient(level_logits, fused, sources.images, sources.leaves)
        output = FuScoreOutput.from_logits(
            logits, temperature=self.spec.temperature, aspects=asked.aspects
        )
        return output.as_asked(asked)

    def read(self, ir: Tensor, vis: Tensor) -> SourcePairs:
        """Old name of `encode_sources`; it goes with the next version."""
        _renamed("read", "encode_sources")
        return self.encode_sources(ir, vis)

    def judge(self, *args: Any, **options: Any) -> FuScoreOutput:
        """Old name of `score_fused`; it goes with the next version."""
        _renamed("judge", "score_fused")
        return self.score_fused(*args, **options)

    def _check_content(self, **images: Tensor) -> None:
        for name, batch in images.items():
            if batch.device != self.device:
                raise InputError(
                    f"Expected `{name}` on the model's device {self.device}, got {batch.device}: "
                    f"use .to({str(self.device)!r}), or fuscore_metric.score, which does it"
                )
            self._ranges.check(batch, name)

    @on_own_terms
    def _warn_if_swapped(self, ir: Tensor, vis: Tensor) -> None:
        """Warn, once in this model's life, if the first of the sources are probably swapped."""
        if not ir.is_meta:
            self._doubts.swapped("ir", "vis", ir[0], vis[0])

    def attribution(
        self,
        ir: ImagesLike,
        vis: ImagesLike,
        fused: ImagesLike,
        *,
        aspect: str = DEFAULT_ASPECT,
        steps: int = DEFAULT_STEPS,
        baseline: Tensor | None = None,
    ) -> Tensor:
        """Show where `fused` lost its score: see `fuscore_metric.attribution.attribute`.

        Args:
            ir: (N, 3, H, W) float in [0, 1], on the model's device; or anything that
                `fuscore_metric.score` takes, if the triples have one size.
            vis: Likewise.
            fused: Likewise.
            aspect: One of `fuscore_metric.prompts.ASPECTS`.
            steps: Points on the way to the baseline; each costs a forward and a backward pass.
            baseline: (N, 3, H, W) in [0, 1], what to compare with; a plain average of the sources
                by default.

        Returns:
            (N, H, W) float32 >= 0: points of score lost per pixel, smoothed.

        Raises:
            InputError: A shape or dtype is wrong, or the images differ in shape.
            ValueError: An unknown aspect, or `steps` below 1.
        """
        if isinstance(ir, Tensor) and isinstance(vis, Tensor) and isinstance(fused, Tensor):
            check_sources(ir, vis, fused)
            self._warn_if_swapped(ir, vis)
            triples = [ir, vis, fused]
        else:
            columns = load_triples(ir, vis, fused)
            triples = [to_batch(images).to(self.device) for images in columns]
        return attribute(self, *triples, aspect=aspect, steps=steps, baseline=baseline)


ModelLike: TypeAlias = FuScore | str | Path
"""A `FuScore`; or "embedded", a directory or a hub id, whose weights are loaded."""


def _renamed(old: str, new: str) -> None:
    warnings.warn(f"FuScore.{old} is called {new} now", DeprecationWarning, stacklevel=3)
