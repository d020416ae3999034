"""Where a map is high: its form, what it adds up to, where it points."""

import numpy as np
import pytest
import torch

from fuscore_metric import FuScore, InputError
from fuscore_metric.attribution import attribute, integrated_gradients, plain_fusion
from fuscore_metric.drawing.overlay import FULL_SCALE, colours, overlay, painted
from fuscore_metric.images.colour import luma
from fuscore_metric.images.convert import as_images
from tests.helpers import EXAMPLE
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def embedded() -> FuScore:
    return FuScore.from_pretrained()


def batch(number: int = 1, height: int = 96, width: int = 128) -> list[torch.Tensor]:
    """(N, 3, H, W) each: smooth shapes, so that fusing them means something."""
    rng = torch.Generator().manual_seed(0)
    small = torch.rand(3, number, 3, 6, 8, generator=rng)
    return [torch.nn.functional.interpolate(x, (height, width), mode="bilinear") for x in small]


def example() -> list[torch.Tensor]:
    """The shipped scene, (1, 3, H, W) each."""
    files = {"ir": "ir", "vis": "vis", "fused": "fused_good"}
    return [torch.stack(as_images(EXAMPLE / f"{f}.png", a)) for a, f in files.items()]


@pytest.mark.parametrize("number", [1, 2])
def test_a_map_has_a_value_for_each_pixel_and_none_below_zero(tiny, number):
    found = tiny.attribution(*batch(number), steps=2)
    assert found.shape == (number, 96, 128)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() > 0
    assert not found.requires_grad


@pytest.mark.parametrize("aspect", ["overall", pytest.param("sharpness", marks=pytest.mark.slow)])
def test_the_raw_attributions_add_up_to_the_difference_of_the_scores(embedded, aspect):
    ir, vis, fused = (x[..., 100:196, 100:228].repeat(2, 1, 1, 1) for x in example())
    noise = torch.randn(fused.shape, generator=torch.manual_seed(0))
    fused = (fused + torch.tensor([0.06, 0.12]).view(2, 1, 1, 1) * noise).clamp(0, 1)
    baseline = plain_fusion(ir, vis, fused)
    raw = integrated_gradients(embedded, ir, vis, fused, baseline, aspect=aspect, steps=32)
    gained = (
        embedded(ir, vis, baseline, aspect=aspect).score
        - embedded(ir, vis, fused, aspect=aspect).score
    )
    assert gained.abs().min() > 0.1  # else the test says nothing
    # The path is not smooth (ReLU6): 32 steps leave 0.05 % on these weights, 0.2 % on those before.
    assert torch.allclose(raw.sum((1, 2)), gained, rtol=0.01)


def test_a_batch_gives_what_singles_give(tiny):
    triples = batch(2)
    together = tiny.attribution(*triples, steps=2)
    alone = [tiny.attribution(*(x[n : n + 1] for x in triples), steps=2) for n in range(2)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4, atol=1e-4 * together.max().item())


def test_one_source_pair_for_all_gives_what_each_gives_with_its_own(tiny):
    ir, vis, fused = batch(2)
    together = tiny.attribution(ir[:1], vis[:1], fused)
    alone = tiny.attribution(ir[:1].repeat(2, 1, 1, 1), vis[:1].repeat(2, 1, 1, 1), fused)
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4 * alone.max().item())


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_map_is_the_same_in_every_mode_of_the_caller(tiny, mode):
    expected = tiny.attribution(*batch(), steps=2)
    with MODES[mode]():
        assert torch.allclose(tiny.attribution(*batch(), steps=2), expected, rtol=1e-5)


def test_the_images_and_the_weights_are_left_without_gradients(tiny):
    ir, vis, fused = batch()
    fused.requires_grad_()
    before = fused.detach().clone()
    tiny.attribution(ir, vis, fused, steps=1)
    assert fused.grad is None
    assert torch.equal(fused, before)
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_an_image_that_is_its_own_baseline_lost_nothing(tiny):
    ir, vis, fused = batch()
    assert tiny.attribution(ir, vis, fused, baseline=fused, steps=1).max() == 0


def test_another_aspect_gives_another_map(embedded):
    overall, sharpness = (
        embedded.attribution(*batch(), aspect=a, steps=2) for a in ("overall", "sharpness")
    )
    assert not torch.allclose(overall, sharpness)


def test_smoothing_keeps_a_constant_up_to_the_border(tiny):
    from fuscore_metric.attribution import _smoothed

    assert torch.allclose(_smoothed(torch.ones(1, 40, 60), 5.0), torch.ones(1, 40, 60))


