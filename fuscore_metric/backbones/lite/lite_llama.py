"""The embedded family: EfficientNet-Lite statistics as image tokens, a small Llama as the language.

Each image goes at its own resolution through the first stages of a small convolutional network.
Statistics of the feature maps over a grid of cells become its tokens; those of the fused image
also tell how it agrees with both sources and with the stronger of the two at each place. A causal
Llama reads label, tokens, label, tokens, ..., question and answer prefix, and answers with a level
word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from typing_extensions import Self

from fuscore_metric.backbones.base import Backbone, Encoded
from fuscore_metric.backbones.lite.cell_tokens import CellTokens
from fuscore_metric.backbones.lite.cells import projected_statistics
from fuscore_metric.backbones.lite.config import (
    DEFAULT_PREPROCESSING,
    LLAMA,
    LevelTokenizer,
    check_names,
    check_size,
    read_config,
)
from fuscore_metric.backbones.prompt_tree import (
    Prefix,
    branch_ends,
    read_behind,
    read_prefix,
    tree_mask,
    tree_positions,
)
from fuscore_metric.backbones.stored_weights import read_tensors
from fuscore_metric.checkpoints.spec import SPEC_FILE
from fuscore_metric.compute.placement import to_device
from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, build_prompt


class LiteLlama(CellTokens, Backbone):
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
        words: LevelTokenizer,
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
        self.make_parts(config.hidden_size, config.initializer_range)
        self.llama = LlamaForCausalLM(config)
        self._level_ids = {
            aspect: level_token_ids(words, build_prompt(aspect).answer_prefix) for aspect in ASPECTS
        }

    def read_sources(self, encoded: Encoded) -> Prefix:
        """Read the sources of each pair: U rows of keys and values."""
        sources = self._sources(projected_statistics(encoded), encoded["source_cells"])
        return read_prefix(self.llama.model, inputs_embeds=sources)

    def aspect_logits(
        self, encoded: Encoded, aspects: Sequence[str], prefix: Prefix | None = None
    ) -> Tensor:
        """Ask the Llama for several aspects: (N, A, 5)."""
        texts = [_words(aspect) for aspect in aspects]  # refuses an unknown one
        prefix = self.read_sources(encoded) if prefix is None else prefix
        statistics = projected_statistics(encoded)["fused"]
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
        and finite; each load checks this.

        Raises:
            CheckpointError: Something else is in the files; the message names file and key or
                tensor.
        """
        cls.check_options(device_map=device_map, quantize=quantize)
        llama, relations = read_config(directory / "config.json")
        check_names(preprocessing, DEFAULT_PREPROCESSING, "preprocessing", directory / SPEC_FILE)
        words = LevelTokenizer(directory / "tokenizer.json")
        weights = directory / "model.safetensors"
        check_size(llama, words.tokenizer.get_vocab_size(), weights)
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


def _words(aspect: str) -> str:
    prompt = build_prompt(aspect)
    return f"{prompt.question} {prompt.answer_prefix}"
