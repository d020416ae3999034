"""FuScore as metrics of pyiqa: `fuscore` (sources by keyword), `fuscore_fr` (sources side by side).

    import pyiqa, fuscore_metric
    metric = pyiqa.create_metric("fuscore")
    metric(fused, ir=ir, vis=vis)  # (N,)

pyiqa's wrapper reads, checks and moves only its own `target`, by its own rules: 16-bit files
saturate, lists fail, half precision fails at 1.0. So that one image has one score whichever door it
takes, a hook on the wrapper hands our network what the caller gave, and `as_images` reads it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from fuscore_metric.backbones.base import Backbone
from fuscore_metric.checkpoints.spec import EMBEDDED, FuScoreSpec
from fuscore_metric.errors import InputError
from fuscore_metric.images.convert import ImagesLike, as_images
from fuscore_metric.images.lazy import open_triples
from fuscore_metric.images.range_guard import RangeGuard
from fuscore_metric.integrations.guest import GuestModel
from fuscore_metric.model import FuScore
from fuscore_metric.prompts import DEFAULT_ASPECT, Asked, build_prompt
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, check_request, score_triples

SCORE_RANGE_TEXT = "1, 5"
MODES = {"fuscore": "NR", "fuscore_fr": "FR"}
"""FuScore has no reference image: to pyiqa it is a no-reference metric with two more arguments."""
ARCHITECTURE = "FuScoreArch"
MadeModel: TypeAlias = Callable[[], FuScore | Backbone]
HOW_TO_PASS = (
    "metric(fused, ir=ir, vis=vis), or use 'fuscore_fr' with ir (left) and vis (right) side by "
    "side in one reference image"
)


def register() -> None:
    """Put `fuscore` and `fuscore_fr` into pyiqa's tables. Any number of times.

    Called when `fuscore_metric` and pyiqa are both imported, and by pyiqa's plugin entry point.

    Raises:
        ImportError: pyiqa is not installed.
    """
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY

    # Before the configs: pyiqa may build a metric as soon as its name is there.
    ARCH_REGISTRY.register(FuScoreArch, name=ARCHITECTURE, override=True)
    for name, mode in MODES.items():
        DEFAULT_CONFIGS[name] = {
            "metric_opts": {"type": ARCHITECTURE, "side_by_side": mode == "FR"},
            "metric_mode": mode,
            "score_range": SCORE_RANGE_TEXT,
            "lower_better": False,
        }


class FuScoreArch(nn.Module):
    """What pyiqa builds for `create_metric("fuscore", ...)`; its arguments are these.

    Args:
        model: "embedded", a directory or a hub id; or a function without arguments that returns a
            `FuScore` or a `Backbone`. A function, because pyiqa deep-copies its arguments, and
            with them a model given as such: `model=lambda: mine`.
        revision: Hub revision of a model that is named.
        dtype: "float32" (default), "bfloat16"; "float16" where the family allows it.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        batch_size: Triples computed at once.
        side_by_side: The sources come as one reference image; set by `fuscore_fr`.
        weights: Old name of `model`.
        backbone: Another old name of `model`.

    Raises:
        CheckpointError: No such weights.
        ValueError: An unknown aspect; several have no (N,) result.
        TypeError: `model` is neither a name, a path nor a function, or the function returns
            something else.
    """

    def __init__(
        self,
        *,
        model: str | Path | MadeModel = EMBEDDED,
        revision: str | None = None,
        dtype: str | torch.dtype | None = None,
        aspect: str = DEFAULT_ASPECT,
        batch_size: int = DEFAULT_BATCH_SIZE,
        side_by_side: bool = False,
        weights: str | Path | None = None,
        backbone: MadeModel | None = None,
    ) -> None:
        super().__init__()
        build_prompt(aspect)
        for name, old in (("weights", weights), ("backbone", backbone)):
            if old is not None:
                warnings.warn(f"`{name}` is called `model` now", DeprecationWarning, stacklevel=2)
                model = old
        self.aspect, self.batch_size, self.side_by_side = aspect, batch_size, side_by_side
        if isinstance(model, (str, Path)):
            loaded = FuScore.from_pretrained(model, revision=revision, dtype=dtype)
        else:
            loaded = _made_by(model)
        self.guest = GuestModel(loaded)
        _watch_wrappers()

    def forward(
        self,
        target: ImagesLike,
        reference: ImagesLike | None = None,
        *,
        ir: ImagesLike | None = None,
        vis: ImagesLike | None = None,
        unread: _Unread | None = None,
    ) -> Tensor:
        """Score fusions.

        Args:
            target: Fused image(s), in any form that `fuscore_metric.score` takes.
            reference: `fuscore_fr` only: the sources of each, ir left and vis right.
            ir: `fuscore` only: infrared image(s), likewise; no gradient reaches them.
            vis: `fuscore` only: visible image(s), likewise.
            unread: Stands for `target` and `reference`, if the wrapper hands it over.

        Returns:
            (N,) float32 in [1, 5], on the device of `target` if that is a tensor, else on the
            model's.

        Raises:
            InputError: Sources are missing, or an image cannot be used.
        """
        if unread is not None:
            target, reference = unread.fused(), unread.reference
        check_request(self.batch_size)
        triples = [
            (ir_picture.detached(), vis_picture.detached(), fused)
            for ir_picture, vis_picture, fused in open_triples(
                *self._sources(reference, ir, vis), target
            )
        ]
        scores = score_triples(
            triples, self.guest.model, Asked.of(self.aspect), batch_size=self.batch_size
        ).score
        return scores.to(triples[0][2].device or scores.device)

    def _sources(
        self, reference: ImagesLike | None, ir: ImagesLike | None, vis: ImagesLike | None
    ) -> tuple[ImagesLike, ImagesLike]:
        if self.side_by_side:
            if reference is None or ir is not None or vis is not None:
                raise InputError(
                    "Expected the sources as one reference image, ir left and vis right: "
                    "metric(fused, reference); 'fuscore' takes them apart"
                )
            return split_sources(reference)
        missing = [name for name, given in (("ir", ir), ("vis", vis)) if given is None]
        if ir is None or vis is None:
            names = " and ".join(f"`{name}`" for name in missing)
            raise InputError(f"Expected the source images, got no {names}: {HOW_TO_PASS}")
        if reference is not None:
            raise InputError(f"Expected no reference image: {HOW_TO_PASS}")
        return ir, vis


def split_sources(reference: ImagesLike) -> tuple[list[Tensor], list[Tensor]]:
    """Cut images of two sources side by side into ir (left half) and vis (right half).

    Args:
        reference: Image(s) of even width, in any form that `fuscore_metric.score` takes. 16-bit
            ones are read as `vis` is: scale `ir` before joining, as `side_by_side` does.

    Returns:
        Two lists of (3, H, W) float32 in [0, 1].

    Raises:
        InputError: An image cannot be used, or its width is odd.
    """
    both = as_images(reference, "reference")
    for image in both:
        if image.shape[-1] % 2:
            raise InputError(
                "Expected `reference` with ir (left) and vis (right) side by side, and so of even "
                f"width, got {image.shape[-2]}x{image.shape[-1]}"
            )
    halves = [image.chunk(2, dim=-1) for image in both]
    return [half[0] for half in halves], [half[1] for half in halves]


def side_by_side(ir: ImagesLike, vis: ImagesLike) -> list[Tensor]:
    """Join source pairs into reference images for `fuscore_fr`.

    Args:
        ir: Infrared image(s), in any form that `fuscore_metric.score` takes.
        vis: Visible image(s) of the same scenes.

    Returns:
        A list of (3, H, 2 W) float32 in [0, 1].

    Raises:
        InputError: An image cannot be used, or the two of a pair differ in size.
    """
    left, right = as_images(ir, "ir"), as_images(vis, "vis")
    if len(left) != len(right) or any(a.shape != b.shape for a, b in zip(left, right, strict=True)):
        raise InputError("Expected `ir` and `vis` with equally many images of the same sizes")
    return [torch.cat(both, dim=-1) for both in zip(left, right, strict=True)]


def _made_by(model: MadeModel) -> FuScore:
    if isinstance(model, nn.Module) or not callable(model):
        raise TypeError(
            "Expected `model` as a name or path of weights, or as a function that returns a "
            f"FuScore or a Backbone (model=lambda: mine), got {type(model).__name__}"
        )
    made = model()
    if isinstance(made, Backbone):
        spec = FuScoreSpec(type(made).__name__, made.family, made.preprocessing, "none")
        return FuScore(made, spec)
    if not isinstance(made, FuScore):
        raise TypeError(
            f"Expected `model` to return a FuScore or a Backbone, got {type(made).__name__}"
        )
    return made


class _Unread(NamedTuple):
    """What the caller gave to the wrapper."""

    target: ImagesLike
    reference: ImagesLike | None
    as_loss: bool

    def fused(self) -> ImagesLike:
        """The target; a network's overshoot is clipped, as `FuScoreReward` does."""
        target = self.target
        if self.as_loss and isinstance(target, Tensor) and target.is_floating_point():
            RangeGuard().check(target, "fused")
            return target.clamp(0, 1)
        return target


@lru_cache(maxsize=1)
def _watch_wrappers() -> None:
    """Hook onto every wrapper that takes a `FuScoreArch` as its `net`.

    The wrapper does not pass itself to its network, but torch calls a hook for each new submodule.
    """

    def taken(owner: nn.Module, name: str, module: nn.Module | None) -> None:
        if name == "net" and isinstance(module, FuScoreArch):
            owner.register_forward_pre_hook(_past_the_wrapper, with_kwargs=True)

    register_module_module_registration_hook(taken)


def _past_the_wrapper(
    owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the wrapper a stand-in to read and check, and the network what the caller gave."""
    # The wrapper registers its network twice, and so has this hook twice. It refuses too many
    # arguments itself.
    if "unread" in kwargs or len(args) > 2:
        return args, kwargs
    given = dict(zip(("target", "ref"), args, strict=False)) | kwargs
    unread = _Unread(given.pop("target", None), given.pop("ref", None), bool(owner.as_loss))
    stand_in = torch.zeros(1, 1, 1, 1)
    return (stand_in, stand_in), given | {"unread": unread}
