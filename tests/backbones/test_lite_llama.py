"""The embedded family: statistics, level logits, the tree of questions, gradients, files."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from fuscore_metric.backbones import FAMILIES, backbone_class
from fuscore_metric.backbones.lite.cells import AGREEMENT, OCTAVES, REFERENCES, STATISTICS
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.lite.local_statistics import (
    VARIANCE_FLOOR,
    LocalStatistics,
    Maps,
    edge_pyramid,
    stronger,
    with_edges,
)
from fuscore_metric.backbones.lite.relations import RELATIONS
from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, build_prompt
from tests.helpers.tiny_model import tiny_backbone


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "relations"])
def relations(request) -> bool:
    return request.param


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, relations) -> LiteLlama:
    return tiny_backbone(tmp_path_factory.mktemp("words"), relations=relations)


@pytest.fixture(scope="module")
def loud(tmp_path_factory, relations) -> LiteLlama:
    """A backbone whose answers depend on every token: a new one's hardly do on the images."""
    made = tiny_backbone(tmp_path_factory.mktemp("words"), seed=1, relations=relations)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() == 2 and not name.startswith("vision."):
                weight.normal_(std=0.4)
        made.standardise(made.encode(*triple(4, seed=1)))
    return made


def triple(count: int = 2, height: int = 144, width: int = 160, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 3, height, width, generator=generator) for _ in range(3)]


def whole_prompt_logits(backbone, encoded, aspect):
    """The native class reads each triple's whole prompt, one after another: (N, 5)."""
    prompt, pair, count = build_prompt(aspect), encoded["pair"], len(encoded["pair"])
    references = {name: encoded[name][pair] for name in REFERENCES}
    compared = [encoded["fused"], *references.values(), encoded["agreement"]]
    compared += [encoded["relation"]] if backbone.relations else []
    places = encoded["source_cells"][pair]
    images = {
        "ir": (references["ir"], places),
        "vis": (references["vis"], places),
        "fused": (torch.cat(compared, dim=-1), encoded["cells"]),
    }

    def words(text):
        ids = torch.tensor([backbone.words.encode(text)] * count)
        return backbone.llama.get_input_embeddings()(ids)

    pieces = []
    for name, label in prompt.labels:
        statistics, cells = images[name]
        tokens = backbone.projectors[name](statistics) + backbone.cell_embedding(cells)
        pieces += [words(label), tokens]
        if name == "fused" and backbone.relations:
            moments = statistics.mean(1), (statistics.var(1, correction=0) + 1e-8).sqrt()
            pieces.append(backbone.projectors["whole"](torch.cat(moments, dim=-1))[:, None])
    pieces.append(words(f"{prompt.question} {prompt.answer_prefix}"))
    logits = backbone.llama(inputs_embeds=torch.cat(pieces, dim=1)).logits[:, -1]
    return logits[:, list(level_token_ids(backbone.words, prompt.answer_prefix))]


def test_statistics_against_a_plain_computation():
    maps = torch.rand(1, 2, 10, 20, generator=torch.Generator().manual_seed(0))
    other = torch.rand(1, 2, 10, 20, generator=torch.Generator().manual_seed(1))
    against = LocalStatistics(Maps([other], []), 2)
    found = LocalStatistics(Maps([maps], []), 2, [against])
    cell, cell_other = maps[0, 1, :5, 10:].flatten(), other[0, 1, :5, 10:].flatten()
    assert found.mean[0, 1, 1].item() == pytest.approx(cell.mean().item(), abs=1e-6)
    variance = cell.var(correction=0).item()
    assert found.variance[0, 1, 1].item() == pytest.approx(variance + VARIANCE_FLOOR, abs=1e-6)
    covariance = (cell * cell_other).mean() - cell.mean() * cell_other.mean()
    scale = (variance + VARIANCE_FLOOR) * (cell_other.var(correction=0) + VARIANCE_FLOOR)
    expected = (covariance / scale.sqrt()).item()
    assert found.correlations()[0][0, 1, 1].item() == pytest.approx(expected, abs=1e-5)


def test_an_image_agrees_with_itself_and_not_with_noise(backbone):
    ir, vis, _ = triple(1)
    agreement = backbone.encode(ir, vis, ir)["agreement"]
    with_ir, with_vis, with_stronger = agreement.split(AGREEMENT, dim=-1)
    assert with_ir[..., :3].min() > 0.99
    assert with_vis[..., :3].abs().max() < 0.5
    assert (with_stronger[..., :3] > with_vis[..., :3]).all()
    assert with_stronger[..., :3].max() < 0.9


