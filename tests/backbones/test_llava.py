"""LLaVA on tiny random models with each kind of tower: against transformers' own forward."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from benchmarks.tiny_llava import TOWERS, tiny_backbone, tiny_model, tokenizer
from benchmarks.tiny_qwen import VOCABULARY
from fuscore_metric import FuScore, FuScoreSpec
from fuscore_metric.attribution import integrated_gradients
from fuscore_metric.backbones.lite.cells import projected_statistics
from fuscore_metric.backbones.llava.llava import Llava, LlavaChat
from fuscore_metric.backbones.pretrained import prompted_vl
from fuscore_metric.errors import CheckpointError
from fuscore_metric.levels import LEVEL_WORDS
from fuscore_metric.prompts import ANSWER_PREFIXES, ASPECTS, QUESTIONS
from tests.backbones.conftest import as_batch
from tests.backbones.test_qwen_backbones import NoVocabulary, logits, triple, watched
from tests.helpers.tiny_model import tiny_backbone as tiny_lite


@pytest.fixture(params=[*TOWERS, "statistics"])
def backbone(request) -> Llava:
    if request.param == "statistics":
        return tiny_backbone("dinov2", statistics=True)
    return tiny_backbone(request.param)


def native_logits(backbone, images, aspect):
    """Level logits of transformers' own forward over the whole vocabulary, of one triple each."""
    pixels = torch.stack([backbone.pixels(image) for image in images], dim=1).flatten(0, 1)
    count = pixels.shape[-2] * pixels.shape[-1] // 14**2
    image = "<image>" * count + "\n"
    text = (
        f"<|im_start|>system\n{LlavaChat.system}<|im_end|>\n<|im_start|>user\n"
        f"Infrared image:{image}Visible image:{image}Fused image:{image}"
        f"{QUESTIONS[aspect]}<|im_end|>\n<|im_start|>assistant\n{ANSWER_PREFIXES[aspect]}"
    )
    ids = torch.tensor(tokenizer().encode(text)).expand(len(images[0]), -1)
    output = LlavaForConditionalGeneration.forward(
        backbone.model, input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels
    )
    assert output.logits.shape == (*ids.shape, VOCABULARY)
    words = tokenizer().convert_tokens_to_ids([f"Ġ{word}" for word in LEVEL_WORDS])
    return output.logits[:, -1, words]


@pytest.mark.parametrize(("tower", "layers"), [*((t, None) for t in TOWERS), ("clip", -2)])
def test_equals_the_native_forward(tower, layers):
    backbone = tiny_backbone(tower, layers=layers)
    for aspect in ("overall", "sharpness"):
        native = native_logits(backbone, triple(), aspect)
        assert native.std(-1).min() > 0.1  # else equality would say little
        ours = logits(backbone, triple(), aspect)
        torch.testing.assert_close(ours, native, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("tower", "processor"), [("clip", CLIPImageProcessorPil), ("siglip", SiglipImageProcessorPil)]
)
def test_the_normalisation_is_that_of_the_native_processor(tower, processor):
    eight_bit = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    options = {"do_resize": False, "do_center_crop": False}
    native = processor(**options)(
        images=[Image.fromarray(image) for image in eight_bit], return_tensors="pt"
    )
    ours = tiny_backbone(tower).pixels(as_batch(eight_bit))
    torch.testing.assert_close(ours, native["pixel_values"], atol=1e-5, rtol=0)


def test_some_towers_take_images_in_their_own_shape():
    wide = torch.rand(1, 3, 60, 120)
    assert tiny_backbone("clip").pixels(wide).shape == (1, 3, 56, 56)
    assert tiny_backbone("dinov2").pixels(wide).shape == (1, 3, 28, 70)
    assert tiny_backbone("dinov2", max_pixels=10**5).pixels(wide).shape == (1, 3, 56, 126)


def test_pieces_on_a_cpu_change_nothing(backbone, monkeypatch):
    whole = backbone.aspect_logits(backbone.encode(*triple(3)), ASPECTS)
    images_seen, rows_read = [], []
    with (
        watched(backbone.model.model.vision_tower, images_seen),
        watched(backbone.model.model.language_model, rows_read),
    ):
        monkeypatch.setattr(prompted_vl, "CHUNK_BYTES", 1)
        pieces = backbone.aspect_logits(backbone.encode(*triple(3)), ASPECTS)
    assert (len(images_seen), len(rows_read)) == (9, 6)
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_aspects_at_once_equal_one_at_a_time(backbone, checkpointing):
    alone = [logits(backbone, triple(3), aspect) for aspect in ASPECTS]
    if checkpointing:  # then layers keep no keys and values, and the sources are read with each
        backbone.model.gradient_checkpointing_enable()
        backbone.train()
    with NoVocabulary() if not checkpointing else nullcontext():
        together = backbone.aspect_logits(backbone.encode(*triple(3)), ASPECTS)
    torch.testing.assert_close(together, torch.stack(alone, dim=1), atol=1e-5, rtol=0)


def test_a_prefix_serves_many_candidates(backbone):
    ir, vis, fused = triple(4)
    sources = backbone.encode_sources(ir[:2], vis[:2])
    encoded = backbone.encode_fused(sources, fused[:3], torch.tensor([1, 0, 1]))
    prefix = backbone.read_sources(encoded)
    found = backbone.aspect_logits(encoded, ("overall",), prefix)
    again = backbone.encode_fused(sources, fused[3:], torch.tensor([0]))
    found = torch.cat([found, backbone.aspect_logits(again, ("overall",), prefix)])[:, 0]
    pair = torch.tensor([1, 0, 1, 0])
    expected = logits(backbone, (ir[pair], vis[pair], fused))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    singles = [
        logits(backbone, (ir[p : p + 1], vis[p : p + 1], fused[n : n + 1]))
        for n, p in enumerate(pair.tolist())
    ]
    torch.testing.assert_close(found, torch.cat(singles), atol=1e-5, rtol=0)


