"""The embedded family: EfficientNet-Lite statistics as image tokens, a small Llama as the language.

Each image is seen at its own resolution by the first stages of a small convolutional network. The
statistics of the feature maps over a grid of cells become its tokens; the fused image's tokens
also say how they agree with both sources and with the stronger of the two at each place. A causal
Llama reads label, tokens, label, tokens, ..., question and answer prefix, and answers with a level
word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as TokenizersTokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from typing_extensions import Self

from fuscore_metric.backbones.base import Backbone, Encoded
from fuscore_metric.backbones.efficientnet_lite import CHANNELS, EfficientNetLite
from fuscore_metric.backbones.local_statistics import (
    LocalStatistics,
    Maps,
    edge_pyramid,
    stronger,
)
from fuscore_metric.backbones.projector import Projector
from fuscore_metric.backbones.prompt_tree import (
    Prefix,
    branch_ends,
    read_behind,
    read_prefix,
    rows,
    tree_mask,
    tree_positions,
)
from fuscore_metric.backbones.relations import RELATIONS, Relief, make_relief, relations
from fuscore_metric.backbones.stored_weights import read_tensors
from fuscore_metric.checkpoint import SPEC_FILE, CheckpointError
from fuscore_metric.images import fit_pixels, resize
from fuscore_metric.levels import level_token_ids
from fuscore_metric.placement import to_device
from fuscore_metric.prompts import ASPECTS, build_prompt
from fuscore_metric.spec_fields import Kind, misfits, whole
from fuscore_metric.strict_json import read_json, short

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
"""Of a fused cell: its own, those of each reference, and its correlation with each. A model with
relations has `RELATIONS` more."""
WHOLE_STATISTICS = 2 * (FUSED_STATISTICS + RELATIONS)
"""Of a whole fused image, in a model with relations: mean and spread of those over the cells."""

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
_LLAMA_KINDS = {
    "hidden_size": whole(2, 4096),
    "intermediate_size": whole(1, 16384),
    "num_hidden_layers": whole(1, 64),
    "num_attention_heads": whole(1, 64),
    "num_key_value_heads": whole(1, 64),
    "max_position_embeddings": whole(1, 65536),
    "tie_word_embeddings": Kind("true or false", lambda x: isinstance(x, bool)),
}
MAX_CONFIG_BYTES = 1_000_000


class Words:
    """A `tokenizers` file behind the one method that the level words need."""

    def __init__(self, path: Path) -> None:
        try:
            self.tokenizer = TokenizersTokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{path.name}: {error}") from error
        ids = self.tokenizer.get_vocab().values()
        if max(ids, default=0) >= max(len(ids), 1):  # they are rows of the embedding
            raise ValueError(f"{path.name}: expected ids below {len(ids)}, got {max(ids)}")

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


References = tuple[LocalStatistics, ...]
"""Statistics of the images in `REFERENCES`."""
Seen = tuple[References, Relief | None]
"""What fused images are compared with; the second only of a model with relations."""


@dataclass
class LiteSources:
    """Source pairs to look at.

    Attributes:
        ir: (U, 3, H, W) in [0, 1].
        vis: Likewise.
        held: What was seen of them, if that was in one look.
    """

    ir: Tensor
    vis: Tensor
    held: Seen | None = None


class LiteLlama(Backbone):
    """EfficientNet-Lite0 statistics read by a small Llama.

    Args:
        words: The tokenizer.
        llama: Options of `LlamaConfig`, over `LLAMA`.
        preprocessing: Over `DEFAULT_PREPROCESSING`.
        relations: Whether fused images are also compared with their sources place by place: see
            `relations`. Weights up to `fuscore-lite-4` were made without.

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
        relations: bool = False,
    ) -> None:
        super().__init__()
        self.words, self.relations = words, relations
        self.preprocessing = {**DEFAULT_PREPROCESSING, **(preprocessing or {})}
        self.llama_options = {**LLAMA, **(llama or {})}
        config = LlamaConfig(vocab_size=words.tokenizer.get_vocab_size(), **self.llama_options)
        hidden = config.hidden_size
        self.vision = EfficientNetLite().eval().requires_grad_(False)
        self.projectors = nn.ModuleDict(
            {
                "ir": Projector(STATISTICS, hidden),
                "vis": Projector(STATISTICS, hidden),
                "fused": Projector(FUSED_STATISTICS + RELATIONS * relations, hidden),
            }
            | ({"whole": Projector(WHOLE_STATISTICS, hidden)} if relations else {})
        )
        self.cell_embedding = nn.Embedding(self.preprocessing["grid"] ** 2, hidden)
        # The default, a deviation of 1, would drown what the projectors say.
        nn.init.normal_(self.cell_embedding.weight, std=config.initializer_range)
        self.llama = LlamaForCausalLM(config)
        self._level_ids = {
            aspect: level_token_ids(words, build_prompt(aspect).answer_prefix) for aspect in ASPECTS
        }

    @property
    def own_statistics(self) -> tuple[str, ...]:
        """Names of the statistics that each fused image has of its own."""
        return ("fused", "agreement", *(["relation"] if self.relations else []))

    def encode_sources(self, ir: Tensor, vis: Tensor) -> LiteSources:
        """Hold the pixels; they are looked at when the first fused image comes."""
        return LiteSources(ir, vis)

    def encode_fused(self, sources: LiteSources, fused: Tensor, pair: Tensor) -> Encoded:
        """Cell statistics of the three images and of fused against each source.

        Returns:
            `ir`, `vis`, `stronger` (U, cells, `STATISTICS`) of U source pairs and `source_cells`
            (U, cells); `fused` (N, cells, `STATISTICS`), `agreement` (N, cells, 3 `AGREEMENT`),
            `cells` (N, cells), the place of each cell in the grid, and `pair` (N,), the source pair
            of each fused image; with relations also `relation` (N, cells, `RELATIONS`). Statistics
            are float32.
        """
        own = self.own_statistics
        found: dict[str, list[Tensor]] = {name: [] for name in (*REFERENCES, *own)}
        order: list[int] = []
        for place, members in self._looks(len(sources.ir), fused, pair):
            references, relief = self._references(sources, place)
            for name, reference in zip(REFERENCES, references, strict=True):
                found[name].append(reference.tokens())
            for numbers, images in members:
                near, beside = _beside(references, relief, pair[numbers])
                one = self._statistics(images, near)
                if beside is not None:
                    found["relation"].append(relations(self._greys(one), beside, one.grid))
                found["fused"].append(one.tokens())
                found["agreement"].append(torch.cat(one.correlations(), dim=-1))
                order += numbers
        encoded = {name: torch.cat(parts) for name, parts in found.items()}
        if order != sorted(order):
            back = torch.tensor(order, device=fused.device).argsort()
            encoded |= {name: encoded[name][back] for name in own}
        cells = torch.arange(self.preprocessing["grid"] ** 2, device=fused.device)
        return encoded | {
            "source_cells": cells.expand(len(sources.ir), -1),
            "cells": cells.expand(len(fused), -1),
            "pair": to_device(pair, fused.device),
        }

    def _looks(
        self, pairs: int, fused: Tensor, pair: Tensor
    ) -> Iterator[tuple[slice, list[tuple[list[int], Tensor]]]]:
        """What is looked at together: source pairs, and row numbers and images of `fused`."""
        if not self.one_by_one:
            yield slice(0, pairs), [(list(range(len(fused))), fused)]
            return
        # Indexing would give each its own gradient of the whole batch's size.
        images = torch.split(fused, 1)
        for number in range(pairs):
            members = (pair == number).nonzero().flatten().tolist()
            yield slice(number, number + 1), [([member], images[member]) for member in members]

    @property
    def one_by_one(self) -> bool:
        """Whether images are looked at one at a time.

        So on the CPU: feature maps stay in its cache, which is faster than a batch, and the numbers
        do not depend on the batch.
        """
        return self.device.type == "cpu"

    def _references(self, sources: LiteSources, place: slice) -> Seen:
        if sources.held is not None:
            return sources.held
        both = self._statistics(sources.ir[place]), self._statistics(sources.vis[place])
        best = LocalStatistics(stronger(both[0].maps, both[1].maps), both[0].grid)
        relief = make_relief(*map(self._greys, both)) if self.relations else None
        found = (*both, best), relief
        # Feature maps are large: those of a single look are held for more fused images.
        if place.stop - place.start == len(sources.ir):
            sources.held = found
        return found

    def _statistics(
        self, images: Tensor, references: Sequence[LocalStatistics] = ()
    ) -> LocalStatistics:
        options = self.preprocessing
        size = fit_pixels(
            *images.shape[-2:],
            min_pixels=options["min_pixels"],
            max_pixels=options["max_pixels"],
            multiple=options["multiple"],
        )
        # A picture that was turned from HWC to CHW takes half as long again as a contiguous one.
        pixels = ((resize(images, size) - options["mean"]) / options["std"]).contiguous()
        return LocalStatistics(self._maps(pixels), options["grid"], references)

    def _greys(self, seen: LocalStatistics) -> list[Tensor]:
        """Grey maps in [0, 1] at 1/2, 1/4 and 1/8."""
        mean, std = self.preprocessing["mean"], self.preprocessing["std"]
        return [m[:, :1] * std + mean for m in seen.maps.pixels[1:]]

    def _maps(self, pixels: Tensor) -> Maps:
        """Look twice, so that a filter's slant and the phase of its strides decide nothing.

        The second look is at the mirror image, a row lower: mirroring changes the phase along the
        width only where that is even. Its maps cover the same cells, from right to left.
        """
        given = pixels.to(self.vision.stem.conv.weight.dtype)
        upright, mirrored = self.vision(given), self.vision(given[..., 1:, :].flip(-1))
        features = list(zip(upright, mirrored, strict=True))
        return Maps(edge_pyramid(pixels, OCTAVES), features, mirrored=True)

    def read_sources(self, encoded: Encoded) -> Prefix:
        """Read the sources of each pair: U rows of keys and values."""
        sources = self._sources(_projected_statistics(encoded), encoded["source_cells"])
        return read_prefix(self.llama.model, inputs_embeds=sources)

    def aspect_logits(
        self, encoded: Encoded, aspects: Sequence[str], prefix: Prefix | None = None
    ) -> Tensor:
        """Ask the Llama for several aspects: (N, A, 5)."""
        texts = [_words(aspect) for aspect in aspects]  # refuses an unknown one
        prefix = self.read_sources(encoded) if prefix is None else prefix
        statistics = _projected_statistics(encoded)["fused"]
        fused = self._fused_tokens(statistics, encoded["cells"])  # (N, K, hidden)
        branches = [self._text(text, fused) for text in texts]
        before, stem = prefix[0][0].shape[2], fused.shape[1]
        lengths = [branch.shape[1] for branch in branches]
        positions = tree_positions(before, stem, lengths)[None]
        read = read_behind(
            self.llama.model,
            prefix,
            encoded["pair"],
            inputs_embeds=torch.cat([fused, *branches], dim=1),  # (N, L, hidden)
            attention_mask=tree_mask(before, stem, lengths, fused),
            position_ids=to_device(positions, fused.device),
        )
        last = branch_ends(read, stem, lengths)  # (N, A, hidden)
        ids = torch.tensor([self._level_ids[aspect] for aspect in aspects])
        head = self.llama.lm_head.weight[to_device(ids, fused.device)]  # (A, 5, hidden)
        wide = torch.promote_types(last.dtype, torch.float32)  # half precision ends here
        return torch.einsum("nah,alh->nal", last.to(wide), head.to(wide))

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

    def _fused_tokens(self, statistics: Tensor, cells: Tensor) -> Tensor:
        """One for each cell, and one for the whole image if there are relations."""
        tokens = self._tokens("fused", statistics, cells)
        if not self.relations:
            return tokens
        return torch.cat([tokens, self.projectors["whole"](_over_cells(statistics))], dim=1)

    def standardise(self, encoded: Encoded) -> None:
        """Take the mean and spread of the statistics from these triples; before training."""
        found = _projected_statistics(encoded)
        if self.relations:
            found["whole"] = _over_cells(found["fused"])
        for name, statistics in found.items():
            cast(Projector, self.projectors[name]).standardise(statistics)

    def _text(self, text: str, like: Tensor) -> Tensor:
        ids = to_device(torch.tensor(self.words.encode(text)), like.device)
        embedded: Tensor = self.llama.model.embed_tokens(ids)
        return embedded.expand(len(like), -1, -1)  # (N, words, hidden)

    def compile_parts(self) -> None:
        """Compile the convolutions; the statistics read memory more than they compute."""
        self.vision.compile(dynamic=True)

    def save(self, directory: Path) -> None:
        """Write `config.json`, `tokenizer.json` and `model.safetensors`."""
        directory.mkdir(parents=True, exist_ok=True)
        content = {"llama": self.llama_options, "relations": self.relations}
        text = json.dumps(content, indent=2)
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
        """Read what `save` wrote; there is nothing to spread or quantise in 4 MB.

        Every tensor must be there with its name and shape, in a floating dtype of at most 32 bits,
        and finite. That is looked at on each load.

        Raises:
            CheckpointError: Something else is in the files; the message names file and key or
                tensor.
        """
        cls.check_options(device_map=device_map, quantize=quantize)
        llama, relations = _read_config(directory / "config.json")
        _check_names(preprocessing, DEFAULT_PREPROCESSING, "preprocessing", directory / SPEC_FILE)
        words = Words(directory / "tokenizer.json")
        weights = directory / "model.safetensors"
        _check_size(llama, words.tokenizer.get_vocab_size(), weights)
        backbone = cls(words, llama=llama, preprocessing=preprocessing, relations=relations)
        backbone.load_state_dict(read_tensors(weights, backbone.state_dict()))
        return backbone.to(dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are; `nn.DataParallel` makes replicas without parameters."""
        return self.cell_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the language part; the vision part is float32 whatever it is."""
        return self.cell_embedding.weight.dtype


def _read_config(path: Path) -> tuple[dict[str, Any], bool]:
    """Options of the Llama, and whether there are relations: older files do not say so."""
    try:
        content = read_json(path, limit=MAX_CONFIG_BYTES)
    except ValueError as error:
        raise CheckpointError(f"Expected JSON in {str(path)!r}: {error}") from error
    options = content.get("llama") if isinstance(content, dict) else None
    if not isinstance(options, dict):
        raise CheckpointError(f"Expected an object `llama` in {str(path)!r}")
    relations = content.get("relations", False)
    if not isinstance(relations, bool):
        raise CheckpointError(
            f"Expected `relations` in {str(path)!r} to be true or false, got {short(relations)}"
        )
    _check_names(options, LLAMA, "llama", path)
    for wrong in misfits(options, _LLAMA_KINDS, "llama"):
        raise CheckpointError(f"{wrong} in {str(path)!r}")
    heads, groups = options["num_attention_heads"], options["num_key_value_heads"]
    if options["hidden_size"] % (2 * heads) or heads % groups:
        raise CheckpointError(
            f"Expected `llama` in {str(path)!r} with an even number of channels for each of "
            f"`num_attention_heads`, and those a multiple of `num_key_value_heads`, got {options}"
        )
    return options, relations


def _check_size(llama: Mapping[str, int], words: int, weights: Path) -> None:
    """Refuse sizes of far more weights than the file holds, before memory is taken for them."""
    hidden, intermediate = llama["hidden_size"], llama["intermediate_size"]
    # Query and output, and the three matrices of the perceptron; keys and values may be few.
    layers = llama["num_hidden_layers"] * hidden * (2 * hidden + 3 * intermediate)
    numbers, stored = words * hidden + layers, weights.stat().st_size
    if 2 * numbers > stored:  # two bytes each, or four
        raise CheckpointError(
            f"Expected at least {numbers} numbers in {str(weights)!r}, as the files beside it say, "
            f"got {stored} bytes"
        )


def _check_names(
    given: Mapping[str, Any], expected: Mapping[str, Any], what: str, path: Path
) -> None:
    """Defaults filled in for what is missing might be other ones in a later version."""
    if odd := sorted(given.keys() ^ expected.keys()):
        kind = "unknown" if odd[0] in given else "missing"
        raise CheckpointError(
            f"Expected `{what}` of {', '.join(expected)} in {str(path)!r}, {kind}: {short(odd[0])}"
        )


def _beside(references: References, relief: Relief | None, pair: Tensor) -> Seen:
    """The references that each fused image is compared with.

    They stay as they are where one is for all or each image has its own, because maps are large
    and need not be copied then.
    """
    count = len(references[0].mean)
    if count == 1 or torch.equal(pair, torch.arange(count)):
        return references, relief
    numbers = to_device(pair, references[0].mean.device)
    chosen = tuple(reference.rows(numbers) for reference in references)
    return chosen, None if relief is None else relief.rows(numbers)


def _projected_statistics(encoded: Encoded) -> Encoded:
    """What each image's projector takes: the fused one sees the sources too."""
    references = [rows(encoded[name], encoded["pair"]) for name in REFERENCES]
    compared = [encoded[name] for name in ("agreement", "relation") if name in encoded]
    fused = torch.cat([encoded["fused"], *references, *compared], dim=-1)
    return {"ir": encoded["ir"], "vis": encoded["vis"], "fused": fused}


def _over_cells(statistics: Tensor) -> Tensor:
    """Mean and spread over the cells: (N, K, statistics) -> (N, 1, 2 * statistics)."""
    # The root's slope is infinite at 0, where all cells are alike.
    spread = (statistics.var(1, keepdim=True, correction=0) + 1e-8).sqrt()
    return torch.cat([statistics.mean(1, keepdim=True), spread], dim=-1)


def _words(aspect: str) -> str:
    prompt = build_prompt(aspect)
    return f"{prompt.question} {prompt.answer_prefix}"