def test_edges_against_scipy():
    pixels = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    found = with_edges(pixels)[0]
    assert torch.equal(found[:3], pixels[0])
    grey = pixels[0].mean(0).double().numpy()
    gradient = np.hypot(*(ndimage.sobel(grey, axis, mode="nearest") / 4 for axis in (0, 1)))
    laplacian = np.abs(ndimage.laplace(grey, mode="nearest")) / 2
    assert found[3].numpy() == pytest.approx(gradient, abs=1e-3)  # a root kept off 0
    assert found[4].numpy() == pytest.approx(laplacian, abs=1e-6)
    mirrored = with_edges(pixels.flip(-1))[0].flip(-1)
    assert torch.allclose(mirrored, found, atol=1e-6)


def test_the_pyramid_sees_edges_at_halves_of_the_scale():
    pixels = torch.rand(1, 3, 12, 15, generator=torch.Generator().manual_seed(0))
    own, half, quarter = edge_pyramid(pixels, 2)
    assert torch.equal(own, with_edges(pixels))
    assert (half.shape, quarter.shape) == ((1, 3, 6, 8), (1, 3, 3, 4))
    grey = pixels[0].mean(0)
    assert half[0, 0, 1, 2].item() == pytest.approx(grey[2:4, 4:6].mean().item())
    assert half[0, 0, 1, 7].item() == pytest.approx(grey[2:4, 14].mean().item())  # inside only
    assert torch.equal(half, with_edges(half[:, :1]))


