"""The embedded family: statistics, level logits, gradients, batches, files."""

import pytest
import torch

from fuscore_metric.backbones import FAMILIES, backbone_class
from fuscore_metric.backbones.lite_llama import STATISTICS, LiteLlama
from fuscore_metric.backbones.local_statistics import VARIANCE_FLOOR, LocalStatistics
from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, build_prompt
from tests.tiny_model import tiny_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> LiteLlama:
    return tiny_backbone(tmp_path_factory.mktemp("words"))


def triple(count: int = 2, height: int = 144, width: int = 160, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 3, height, width, generator=generator) for _ in range(3)]


def test_statistics_against_a_plain_computation():
    maps = torch.rand(1, 2, 10, 20, generator=torch.Generator().manual_seed(0))
    other = torch.rand(1, 2, 10, 20, generator=torch.Generator().manual_seed(1))
    found, against = LocalStatistics([maps], 2), LocalStatistics([other], 2)
    cell, cell_other = maps[0, 1, :5, 10:].flatten(), other[0, 1, :5, 10:].flatten()
    assert found.mean[0, 1, 1].item() == pytest.approx(cell.mean().item(), abs=1e-6)
    variance = cell.var(correction=0).item()
    assert found.variance[0, 1, 1].item() == pytest.approx(variance + VARIANCE_FLOOR, abs=1e-6)
    covariance = (cell * cell_other).mean() - cell.mean() * cell_other.mean()
    scale = (variance + VARIANCE_FLOOR) * (cell_other.var(correction=0) + VARIANCE_FLOOR)
    expected = (covariance / scale.sqrt()).item()
    assert found.correlation(against)[0, 1, 1].item() == pytest.approx(expected, abs=1e-5)


def test_an_image_agrees_with_itself_and_not_with_noise(backbone):
    ir, vis, _ = triple(1)
    agreement = backbone.encode(ir, vis, ir)["agreement"]
    with_ir, with_vis = agreement.split(STATISTICS // 2, dim=-1)
    assert with_ir[..., :3].min() > 0.99
    assert with_vis[..., :3].abs().max() < 0.5


def test_level_logits_equal_the_full_models(backbone):
    """The whole vocabulary at the last position, through the native class, the same five rows."""
    encoded = backbone.encode(*triple())
    for aspect in ASPECTS:
        prompt = build_prompt(aspect)
        pieces, tokens = [], backbone._image_tokens(encoded)
        embed = backbone.llama.get_input_embeddings()
        for name, label in prompt.labels:
            ids = torch.tensor([backbone.words.encode(label)] * 2)
            pieces += [embed(ids), tokens[name]]
        question = f"{prompt.question} {prompt.answer_prefix}"
        pieces.append(embed(torch.tensor([backbone.words.encode(question)] * 2)))
        full = backbone.llama(inputs_embeds=torch.cat(pieces, dim=1)).logits[:, -1]
        rows = list(level_token_ids(backbone.words, prompt.answer_prefix))
        assert (backbone.level_logits(encoded, aspect) - full[:, rows]).abs().max() <= 1e-5


def test_the_vocabulary_head_is_never_called(backbone):
    def refuse(*_):
        raise AssertionError("whole vocabulary computed")

    hook = backbone.llama.lm_head.register_forward_hook(refuse)
    try:
        assert backbone.level_logits(backbone.encode(*triple()), "overall").shape == (2, 5)
    finally:
        hook.remove()


def test_gradients_reach_all_three_images(backbone):
    images = [image.requires_grad_() for image in triple()]
    backbone.level_logits(backbone.encode(*images), "overall")[:, 0].sum().backward()
    for image in images:
        assert torch.isfinite(image.grad).all()
        assert image.grad.abs().sum() > 0


def test_gradient_of_flat_images_is_finite(backbone):
    """Zero variance is where a square root or a logarithm would break."""
    images = [torch.full((1, 3, 128, 128), 0.5, requires_grad=True) for _ in range(3)]
    backbone.level_logits(backbone.encode(*images), "overall").sum().backward()
    assert all(torch.isfinite(image.grad).all() for image in images)


def test_a_batch_gives_what_singles_give(backbone):
    images = triple(3)
    together = backbone.level_logits(backbone.encode(*images), "overall")
    for n in range(3):
        alone = backbone.encode(*(image[n : n + 1] for image in images))
        assert torch.allclose(backbone.level_logits(alone, "overall"), together[n], atol=1e-5)


def test_one_source_pair_serves_many_fused_images(backbone):
    ir, vis, fused = triple(3)
    shared = backbone.encode(ir[:1], vis[:1], fused)
    repeated = backbone.encode(ir[:1].repeat(3, 1, 1, 1), vis[:1].repeat(3, 1, 1, 1), fused)
    assert all(torch.equal(shared[name], repeated[name]) for name in repeated)


def test_every_input_and_aspect_matters(backbone):
    images = triple(1)
    known = backbone.level_logits(backbone.encode(*images), "overall")
    for n in range(3):
        changed = list(images)
        changed[n] = images[n].flip(-1) * 0.5
        assert not torch.allclose(
            backbone.level_logits(backbone.encode(*changed), "overall"), known
        )
    assert not torch.allclose(backbone.level_logits(backbone.encode(*images), "sharpness"), known)


def test_sizes_from_thumbnail_to_panorama(backbone):
    for height, width in ((32, 32), (33, 257), (900, 1200)):
        logits = backbone.level_logits(backbone.encode(*triple(1, height, width)), "overall")
        assert torch.isfinite(logits).all()


def test_saved_and_loaded_is_the_same(backbone, tmp_path):
    backbone.save(tmp_path)
    loaded = LiteLlama.load(tmp_path, backbone.preprocessing).eval()
    encoded = backbone.encode(*triple())
    same = loaded.level_logits(loaded.encode(*triple()), "overall")
    assert torch.equal(same, backbone.level_logits(encoded, "overall"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(backbone, tmp_path, dtype):
    backbone.save(tmp_path)
    half = LiteLlama.load(tmp_path, backbone.preprocessing, dtype=dtype).eval()
    images = triple(1, 128, 128)
    close = half.level_logits(half.encode(*images), "overall").float()
    assert torch.allclose(
        close, backbone.level_logits(backbone.encode(*images), "overall"), atol=0.1
    )


def test_families_are_listed_and_unknown_ones_named():
    for family in FAMILIES:
        assert backbone_class(family).family == family
    with pytest.raises(ValueError, match="got 'clip'"):
        backbone_class("clip")
