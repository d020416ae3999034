"""The embedded family: EfficientNet-Lite statistics as image tokens, a small Llama as the language.

Each image is seen at its own resolution by the first stages of a small convolutional network. The
statistics of the feature maps over a grid of cells become its tokens; the fused image's tokens
also say how they agree with both sources. A causal Llama reads label, tokens, label, tokens, ...,
question and answer prefix, and answers with a level word.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as TokenizersTokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from fuscore_metric.backbones.base import Backbone, Encoded
from fuscore_metric.backbones.efficientnet_lite import CHANNELS, EfficientNetLite
from fuscore_metric.backbones.local_statistics import LocalStatistics
from fuscore_metric.images import fit_pixels, resize
from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, IMAGE_ORDER, build_prompt

DEFAULT_PREPROCESSING: dict[str, Any] = {
    "min_pixels": 128 * 128,
    "max_pixels": 1024 * 768,
    "multiple": 1,
    "mean": 127 / 255,
    "std": 128 / 255,
    "grid": 5,
}
"""Images are resized only outside these areas: noise and blur live at the pixel scale."""

PIXEL_CHANNELS = 3
STATISTICS = 2 * (PIXEL_CHANNELS + sum(CHANNELS))
"""Statistics of a cell of one image: mean and spread of every channel."""
FUSED_STATISTICS = 4 * STATISTICS
"""Of a fused cell: its own, both sources', and its correlation with each."""

LLAMA = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
"""Shape of the language part; ours, small beside the vision part's cost on a CPU."""


class Words:
    """A `tokenizers` file behind the one method that the level words need."""

    def __init__(self, path: Path) -> None:
        try:
            self.tokenizer = TokenizersTokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{path.name}: {error}") from error

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


