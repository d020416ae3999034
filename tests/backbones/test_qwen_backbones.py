"""Qwen-VL families on tiny random models: against transformers' own forward."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.tiny_qwen import FAMILIES, SMALL, VOCABULARY, tiny_backbone, tiny_model, tokenizer
from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.pretrained import prompted_vl
from fuscore_metric.errors import CheckpointError
from fuscore_metric.levels import LEVEL_WORDS
from fuscore_metric.prompts import ANSWER_PREFIXES, ASPECTS, IMAGE_ORDER, QUESTIONS
from tests.backbones.conftest import as_batch, processor

SYSTEM = {
    "qwen2_5_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
    "qwen3_vl": "",
}


def triple(count=2, height=70, width=100, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, 3, height, width, generator=generator) for _ in range(3))


def logits(backbone, images, aspect="overall"):
    return backbone.level_logits(backbone.encode(*images), aspect)


def chat(family, tokens, aspect):
    """The prompt as a processor would write it, in full."""
    image = "<|vision_start|>" + "<|image_pad|>" * tokens + "<|vision_end|>\n"
    return (
        f"{SYSTEM[family]}<|im_start|>user\n"
        f"Infrared image:{image}Visible image:{image}Fused image:{image}"
        f"{QUESTIONS[aspect]}<|im_end|>\n<|im_start|>assistant\n{ANSWER_PREFIXES[aspect]}"
    )


def native_logits(backbone, pixels, grid, aspect):
    """Level logits of transformers' own forward over the whole vocabulary.

    `pixels` and `grid` hold the images in the order ir, vis, fused of the first triple, of the
    second, ...
    """
    count = len(grid) // 3
    tokens = int(grid[0].prod()) // 4
    ids = torch.tensor(tokenizer().encode(chat(backbone.family, tokens, aspect)))
    ids = ids.expand(count, -1)  # (N, L)
    output = backbone.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=pixels,
        image_grid_thw=grid,
        mm_token_type_ids=(ids == backbone.model.config.image_token_id).int(),
    )
    assert output.logits.shape == (*ids.shape, VOCABULARY)
    words = tokenizer().convert_tokens_to_ids([f"Ġ{word}" for word in LEVEL_WORDS])
    return output.logits[:, -1, words]


@pytest.mark.parametrize("aspect", ASPECTS)
def test_equals_the_native_forward(backbone, aspect):
    images = triple()
    pixels, grid = backbone.pixels(torch.stack(images, dim=1).flatten(0, 1))
    native = native_logits(backbone, pixels, grid, aspect)
    ours = logits(backbone, images, aspect)
    assert ours.shape == (2, 5)
    assert native.std(-1).min() > 0.1  # else equality would say little
    torch.testing.assert_close(ours, native, atol=1e-5, rtol=0)


def test_equals_the_native_forward_with_the_native_processor(backbone):
    window = backbone.preprocessing["patch_size"] * 2
    eight_bit = np.random.default_rng(0).integers(0, 256, (6, 3 * window, 4 * window, 3), np.uint8)
    processed = processor(Qwen2VLImageProcessorPil, backbone)(
        images=[Image.fromarray(image) for image in eight_bit], return_tensors="pt"
    )
    native = native_logits(
        backbone, processed["pixel_values"], processed["image_grid_thw"], "overall"
    )
    images = as_batch(eight_bit)
    ours = logits(backbone, (images[::3], images[1::3], images[2::3]))
    torch.testing.assert_close(ours, native, atol=1e-5, rtol=0)


def test_encoding_has_a_row_for_each_triple(backbone):
    encoded = backbone.encode(*triple(2))
    window = backbone.preprocessing["patch_size"] * 2
    rows, columns = round(70 / window), round(100 / window)
    assert {len(tensor) for tensor in encoded.values()} == {2}
    assert encoded["grid"].tolist() == [[1, 2 * rows, 2 * columns]] * 2
    for name in IMAGE_ORDER:
        assert encoded[name].shape == (2, rows * columns, 32)
    deepstack = {name for name in encoded if "deepstack" in name}
    assert len(deepstack) == (3 if backbone.family == "qwen3_vl" else 0)
    assert all(encoded[name].shape == (2, 2, rows * columns, 32) for name in deepstack)


def test_batch_equals_singles(backbone):
    images = triple(3)
    singles = [logits(backbone, [batch[i : i + 1] for batch in images]) for i in range(3)]
    torch.testing.assert_close(logits(backbone, images), torch.cat(singles), atol=1e-5, rtol=0)


def test_pieces_on_a_cpu_change_nothing(backbone, monkeypatch):
    images = triple(3)
    whole = backbone.aspect_logits(backbone.encode(*images), ASPECTS)
    images_seen, rows_read = [], []
    with (
        watched(backbone.model.model.visual, images_seen),
        watched(backbone.model.model.language_model, rows_read),
    ):
        monkeypatch.setattr(prompted_vl, "CHUNK_BYTES", 1)
        pieces = backbone.aspect_logits(backbone.encode(*images), ASPECTS)
    assert len(images_seen) == 9
    assert [len(read.last_hidden_state) for read in rows_read] == [1] * 6
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_aspects_at_once_equal_one_at_a_time(backbone, checkpointing):
    """Questions side by side behind one fused image, each as if it stood alone."""
    if checkpointing:  # then layers keep no keys and values, and the sources are read with each
        backbone.model.gradient_checkpointing_enable()
        backbone.train()
    encoded = backbone.encode(*triple(3))
    together = backbone.aspect_logits(encoded, ASPECTS)
    assert together.shape == (3, len(ASPECTS), 5)
    alone = [logits(tiny_backbone(backbone.family), triple(3), aspect) for aspect in ASPECTS]
    torch.testing.assert_close(together, torch.stack(alone, dim=1), atol=1e-5, rtol=0)


def test_a_prefix_serves_many_candidates(backbone):
    """What was read of two source pairs, used twice, in another order."""
    ir, vis, fused = triple(4)
    sources = backbone.encode_sources(ir[:2], vis[:2])
    pair = torch.tensor([1, 0, 1])
    encoded = backbone.encode_fused(sources, fused[:3], pair)
    prefix = backbone.read_sources(encoded)
    before = [(keys.clone(), values.clone()) for keys, values in prefix]
    found = backbone.aspect_logits(encoded, ("overall",), prefix)
    again = backbone.encode_fused(sources, fused[3:], torch.tensor([0]))
    found = torch.cat([found, backbone.aspect_logits(again, ("overall",), prefix)])[:, 0]
    pair = torch.tensor([1, 0, 1, 0])
    torch.testing.assert_close(
        found, logits(backbone, (ir[pair], vis[pair], fused)), atol=1e-5, rtol=0
    )
    for old, new in zip(before, prefix, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_one_source_pair_for_all_candidates(backbone):
    ir, vis, fused = triple(3)
    shared = logits(backbone, (ir[:1], vis[:1], fused))
    repeated = logits(backbone, (ir[:1].expand_as(ir), vis[:1].expand_as(vis), fused))
    torch.testing.assert_close(shared, repeated, atol=1e-5, rtol=0)


def test_rows_of_one_length_may_differ_in_shape(backbone):
    # 2 x 3 and 3 x 2 windows: as many tokens, other positions.
    window = backbone.preprocessing["patch_size"] * 2
    shapes = ((2 * window, 3 * window), (3 * window, 2 * window))
    parts = [backbone.encode(*triple(1, *shape)) for shape in shapes]
    both = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    both["pair"] = torch.tensor([0, 1])
    singles = torch.cat([backbone.level_logits(part, "overall") for part in parts])
    joint = backbone.level_logits(both, "overall")
    torch.testing.assert_close(joint, singles, atol=1e-5, rtol=0)
    for name in ("grid", "source_grid"):
        both[name] = both[name][:1].expand(2, -1)
    assert (backbone.level_logits(both, "overall") - singles).abs().max() > 1e-3


def test_every_image_and_question_matters(backbone):
    ir, vis, fused = triple(1)
    reference = logits(backbone, (ir, vis, fused))
    for other in ((vis, ir, fused), (ir, fused, vis), (fused, vis, ir)):
        assert (logits(backbone, other) - reference).abs().max() > 1e-3
    encoded = backbone.encode(ir, vis, fused)
    answers = torch.cat([backbone.level_logits(encoded, aspect) for aspect in ASPECTS])
    assert torch.pdist(answers).min() > 1e-3
    with pytest.raises(ValueError, match="`aspect`"):
        backbone.level_logits(encoded, "beauty")


class NoVocabulary(TorchDispatchMode):
    """Fails on any operation whose result has an axis of the vocabulary's size."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        del types
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            assert not isinstance(leaf, torch.Tensor) or VOCABULARY not in leaf.shape, function
        return result