def test_every_image_matters_and_has_the_slope_as_gradient(backbone):
    images = [image.requires_grad_() for image in triple(1)]
    reference = logits(backbone, images)
    ir, vis, fused = images
    for other in ((vis, ir, fused), (ir, fused, vis), (fused, vis, ir)):
        assert (logits(backbone, other) - reference).abs().max() > 1e-3
    slopes = torch.autograd.grad(reference[0, 0], images)
    for number, slope in enumerate(slopes):
        assert slope.isfinite().all()
        assert slope.abs().max() > 1e-4
        direction, step = slope.sign(), 1e-4

        def shifted(amount, number=number, direction=direction):
            moved = [x + amount * direction * (n == number) for n, x in enumerate(images)]
            with torch.no_grad():
                return logits(backbone, moved)[0, 0]

        numeric = (shifted(step) - shifted(-step)) / (2 * step)
        torch.testing.assert_close(numeric, (slope * direction).sum(), rtol=0.05, atol=0)


def test_the_statistics_are_those_of_the_embedded_family(tmp_path):
    backbone = tiny_backbone(statistics=True)
    statistics = backbone.model.model.statistics
    lite = tiny_lite(tmp_path, relations=True)
    lite.preprocessing = statistics.preprocessing
    lite.vision.load_state_dict(statistics.vision.state_dict())
    expected = projected_statistics(lite.encode(*triple()))
    encoded = backbone.encode(*triple())
    for name, values in expected.items():
        assert torch.equal(encoded[f"{name}_cells"], values)


def test_statistics_may_be_left_out():
    without = tiny_backbone(statistics=True)
    without = Llava(without.model, tokenizer(), {**without.preprocessing, "statistics": False})
    assert not any("statistics" in name for name, _ in without.named_parameters())
    native = native_logits(without, triple(), "overall")
    torch.testing.assert_close(logits(without, triple()), native, atol=1e-5, rtol=0)
    assert tiny_backbone(statistics=True).preprocessing["statistics"]["grid"] == 2
    with pytest.raises(ValueError, match="statistics"):
        Llava(tiny_model(statistics=True), tokenizer(), {"statistics": {"grid": 3}})
    with pytest.raises(ValueError, match="statistics"):
        Llava(tiny_model(), tokenizer(), {"statistics": True})


def test_the_tower_may_be_left_out():
    whole = tiny_backbone(statistics=True)
    options = {**whole.preprocessing, "tower": False}
    without = Llava(whole.model, tokenizer(), options)
    before = logits(without, triple())
    images_seen = []
    with watched(without.model.model.vision_tower, images_seen), torch.no_grad():
        without.model.model.multi_modal_projector.linear_1.weight.mul_(2)
        torch.testing.assert_close(logits(without, triple()), before)
    assert not images_seen
    assert (logits(whole, triple()) - before).abs().max() > 1e-3
    with pytest.raises(ValueError, match="neither"):
        Llava(whole.model, tokenizer(), {**options, "statistics": False})


def test_save_then_load_is_the_same(backbone, tmp_path):
    backbone.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".jinja"}
    loaded = Llava.load(tmp_path, backbone.preprocessing)
    assert loaded.preprocessing == backbone.preprocessing
    assert torch.equal(logits(loaded, triple()), logits(backbone, triple()))
    half = Llava.load(tmp_path, backbone.preprocessing, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    small = {p.dtype for name, p in half.named_parameters() if ".statistics." in name}
    assert small <= {torch.float32}, "variances are small differences of large sums"
    answer = logits(half, triple())
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, logits(backbone, triple()), atol=0.3, rtol=0)
    incomplete = {k: v for k, v in backbone.preprocessing.items() if k != "image_mean"}
    with pytest.raises(CheckpointError, match="image_mean"):
        Llava.load(tmp_path, incomplete)


def test_scores_attribution_and_int8(tmp_path):
    backbone = tiny_backbone(statistics=True)
    spec = FuScoreSpec("tiny", "llava", backbone.preprocessing, "none")
    FuScore(backbone, spec).save_pretrained(tmp_path)
    model = FuScore.from_pretrained(tmp_path, device="cpu")
    ir, vis, fused = triple(1)
    before, after = (model(ir, vis, x).score for x in (fused, vis))
    share = integrated_gradients(model, ir, vis, fused, vis, steps=8)
    assert share.shape == (1, 70, 100)
    torch.testing.assert_close(share.sum((1, 2)), after - before, atol=0.02, rtol=0.1)
    quantised = FuScore.from_pretrained(tmp_path, quantize="int8")
    assert (quantised(ir, vis, fused).score - before).abs() < 0.2


def test_unknown_parts_are_refused():
    text = {"model_type": "llama", "hidden_size": 32, "vocab_size": VOCABULARY}
    for parts, message in (
        ({"vision_config": {"model_type": "vit"}, "text_config": text}, "vision tower"),
        (
            {"vision_config": {"model_type": "dinov2"}, "text_config": {"model_type": "gpt2"}},
            "gpt2",
        ),
    ):
        with pytest.raises(ValueError, match=message), torch.device("meta"):
            type(tiny_model())(LlavaConfig(**parts))
    with pytest.raises(ValueError, match="'excellent' to be one token"):
        Llava(tiny_model(), tokenizer(split_excellent=True), None)
    model = tiny_model()
    model.config.image_token_id += 1
    with pytest.raises(ValueError, match="<image>"):
        Llava(model, tokenizer(), None)
