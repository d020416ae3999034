"""Files of triples -> numbers, in the ways that FuScore is timed against.

- `OneByOne`: the usual way of metrics built on a multimodal LLM. Pillow and the family's own image
  processor, one triple per call, nothing shared, logits of the whole vocabulary at every position
  (as a model's forward gives them unless told otherwise), softmax, five words picked out. The
  backbone is the same object, so that it also has whatever is fast within it; the random 0.1B has
  509 words where a real one has 151,936, which spares this way most of its head. Such code has no
  batching.
- `plain.py`: nine classic measures as evaluators in Python compute them, in numpy, scipy and
  scikit-image; on one thread as scripts do, or in several processes.
- `VitReward`: ViT-L/16 at 384 pixels on each of the three images, and an encoder of the size of
  ViT-L over all tokens of the three, with a linear head; random weights. Pillow resizes. Batched,
  as such models are run; no source is shared, as a reward model's forward takes triples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.speed.scenes import Triple
from fuscore_metric import FuScore
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.qwen.qwen_vl import QwenVL
from fuscore_metric.prompts import DEFAULT_ASPECT

LEVEL_VALUES = (1.0, 2.0, 3.0, 4.0, 5.0)


class OneByOne:
    """Scores triples one at a time, with the logits of all words.

    Args:
        model: Whose backbone to use, where it is.
    """

    def __init__(self, model: FuScore) -> None:
        self.backbone, self.device = model.backbone, model.device

    @torch.no_grad()
    def score(self, triple: Triple) -> float:
        """Score one triple of files."""
        pictures = [Image.open(path).convert("RGB") for path in triple]
        if isinstance(self.backbone, QwenVL):
            logits, words = self._qwen(self.backbone, pictures)
        else:
            logits, words = self._lite(cast(LiteLlama, self.backbone), pictures)
        probabilities = logits[0, -1].float().softmax(-1)[list(words)]  # of all words, then five
        values = torch.tensor(LEVEL_VALUES, device=self.device)
        return float((probabilities * values).sum() / probabilities.sum())

    def _qwen(self, backbone: QwenVL, pictures: list[Any]) -> tuple[Tensor, Sequence[int]]:
        options = backbone.preprocessing
        processor = Qwen2VLImageProcessorPil(
            patch_size=options["patch_size"],
            temporal_patch_size=options["temporal_patch_size"],
            merge_size=options["merge_size"],
            image_mean=options["image_mean"],
            image_std=options["image_std"],
            size={"shortest_edge": options["min_pixels"], "longest_edge": options["max_pixels"]},
        )
        given = processor(images=pictures, return_tensors="pt")
        question = backbone.chat.questions[DEFAULT_ASPECT]
        image_id = backbone.model.config.image_token_id
        tokens = int(given["image_grid_thw"][0].prod()) // options["merge_size"] ** 2
        short = [*backbone.chat.before, image_id, *question.branch_ids]
        spread = [i for one in short for i in [one] * (tokens if one == image_id else 1)]
        ids = torch.tensor(spread, device=self.device)[None]  # (1, L)
        output = backbone.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=given["pixel_values"].to(self.device),
            image_grid_thw=given["image_grid_thw"].to(self.device),
            mm_token_type_ids=(ids == image_id).int(),
            use_cache=False,
        )
        return output.logits, question.level_ids

    def _lite(self, backbone: LiteLlama, pictures: list[Any]) -> tuple[Tensor, Sequence[int]]:
        images = [_unit_range(picture)[None].to(self.device) for picture in pictures]
        states: list[Tensor] = []
        hook = backbone.llama.model.register_forward_hook(
            lambda _module, _inputs, output: states.append(output.last_hidden_state)
        )
        backbone.level_logits(backbone.encode(*images), DEFAULT_ASPECT)
        hook.remove()
        logits = backbone.llama.lm_head(torch.cat(states, dim=1))  # (1, L, words)
        return logits, backbone._level_ids[DEFAULT_ASPECT]


class VitReward(nn.Module):
    """ViT-L/16-384 on three images, an encoder of ViT-L's size on all their tokens, a score.

    Args:
        layers: Of the tower and of the encoder; ViT-L has 24.
        width: Of both; ViT-L has 1024.
        device: Where it is made, and computes.
        dtype: Of its weights.
    """

    side = 384

    def __init__(
        self,
        layers: int = 24,
        width: int = 1024,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        config = ViTConfig(
            image_size=self.side,
            patch_size=16,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 64),
        )
        torch.manual_seed(0)
        with torch.device(device):
            self.tower = ViTModel(config, add_pooling_layer=False)
            # Only its layers are used: they see tokens, not pixels.
            self.fusion = ViTModel(config, add_pooling_layer=False).layers
            self.head = nn.Linear(width, 1)
        self.to(device, dtype).eval().requires_grad_(False)

    def forward(self, ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
        """Normalised images (N, 3, 384, 384) -> (N,)."""
        seen = self.tower(torch.cat([ir, vis, fused])).last_hidden_state  # (3N, T, D)
        tokens = torch.cat(seen.chunk(3), dim=1)  # (N, 3T, D)
        for layer in self.fusion:
            tokens = layer(tokens)
        scores: Tensor = self.head(tokens[:, 0])[:, 0]
        return scores

    @torch.no_grad()
    def score(self, triples: Sequence[Triple]) -> Tensor:
        """Score files, all in one batch: (N,)."""
        columns = zip(*triples, strict=True)
        batch = (torch.stack([self._read(path) for path in column]) for column in columns)
        scores: Tensor = self(*(images.to(self.head.weight) for images in batch))
        return scores

    def _read(self, path: Path) -> Tensor:
        picture = Image.open(path).convert("RGB")
        small = picture.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return (_unit_range(small) - 0.5) / 0.5


def _unit_range(picture: Any) -> Tensor:
    """A picture in RGB -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous() / 255
