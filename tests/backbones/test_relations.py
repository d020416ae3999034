"""What the relations see: lost and invented structure, lost targets, and nothing in a mirror."""

import pytest
import torch
from torch.nn import functional as F

from fuscore_metric.backbones.lite.relations import BRIGHTNESS, RELATIONS, make_relief, relations

GRID = 2


def scene(seed=0, pairs=1, side=128):
    """A warm disc on a cool ground (ir), and texture (vis)."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    disc = ((y - 40) ** 2 + (x - 40) ** 2 < 120).float()
    noise = torch.rand(pairs, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return (0.2 + 0.6 * disc).expand(pairs, 1, -1, -1).clone(), 0.2 + 0.2 * noise


def scales(image):
    return [F.avg_pool2d(image, 2**n) if n else image for n in range(3)]


def compared(fused, ir, vis):
    return relations(scales(fused), make_relief(scales(ir), scales(vis)), GRID)


def test_shape_and_range():
    ir, vis = scene(pairs=3)
    found = compared(torch.maximum(ir, vis), ir, vis)
    assert found.shape == (3, GRID**2, RELATIONS)
    assert found.isfinite().all()


def test_a_copy_keeps_all_structure_of_its_source():
    ir, vis = scene()
    of_ir, of_vis = compared(ir, ir, vis)[0, :, 0], compared(vis, ir, vis)[0, :, 1]
    assert of_ir.tolist() == pytest.approx([1.0] * GRID**2, abs=1e-4)
    assert of_vis.tolist() == pytest.approx([1.0] * GRID**2, abs=1e-3)


def test_a_lost_target_shows_in_its_cell_alone():
    ir, vis = scene()
    kept, lost = compared(torch.maximum(ir, vis), ir, vis), compared(vis, ir, vis)
    worst = kept.shape[-1] - 3  # the greatest loss of contrast on a target
    assert lost[0, 0, worst] > 0.3
    assert kept[0, 0, worst] < 0.5 * lost[0, 0, worst]
    assert lost[0, 3, worst] < 1e-3  # nothing hot there


def test_brighter_pixels_are_counted():
    ir, vis = scene()
    light = compared(torch.full_like(vis, 0.7), ir, vis)[0]
    shares = light[:, 36 : 36 + len(BRIGHTNESS)]
    assert shares[:, 0].min() > 0.99  # all brighter than the first step
    assert shares[:, -1].max() < 0.01


def test_a_mirror_image_has_the_mirrored_cells():
    ir, vis = scene()
    fused = (ir + vis) / 2
    upright = compared(fused, ir, vis)
    turned = compared(fused.flip(-1), ir.flip(-1), vis.flip(-1))
    back = turned.unflatten(1, (GRID, GRID)).flip(2).flatten(1, 2)
    assert (upright - back).abs().max() < 1e-4


def test_rows_of_several_pairs_equal_single_ones():
    ir, vis = scene(pairs=2)
    fused = torch.maximum(ir, vis)
    relief, numbers = make_relief(scales(ir), scales(vis)), torch.tensor([1, 0])
    found = relations(scales(fused[numbers]), relief.rows(numbers), GRID)
    alone = compared(fused[1:], ir[1:], vis[1:])
    assert (found[:1] - alone).abs().max() < 1e-5


def test_flat_pictures_have_finite_slopes():
    image = torch.full((1, 1, 64, 64), 0.5, requires_grad=True)
    compared(image, image.detach(), image.detach()).sum().backward()
    assert image.grad.isfinite().all()