@contextmanager
def watched(module, calls):
    handle = module.register_forward_hook(lambda _module, _args, output: calls.append(output))
    yield
    handle.remove()


def test_only_five_rows_at_the_last_position(backbone):
    head_calls: list[Any] = []
    language_calls: list[Any] = []
    images = triple()
    with (
        watched(backbone.model.lm_head, head_calls),
        watched(backbone.model.model.language_model, language_calls),
        NoVocabulary(),
    ):
        logits(backbone, images)
    assert not head_calls
    assert len(language_calls) == 2  # the sources, then what stands behind them
    with pytest.raises(AssertionError), NoVocabulary():
        backbone.model.lm_head(torch.zeros(1, 32))


def test_gradient_reaches_every_image_and_parameter(backbone):
    images = [image.requires_grad_() for image in triple(2)]
    logits(backbone, images)[:, 4].sum().backward()
    for image in images:
        assert image.grad is not None
        assert image.grad.isfinite().all()
        assert (image.grad.abs().amax((1, 2, 3)) > 1e-4).all()
    parameters = dict(backbone.named_parameters())
    untouched = [name for name, value in parameters.items() if value.grad is None]
    assert untouched == []
    assert all(value.grad.isfinite().all() for value in parameters.values())


def test_gradient_is_the_slope(backbone):
    ir, vis, fused = triple(1)
    fused.requires_grad_()
    (slope,) = torch.autograd.grad(logits(backbone, (ir, vis, fused))[0, 0], fused)
    direction = slope.sign()
    step = 1e-3

    def shifted(amount):
        with torch.no_grad():
            return logits(backbone, (ir, vis, fused + amount * direction))[0, 0]

    numeric = (shifted(step) - shifted(-step)) / (2 * step)
    torch.testing.assert_close(numeric, (slope * direction).sum(), rtol=0.02, atol=0)


