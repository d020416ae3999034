"""A tiny untrained FuScore of the embedded family, made in a fraction of a second."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from fuscore_metric.backbones.lite_llama import LiteLlama, Words
from fuscore_metric.checkpoint import FuScoreSpec
from fuscore_metric.model import FuScore
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS, build_prompt

LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def tiny_words(folder: Path) -> Words:
    texts = list(LEVEL_WORDS)
    for aspect in ASPECTS:
        prompt = build_prompt(aspect)
        texts += [label for _, label in prompt.labels] + [prompt.question, prompt.answer_prefix]
    split = pre_tokenizers.Whitespace()
    found = dict.fromkeys(word for text in texts for word, _ in split.pre_tokenize_str(text))
    vocabulary = {word: number for number, word in enumerate(["<unk>", *found])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.save(str(folder / "words.json"))
    return Words(folder / "words.json")


def tiny_backbone(folder: Path, seed: int = 0) -> LiteLlama:
    torch.manual_seed(seed)
    return LiteLlama(tiny_words(folder), llama=LLAMA).eval()


def tiny_spec(backbone: LiteLlama) -> FuScoreSpec:
    return FuScoreSpec("tiny", backbone.family, backbone.preprocessing, "none")


def tiny_fuscore(folder: Path, seed: int = 0) -> FuScore:
    backbone = tiny_backbone(folder, seed)
    return FuScore(backbone, tiny_spec(backbone))