def test_it_points_at_a_noisy_quadrant(embedded):
    ir, vis, fused = example()
    height, width = fused.shape[-2:]
    noise = 0.15 * torch.randn(height // 2, width // 2, generator=torch.manual_seed(0))
    fused[..., : height // 2, : width // 2] += noise
    found = embedded.attribution(ir, vis, fused.clamp(0, 1), steps=4)
    assert found[:, : height // 2, : width // 2].sum() > 0.5 * found.sum()


def test_the_plain_fusion_of_equal_sources_is_the_source():
    grey = batch()[0].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.allclose(plain_fusion(grey, grey, grey), grey, atol=1e-5)


def test_the_plain_fusion_has_the_colours_of_vis_and_at_least_the_contrast_of_fused():
    ir, vis, fused = (0.4 + 0.2 * x for x in batch())  # away from clipping
    found = plain_fusion(ir, vis, (fused - 0.5) * torch.tensor([3.0, 1.5, 1.0]).view(3, 1, 1) + 0.5)
    assert torch.allclose(found[:, 0] - found[:, 2], vis[:, 0] - vis[:, 2], atol=1e-5)
    assert torch.allclose(found.mean(), (luma(ir) + luma(vis)).mean() / 2, atol=0.01)
    for contrast in (0.1, 2.0):
        found = luma(plain_fusion(ir, vis, contrast * (fused - 0.5) + 0.5)).std()
        assert found >= 0.99 * contrast * luma(fused).std()
        assert found >= 0.99 * ((luma(ir) + luma(vis)) / 2).std()


def test_a_good_fusion_stays_calm_and_damage_all_over_shows_all_over(embedded):
    ir, vis, fused = example()
    cast = (fused + torch.tensor([-0.22, 0.17, -0.28]).view(3, 1, 1)).clamp(0, 1)  # green
    height, width = fused.shape[-2:]
    for image, coloured in ((fused, False), (cast, True)):
        found = embedded.attribution(ir, vis, image)[0] * (height * width / 100)
        quarters = found.unfold(0, height // 2, height // 2).unfold(1, width // 2, width // 2)
        shares = (quarters > 0.25 * FULL_SCALE).float().mean((-1, -2))
        assert (shares > 0.3).all() if coloured else (shares < 0.1).all()


BAD = [
    ({"ir": torch.rand(1, 3, 96, 100)}, {}, InputError, "`ir`"),
    ({"vis": torch.rand(2, 3, 96, 128)}, {}, InputError, "`vis`"),
    ({"fused": torch.rand(3, 96, 128)}, {}, InputError, "`fused`"),
    ({"fused": torch.zeros(1, 3, 96, 128, dtype=torch.uint8)}, {}, InputError, "`fused`"),
    ({}, {"baseline": torch.rand(1, 3, 50, 50)}, InputError, "`baseline`"),
    ({}, {"aspect": "beauty"}, ValueError, "overall"),
    ({}, {"steps": 0}, ValueError, "`steps`"),
    ({}, {"steps": 1.5}, ValueError, "`steps`"),
]


@pytest.mark.parametrize(("images", "options", "error", "word"), BAD)
def test_bad_arguments_are_named(tiny, images, options, error, word):
    triple = dict(zip(("ir", "vis", "fused"), batch(), strict=True)) | images
    with pytest.raises(error, match=word):
        attribute(tiny, **triple, **options)


def test_colours_darken_steadily_and_faint_maps_leave_the_image_alone():
    ramp = colours(np.linspace(0, 1, 50, dtype=np.float32))
    assert (np.diff(ramp @ [0.299, 0.587, 0.114]) < 0).all()
    image = np.full((4, 4, 3), 77, dtype=np.uint8)
    assert (overlay(image, np.zeros((4, 4), dtype=np.float32)) == image).all()


def test_a_colour_means_the_same_in_every_picture():
    image = np.full((10, 10, 3), 77, dtype=np.uint8)
    faint = np.full((10, 10), FULL_SCALE / 4, dtype=np.float32)  # a pixel is 1 % of the area
    strong = faint.copy()
    strong[0, 0], strong[0, 1] = FULL_SCALE, 50 * FULL_SCALE
    found = painted(image, strong)
    assert (found[1:] == painted(image, faint)[1:]).all()
    assert (found[0, 0] == found[0, 1]).all()  # the last colour is for all beyond