def test_save_then_load_is_the_same(backbone, tmp_path):
    backbone.save(tmp_path / "made")
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {name.rsplit(".")[-1] for name in names} <= {"json", "safetensors", "jinja"}
    loaded = type(backbone).load(tmp_path / "made", backbone.preprocessing)
    assert loaded.preprocessing == backbone.preprocessing
    assert loaded.model.config._attn_implementation == "sdpa"
    images = triple()
    torch.testing.assert_close(logits(loaded, images), logits(backbone, images), atol=0, rtol=0)
    base = type(backbone).from_base(str(tmp_path / "made"), preprocessing=SMALL)
    torch.testing.assert_close(logits(base, images), logits(backbone, images), atol=0, rtol=0)


def test_loads_in_bfloat16(backbone, tmp_path):
    backbone.save(tmp_path)
    half = type(backbone).load(tmp_path, backbone.preprocessing, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    images = triple()
    answer = logits(half, images)
    assert answer.dtype == torch.float32
    # bfloat16 keeps 8 bits; measured 0.04.
    torch.testing.assert_close(answer, logits(backbone, images), atol=0.2, rtol=0)


def test_incomplete_preprocessing_is_refused_at_load(backbone, tmp_path):
    backbone.save(tmp_path)
    incomplete = {k: v for k, v in backbone.preprocessing.items() if k != "image_mean"}
    with pytest.raises(CheckpointError, match="image_mean"):
        type(backbone).load(tmp_path, incomplete)


def test_weights_of_another_family_are_refused(backbone, tmp_path):
    backbone.save(tmp_path)
    (other,) = set(FAMILIES) - {backbone.family}
    with pytest.raises(CheckpointError, match="missing"):
        backbone_class(other).load(tmp_path, backbone.preprocessing)


def test_split_level_word_is_refused_at_load(backbone, tmp_path):
    backbone.save(tmp_path)
    tokenizer(split_excellent=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'excellent' to be one token"):
        type(backbone).load(tmp_path, backbone.preprocessing)


def test_tokenizer_without_the_special_tokens_is_refused(family):
    model = tiny_model(family)
    model.config.image_token_id += 1
    with pytest.raises(ValueError, match="image_pad"):
        backbone_class(family)(model, tokenizer(), None)