class Projector(nn.Module):
    """Standardised cell statistics -> token embeddings.

    The mean and spread over the training images are part of the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("std", torch.ones(statistics))
        self.layers = nn.Sequential(
            nn.Linear(statistics, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return self.mean.dtype

    def standardise(self, statistics: Tensor) -> None:
        """Set mean and spread from (N, cells, statistics)."""
        flat = statistics.flatten(0, 1)  # (N * cells, statistics)
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0).clamp_min(1e-3))

    def forward(self, statistics: Tensor) -> Tensor:
        """(N, cells, statistics) -> (N, cells, hidden)."""
        # Far outside what was ever seen, a statistic says no more than "very far".
        standard = ((statistics - self.mean) / self.std).clamp(-8, 8)
        tokens: Tensor = self.layers(standard.to(self.dtype))
        return tokens


class LiteLlama(Backbone):
    """EfficientNet-Lite0 statistics read by a small Llama.

    Args:
        words: The tokenizer.
        llama: Options of `LlamaConfig`, over `LLAMA`.
        preprocessing: Over `DEFAULT_PREPROCESSING`.

    Raises:
        ValueError: The tokenizer splits a level word.
    """

    family: ClassVar[str] = "lite_llama"
    fp16: ClassVar[bool] = True

    def __init__(
        self,
        words: Words,
        *,
        llama: dict[str, Any] | None = None,
        preprocessing: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.words = words
        self.preprocessing = {**DEFAULT_PREPROCESSING, **(preprocessing or {})}
        self.llama_options = {**LLAMA, **(llama or {})}
        config = LlamaConfig(vocab_size=words.tokenizer.get_vocab_size(), **self.llama_options)
        hidden = config.hidden_size
        self.vision = EfficientNetLite().eval().requires_grad_(False)
        self.projectors = nn.ModuleDict(
            {
                "ir": Projector(STATISTICS, hidden),
                "vis": Projector(STATISTICS, hidden),
                "fused": Projector(FUSED_STATISTICS, hidden),
            }
        )
        self.cell_embedding = nn.Embedding(self.preprocessing["grid"] ** 2, hidden)
        # The default, a deviation of 1, would drown what the projectors say.
        nn.init.normal_(self.cell_embedding.weight, std=config.initializer_range)
        self.llama = LlamaForCausalLM(config)
        self._level_ids = {
            aspect: level_token_ids(words, build_prompt(aspect).answer_prefix) for aspect in ASPECTS
        }

    def encode(self, ir: Tensor, vis: Tensor, fused: Tensor) -> Encoded:
        """Cell statistics of the three images and of fused against each source.

        Returns:
            `ir`, `vis`, `fused` (N, cells, `STATISTICS`), `agreement` (N, cells, `STATISTICS`),
            float32, and `cells` (N, cells), the place of each cell in the grid.
        """
        # One image at a time on the CPU: its feature maps stay in the cache, which is faster
        # than a batch, and makes the numbers independent of the batch.
        size = 1 if ir.device.type == "cpu" else len(fused)
        sources = [
            (self._statistics(a), self._statistics(b))
            for a, b in zip(torch.split(ir, size), torch.split(vis, size), strict=True)
        ]
        batches = torch.split(fused, size)
        if len(ir) == 1:
            sources = sources * len(batches)
        pairs = zip(sources, batches, strict=True)
        parts = [self._encode(*pair, self._statistics(images)) for pair, images in pairs]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _encode(self, ir: LocalStatistics, vis: LocalStatistics, fused: LocalStatistics) -> Encoded:
        count = len(fused.mean)
        agreement = [fused.correlation(ir), fused.correlation(vis)]
        cells = torch.arange(self.preprocessing["grid"] ** 2, device=fused.mean.device)
        return {
            "ir": ir.tokens().expand(count, -1, -1),
            "vis": vis.tokens().expand(count, -1, -1),
            "fused": fused.tokens(),
            "agreement": torch.cat(agreement, dim=-1),
            "cells": cells.expand(count, -1),  # (N, cells)
        }

    def _statistics(self, images: Tensor) -> LocalStatistics:
        options = self.preprocessing
        size = fit_pixels(
            *images.shape[-2:],
            min_pixels=options["min_pixels"],
            max_pixels=options["max_pixels"],
            multiple=options["multiple"],
        )
        pixels = (resize(images, size) - options["mean"]) / options["std"]
        maps = self.vision(pixels.to(self.vision.stem.conv.weight.dtype))
        return LocalStatistics([pixels, *maps], options["grid"])

    def level_logits(self, encoded: Encoded, aspect: str) -> Tensor:
        """Ask the Llama for one aspect: (N, 5)."""
        prompt = build_prompt(aspect)
        pieces = []
        tokens = self._image_tokens(encoded)
        for name, label in prompt.labels:
            pieces += [self._text(label, tokens[name]), tokens[name]]
        pieces.append(self._text(f"{prompt.question} {prompt.answer_prefix}", tokens["fused"]))
        embeddings = torch.cat(pieces, dim=1)  # (N, L, hidden)
        read = self.llama.model(inputs_embeds=embeddings, use_cache=False)
        last = read.last_hidden_state[:, -1]  # (N, hidden)
        rows = self.llama.lm_head.weight[list(self._level_ids[aspect])]
        wide = torch.promote_types(last.dtype, torch.float32)  # half precision ends here
        return F.linear(last.to(wide), rows.to(wide))

    def _image_tokens(self, encoded: Encoded) -> dict[str, Tensor]:
        places = self.cell_embedding(encoded["cells"])  # (N, cells, hidden)
        statistics = _projected_statistics(encoded)
        return {name: self.projectors[name](statistics[name]) + places for name in IMAGE_ORDER}

    def standardise(self, encoded: Encoded) -> None:
        """Take the mean and spread of the statistics from these triples; before training."""
        for name, statistics in _projected_statistics(encoded).items():
            cast(Projector, self.projectors[name]).standardise(statistics)

    def _text(self, text: str, like: Tensor) -> Tensor:
        ids = torch.tensor(self.words.encode(text), device=like.device)
        embedded: Tensor = self.llama.model.embed_tokens(ids)
        return embedded.expand(len(like), -1, -1)  # (N, words, hidden)

    def save(self, directory: Path) -> None:
        """Write `config.json`, `tokenizer.json` and `model.safetensors`."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"llama": self.llama_options}, indent=2)
        (directory / "config.json").write_text(text + "\n")
        self.words.tokenizer.save(str(directory / "tokenizer.json"))
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, directory / "model.safetensors")

    @classmethod
    def load(
        cls, directory: Path, preprocessing: dict[str, Any], *, dtype: torch.dtype = torch.float32
    ) -> Self:
        """Read what `save` wrote."""
        config = json.loads((directory / "config.json").read_text())
        words = Words(directory / "tokenizer.json")
        backbone = cls(words, llama=config["llama"], preprocessing=preprocessing)
        backbone.load_state_dict(load_file(directory / "model.safetensors"))
        return backbone.to(dtype)


def _projected_statistics(encoded: Encoded) -> dict[str, Tensor]:
    """What each image's projector takes: the fused one sees the sources too."""
    names = ("fused", "ir", "vis", "agreement")
    return {
        "ir": encoded["ir"],
        "vis": encoded["vis"],
        "fused": torch.cat([encoded[name] for name in names], dim=-1),
    }
