"""transformers' LLaVA with cell statistics of the images beside the tower's tokens, if wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration
from typing_extensions import Self

from fuscore_metric.backbones.base import in_its_dtype
from fuscore_metric.backbones.lite.cell_tokens import CellTokens
from fuscore_metric.backbones.lite.config import DEFAULT_PREPROCESSING
from fuscore_metric.backbones.llava.towers import tower_of
from fuscore_metric.checkpoints.fields import PREPROCESSING, Kind, misfits
from fuscore_metric.prompts import ImageName

_KINDS = {name: PREPROCESSING[name] for name in DEFAULT_PREPROCESSING} | {
    "relations": Kind("true or false", lambda x: isinstance(x, bool))
}
LANGUAGES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Language models of the Llama kind: their positions are a token's place in the prompt."""


class Statistics(CellTokens):
    """Cell tokens beside a vision tower; all of it keeps its dtype, whatever `.to()` asks for.

    Args:
        options: Those of the embedded family, and whether there are `relations`.
        hidden: Width of the language model.
        spread: Standard deviation of the embedding's start.
    """

    def __init__(self, options: dict[str, Any], hidden: int, spread: float) -> None:
        super().__init__()
        self.preprocessing = {name: options[name] for name in DEFAULT_PREPROCESSING}
        self.relations = options["relations"]
        self.make_parts(hidden, spread)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved: Self = super()._apply(in_its_dtype(fn), recurse)  # type: ignore[no-untyped-call]
        return moved

    def read(self, name: ImageName, statistics: Tensor) -> Tensor:
        """Statistics (B, cells, ...) of an image -> its tokens (B, K, hidden)."""
        cells = torch.arange(statistics.shape[1], device=statistics.device)
        cells = cells.expand(len(statistics), -1)
        if name == "fused":
            return self._fused_tokens(statistics, cells)
        return self._tokens(name, statistics, cells)

    def count(self, name: ImageName, statistics: Tensor) -> int:
        """How many tokens `read` returns."""
        return statistics.shape[1] + int(name == "fused" and self.relations)


class LlavaWithStatistics(LlavaForConditionalGeneration):  # type: ignore[no-untyped-call]
    """LLaVA; with `statistics` in its config, `model.statistics` has what they need.

    Its weights lie in the same files as all others. Without `statistics` it is plain LLaVA.

    Raises:
        ValueError: The config has a tower or a language model that is not known here.
    """

    # Small differences of large sums; the projectors are trained in full.
    _keep_in_fp32_modules_strict: set[str] | list[str] | None = {"statistics"}  # noqa: RUF012

    def __init__(self, config: LlavaConfig) -> None:
        text: Any = config.text_config
        tower_of(config.vision_config)
        if (kind := text.model_type) not in LANGUAGES:
            raise ValueError(f"Expected a language model of {', '.join(LANGUAGES)}, got {kind!r}")
        super().__init__(config)
        if options := statistics_of(config):
            self.model.statistics = Statistics(options, text.hidden_size, text.initializer_range)


def statistics_of(config: Any) -> dict[str, Any]:
    """The options of the cell statistics in a model's config, checked; empty if it has none.

    Raises:
        ValueError: A name is unknown or missing, or a value is not of its kind.
    """
    options = getattr(config, "statistics", None)
    if not options:
        return {}
    if not isinstance(options, dict) or options.keys() != _KINDS.keys():
        raise ValueError(f"Expected `statistics` of {', '.join(_KINDS)}")
    for wrong in misfits(options, _KINDS, "statistics"):
        raise ValueError(wrong)
    return dict(options)
