"""The embedded family: EfficientNet-Lite statistics as image tokens, a small Llama as the language.

Each image is seen at its own resolution by the first stages of a small convolutional network. The
statistics of the feature maps over a grid of cells become its tokens; the fused image's tokens
also say how they agree with both sources and with the stronger of the two at each place. A causal
Llama reads label, tokens, label, tokens, ..., question and answer prefix, and answers with a level
word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as TokenizersTokenizer
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, LlamaModel

from fuscore_metric.backbones.base import Backbone, Encoded
from fuscore_metric.backbones.efficientnet_lite import CHANNELS, EfficientNetLite
from fuscore_metric.backbones.local_statistics import (
    LocalStatistics,
    Maps,
    edge_pyramid,
    stronger,
)
from fuscore_metric.backbones.projector import Projector
from fuscore_metric.images import fit_pixels, resize
from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, build_prompt

DEFAULT_PREPROCESSING: dict[str, Any] = {
    "min_pixels": 128 * 128,
    "max_pixels": 1024 * 768,
    "multiple": 1,
    "mean": 127 / 255,
    "std": 128 / 255,
    "grid": 4,
}
"""Images are resized only outside these areas: noise and blur live at the pixel scale."""

PIXEL_CHANNELS = 5
"""Red, green, blue, gradient, Laplacian, at the image's own scale."""
OCTAVES, OCTAVE_CHANNELS = 3, 3
"""Halves of that scale; at each grey, gradient, Laplacian."""
AGREEMENT = PIXEL_CHANNELS + OCTAVES * OCTAVE_CHANNELS + sum(CHANNELS)
"""Correlations of a cell of the fused image with one source: one a channel."""
STATISTICS = PIXEL_CHANNELS + AGREEMENT
"""Statistics of a cell of one image: means of the pixels and edges, spread of every channel."""
REFERENCES = ("ir", "vis", "stronger")
"""What a fused image is compared with; see `local_statistics.stronger`."""
FUSED_STATISTICS = (1 + len(REFERENCES)) * STATISTICS + len(REFERENCES) * AGREEMENT
"""Of a fused cell: its own, those of each reference, and its correlation with each."""

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