def test_looks_count_alike():
    """A second look at the same place is more samples of the same cell."""
    one, other = torch.rand(2, 1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = torch.zeros(1, 1, 8, 8)
    found = LocalStatistics(Maps([pixels], [(one, other)]), 2)
    cell = torch.cat([one[0, 1, :4, 4:].flatten(), other[0, 1, :4, 4:].flatten()])
    assert found.mean[0, 1, 2].item() == pytest.approx(cell.mean().item(), abs=1e-6)
    variance = cell.var(correction=0).item() + VARIANCE_FLOOR
    assert found.variance[0, 1, 2].item() == pytest.approx(variance, abs=1e-6)


def test_a_second_look_makes_a_mirror_image_alike(backbone):
    """So that neither a filter's slant nor the phase of its strides decides."""
    coarse, side = triple(1, 40, 48)[0], backbone.preprocessing["grid"]
    images = F.interpolate(coarse, scale_factor=4, mode="bicubic")  # edges, as pictures have them

    def change(maps_of):
        upright, mirrored = (
            LocalStatistics(maps_of(pixels), side).tokens() for pixels in (images, images.flip(-1))
        )
        back = mirrored.unflatten(1, (side, side)).flip(2).flatten(1, 2)
        return (upright - back).abs().mean()

    def one_look(pixels):
        return Maps(edge_pyramid(pixels, OCTAVES), [(m,) for m in backbone.vision(pixels)])

    assert change(backbone._maps) < 0.3 * change(one_look)


def test_the_stronger_source_is_the_brighter_pixel_and_the_larger_feature():
    one = Maps([torch.tensor([-1.0, 0.5, 0.0])], [(torch.tensor([-3.0, 2.0, 1.0]),)])
    other = Maps([torch.tensor([-2.0, 0.7, 0.0])], [(torch.tensor([2.0, -1.0, -4.0]),)])
    for found in (stronger(one, other), stronger(other, one)):
        assert found.pixels[0].tolist() == pytest.approx([-1.0, 0.7, 0.0])
        assert found.features[0][0].tolist() == [-3.0, 2.0, -4.0]


def whole_prompt_logits_of_all(backbone, encoded):
    logits = [whole_prompt_logits(backbone, encoded, aspect) for aspect in ASPECTS]
    return torch.stack(logits, dim=1)


def in_another_order(encoded):
    """Four triples of three source pairs: the third, the first, the third again, the second."""
    rows, pair = torch.tensor([2, 0, 1, 3]), torch.tensor([2, 0, 2, 1])
    own = {name: x[rows] for name, x in encoded.items() if name != "pair"}
    shared = {name: encoded[name][:3] for name in (*REFERENCES, "source_cells")}
    return own | shared | {"pair": pair}


def test_statistics_have_the_shapes_promised(backbone):
    encoded, cells = backbone.encode(*triple()), backbone.preprocessing["grid"] ** 2
    assert cells == 16
    for name in ("ir", "vis", "stronger", "fused"):
        assert encoded[name].shape == (2, cells, STATISTICS)
    assert encoded["agreement"].shape == (2, cells, 3 * AGREEMENT)
    if backbone.relations:
        assert encoded["relation"].shape == (2, cells, RELATIONS)
    assert encoded["source_cells"].tolist() == encoded["cells"].tolist() == [list(range(cells))] * 2
    assert encoded["pair"].tolist() == [0, 1]


def test_the_statistics_of_one_image_are_pixel_means_and_every_spread():
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features = torch.rand(1, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    found = LocalStatistics(Maps([pixels], [(features,)]), 2)
    means, spreads = found.tokens().split([3, 8], dim=-1)
    assert means[0, 1].tolist() == pytest.approx(pixels[0, :, :8, 8:].mean((1, 2)).tolist())
    deviation = (features[0, 4, :4, 4:].var(correction=0) + VARIANCE_FLOOR).sqrt()
    assert spreads[0, 1, -1].item() == pytest.approx(deviation.log().item(), abs=1e-5)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_level_logits_equal_the_full_models(loud, aspect):
    """The whole vocabulary at the last position, through the native class, the same five rows."""
    encoded = loud.encode(*triple())
    full = whole_prompt_logits(loud, encoded, aspect)
    assert (loud.level_logits(encoded, aspect) - full).abs().max() <= 1e-5


@pytest.mark.parametrize("aspects", [ASPECTS, ASPECTS[::-1], ("sharpness", "overall")])
def test_the_tree_equals_whole_prompts(loud, aspects):
    """Several questions behind one fused image, pairs shared: each as if it stood alone."""
    encoded = in_another_order(loud.encode(*triple(4)))
    found = loud.aspect_logits(encoded, aspects)
    assert found.shape == (4, len(aspects), 5)
    for number, aspect in enumerate(aspects):
        whole = whole_prompt_logits(loud, encoded, aspect)
        assert (found[:, number] - whole).abs().max() <= 1e-5


def test_all_aspects_at_once_equal_one_at_a_time(loud):
    encoded = loud.encode(*triple())
    one_by_one = torch.stack([loud.level_logits(encoded, aspect) for aspect in ASPECTS], dim=1)
    assert (loud.aspect_logits(encoded, ASPECTS) - one_by_one).abs().max() <= 1e-5


def test_an_unknown_aspect_is_refused(backbone):
    encoded = backbone.encode(*triple(1))
    with pytest.raises(ValueError, match="got 'beauty'"):
        backbone.aspect_logits(encoded, ("overall", "beauty"))


def test_fused_images_find_their_source_pair(loud):
    """As many pairs as fused images, in another order: the numbers alone do not say which."""
    encoded = loud.encode(*triple(2))
    swapped = encoded | {name: encoded[name].flip(0) for name in REFERENCES}
    swapped["pair"] = torch.tensor([1, 0])
    assert (
        loud.aspect_logits(swapped, ASPECTS) - whole_prompt_logits_of_all(loud, encoded)
    ).abs().max() <= 1e-5


def test_gradients_through_the_cache_equal_the_whole_prompts(loud):
    """What comes before the fused image reaches the answer only by its keys and values."""
    encoded = in_another_order(loud.encode(*triple(4)))
    weights = [
        loud.projectors["ir"].layers[0].weight,
        loud.llama.model.layers[0].self_attn.k_proj.weight,
        loud.llama.model.layers[-1].self_attn.v_proj.weight,
        loud.cell_embedding.weight,
    ]
    tree = loud.aspect_logits(encoded, ASPECTS)[..., 0].sum()
    whole = whole_prompt_logits_of_all(loud, encoded)[..., 0].sum()
    for found, expected in zip(
        torch.autograd.grad(tree, weights), torch.autograd.grad(whole, weights), strict=True
    ):
        assert expected.abs().max() > 1e-4
        assert (found - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


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


def test_one_source_pair_serves_many_fused_images(loud):
    ir, vis, fused = triple(3)
    shared = loud.encode(ir[:1], vis[:1], fused)
    repeated = loud.encode(ir[:1].repeat(3, 1, 1, 1), vis[:1].repeat(3, 1, 1, 1), fused)
    for name in ("fused", "agreement", "cells"):
        assert torch.equal(shared[name], repeated[name])
    for name in (*REFERENCES, "source_cells"):
        assert torch.equal(shared[name], repeated[name][:1])
    assert shared["pair"].tolist() == [0, 0, 0]
    once, thrice = (loud.aspect_logits(encoded, ASPECTS) for encoded in (shared, repeated))
    assert (once - thrice).abs().max() <= 1e-5


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
    for height, width in ((32, 32), (33, 257), (600, 800)):
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
    assert half.dtype == dtype
    images = triple(1, 128, 128)
    close = half.aspect_logits(half.encode(*images), ASPECTS)
    assert close.dtype == torch.float32
    whole = backbone.aspect_logits(backbone.encode(*images), ASPECTS)
    assert torch.allclose(close, whole, atol=0.1)


def test_families_are_listed_and_unknown_ones_named():
    for family in FAMILIES:
        assert backbone_class(family).family == family
    with pytest.raises(ValueError, match="got 'clip'"):
        backbone_class("clip")