CACHE = "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"
"""transformers' name of a model's cache argument: renamed in 5.24, the old one warns."""


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
            `ir`, `vis`, `stronger` (U, cells, `STATISTICS`) of U source pairs and `source_cells`
            (U, cells); `fused` (N, cells, `STATISTICS`), `agreement` (N, cells, 3 `AGREEMENT`),
            `cells` (N, cells), the place of each cell in the grid, and `pair` (N,), the source pair
            of each fused image. Statistics are float32.
        """
        # One image at a time on the CPU: its feature maps stay in the cache, which is faster
        # than a batch, and makes the numbers independent of the batch.
        size = 1 if ir.device.type == "cpu" else len(fused)
        shared = len(ir) == 1
        sources: tuple[LocalStatistics, ...] = ()
        names = (*REFERENCES, "fused", "agreement")
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for start in range(0, len(fused), size):
            if not (shared and sources):
                here = slice(0, 1) if shared else slice(start, start + size)
                both = self._statistics(ir[here]), self._statistics(vis[here])
                best = LocalStatistics(stronger(both[0].maps, both[1].maps), both[0].grid)
                sources = (*both, best)
                for name, source in zip(REFERENCES, sources, strict=True):
                    parts[name].append(source.tokens())
            one = self._statistics(fused[start : start + size])
            parts["fused"].append(one.tokens())
            agreement = [one.correlation(source) for source in sources]
            parts["agreement"].append(torch.cat(agreement, dim=-1))
        cells = torch.arange(self.preprocessing["grid"] ** 2, device=fused.device)
        return {name: torch.cat(found) for name, found in parts.items()} | {
            "source_cells": cells.expand(len(ir), -1),
            "cells": cells.expand(len(fused), -1),
            "pair": torch.arange(len(fused), device=fused.device) * (not shared),
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
        return LocalStatistics(self._maps(pixels), options["grid"])

    def _maps(self, pixels: Tensor) -> Maps:
        """Look twice, so that a filter's slant and the phase of its strides decide nothing.

        The second look is at the mirror image, a row lower: mirroring changes the phase along the
        width only where that is even. Its maps are mirrored back and cover the same cells.
        """
        given = pixels.to(self.vision.stem.conv.weight.dtype)
        upright, mirrored = self.vision(given), self.vision(given[..., 1:, :].flip(-1))
        features = [(a, b.flip(-1)) for a, b in zip(upright, mirrored, strict=True)]
        return Maps(edge_pyramid(pixels, OCTAVES), features)

    def level_logits(self, encoded: Encoded, aspect: str) -> Tensor:
        """Ask the Llama for one aspect: (N, 5)."""
        return self.aspect_logits(encoded, (aspect,))[:, 0]

    def aspect_logits(self, encoded: Encoded, aspects: Sequence[str]) -> Tensor:
        """Ask for several aspects: (N, A, 5).

        The prompt is a tree. Each source pair is read once, each fused image once behind its
        pair, and the questions stand side by side behind the fused image, blind to each other.
        """
        statistics = _projected_statistics(encoded)
        sources = self._sources(statistics, encoded["source_cells"])  # (U, P, hidden)
        # What the fused images and the questions need of a source pair: its keys and values.
        cache = DynamicCache(config=self.llama.config)
        self.llama.model(inputs_embeds=sources, use_cache=True, **{CACHE: cache})
        cache.batch_select_indices(encoded["pair"])
        fused = self._tokens("fused", statistics["fused"], encoded["cells"])  # (N, K, hidden)
        branches = [self._text(_words(aspect), fused) for aspect in aspects]
        lengths = [branch.shape[1] for branch in branches]
        positions, mask = _tree(sources.shape[1], fused.shape[1], lengths, fused)
        read = self.llama.model(
            inputs_embeds=torch.cat([fused, *branches], dim=1),  # (N, L, hidden)
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{CACHE: cache},
        )
        ends = torch.tensor(lengths, device=fused.device).cumsum(0) + fused.shape[1] - 1
        last = read.last_hidden_state[:, ends]  # (N, A, hidden)
        ids = torch.tensor([self._level_ids[aspect] for aspect in aspects], device=fused.device)
        rows = self.llama.lm_head.weight[ids]  # (A, 5, hidden)
        wide = torch.promote_types(last.dtype, torch.float32)  # half precision ends here
        return torch.einsum("nah,alh->nal", last.to(wide), rows.to(wide))

    def _sources(self, statistics: Encoded, cells: Tensor) -> Tensor:
        """Everything before the fused image: (U, P, hidden)."""
        pieces = []
        for name, label in build_prompt(ASPECTS[0]).labels:
            pieces.append(self._text(label, cells))
            if name != "fused":
                pieces.append(self._tokens(name, statistics[name], cells))
        return torch.cat(pieces, dim=1)

    def _tokens(self, name: str, statistics: Tensor, cells: Tensor) -> Tensor:
        tokens: Tensor = self.projectors[name](statistics) + self.cell_embedding(cells)
        return tokens

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
        cls,
        directory: Path,
        preprocessing: dict[str, Any],
        *,
        dtype: torch.dtype = torch.float32,
        device_map: str | dict[str, Any] | None = None,
        quantize: str | None = None,
    ) -> Self:
        """Read what `save` wrote; there is nothing to spread or quantise in 4 MB."""
        cls.check_options(device_map=device_map, quantize=quantize)
        config = json.loads((directory / "config.json").read_text())
        words = Words(directory / "tokenizer.json")
        backbone = cls(words, llama=config["llama"], preprocessing=preprocessing)
        backbone.load_state_dict(load_file(directory / "model.safetensors"))
        # What makes the statistics stays float32: they are small differences of large sums.
        projectors = [cast(Projector, p).layers for p in backbone.projectors.values()]
        parts: list[nn.Module] = [backbone.llama, backbone.cell_embedding, *projectors]
        for part in parts:
            part.to(dtype)
        return backbone

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the language part; the vision part is float32 whatever it is."""
        return self.cell_embedding.weight.dtype


def _projected_statistics(encoded: Encoded) -> Encoded:
    """What each image's projector takes: the fused one sees the sources too."""
    pair = encoded["pair"]
    references = [encoded[name][pair] for name in REFERENCES]
    fused = torch.cat([encoded["fused"], *references, encoded["agreement"]], dim=-1)
    return {"ir": encoded["ir"], "vis": encoded["vis"], "fused": fused}


def _words(aspect: str) -> str:
    prompt = build_prompt(aspect)
    return f"{prompt.question} {prompt.answer_prefix}"


def _tree(prefix: int, stem: int, branches: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and attention of one stem behind a cached prefix and branches behind the stem.

    Args:
        prefix: Tokens in the cache.
        stem: Tokens of the fused image.
        branches: Tokens of each question.
        like: Gives device and dtype.

    Returns:
        (1, L) positions, as if each branch were alone, and a (1, 1, L, prefix + L) additive mask.
    """
    runs = [torch.arange(stem), *(stem + torch.arange(length) for length in branches)]
    position = torch.cat(runs)  # (L,)
    owner = torch.cat([torch.full((len(run),), n) for n, run in enumerate(runs)])
    related = (owner == 0) | (owner == owner[:, None])  # to the stem, or within a branch
    seen = related & (position <= position[:, None])  # (L, L)
    seen = torch.cat([torch.ones(len(position), prefix, dtype=torch.bool), seen], dim=1)
    mask = torch.zeros(seen.shape, dtype=like.dtype).masked_fill(~seen, torch.finfo(like.dtype).min)
    return (prefix + position)[None].to(like.device), mask[None, None].to(like.device)
