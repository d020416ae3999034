"""Moments of maps over cells: against plain float64 arithmetic, cell by cell, and their slopes."""

import pytest
import torch

from fuscore_metric.backbones.lite.local_statistics import (
    CellMoments,
    LocalStatistics,
    Maps,
    _means_at_once,
    _means_by_window,
    _spread_by_weights,
    _spread_in_order,
    stronger,
)

GRID = 4
SIZES = [(32, 48), (35, 50), (33, 61)]


def maps(height, width, *, count=2, channels=3, last=False, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand(count, channels, height, width, generator=generator).to(dtype)
    return made.contiguous(memory_format=torch.channels_last) if last else made


def plain(map_, others):
    """Mean, mean square and mean products of every cell, one cell after another: float64."""

    def cells(product):
        height, width = product.shape[-2:]
        rows = [
            [
                product[
                    ...,
                    row * height // GRID : -(-(row + 1) * height // GRID),
                    column * width // GRID : -(-(column + 1) * width // GRID),
                ].mean((-2, -1))
                for column in range(GRID)
            ]
            for row in range(GRID)
        ]
        return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)

    map_ = map_.double()
    return [cells(map_), *(cells(map_ * other.double()) for other in (map_, *others))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("last", [False, True])
def test_moments_are_those_of_each_cell(size, last):
    map_, *others = (maps(*size, last=last, seed=seed) for seed in range(3))
    others.append(maps(*size, count=1, last=last, seed=3))  # one for all
    found = CellMoments.apply(map_, GRID, *others)
    for one, expected in zip(found, plain(map_, others), strict=True):
        assert one.shape == (2, 3, GRID, GRID)
        assert torch.allclose(one.double(), expected, rtol=1e-6)


def test_sums_of_many_numbers_stay_exact():
    """Variances are small differences of them; torch's pooling errs by 1e-5 here."""
    map_ = 1 + 1e-3 * maps(240, 320, last=True)
    for one, expected in zip(CellMoments.apply(map_, GRID, map_), plain(map_, [map_]), strict=True):
        assert ((one.double() - expected) / expected).abs().max() < 1e-6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("last", [False, True])
def test_gpus_sum_what_cpus_sum(size, last):
    """The two ways differ in the order of reading only."""
    map_, other = (maps(*size, last=last, seed=seed, dtype=torch.float64) for seed in range(2))
    by_window, at_once = (f(map_, [other], GRID) for f in (_means_by_window, _means_at_once))
    assert by_window.shape == at_once.shape
    assert torch.allclose(by_window, at_once, rtol=1e-12)
    slope = maps(GRID, GRID, dtype=torch.float64)
    in_order, by_weights = (f(slope, map_) for f in (_spread_in_order, _spread_by_weights))
    assert torch.allclose(in_order, by_weights, rtol=1e-12)


@pytest.mark.parametrize("size", SIZES[:2])
def test_slopes_and_their_slopes(size):
    given = [maps(*size, channels=1, seed=seed, dtype=torch.float64) for seed in range(2)]
    given.append(maps(*size, count=1, channels=1, seed=2, dtype=torch.float64))
    given = [one[..., :9, :10].clone().requires_grad_() for one in given]

    def moments(map_, *others):
        return CellMoments.apply(map_, GRID, *others)

    assert torch.autograd.gradcheck(moments, given)
    assert torch.autograd.gradgradcheck(moments, given)


def test_no_slope_is_made_for_what_needs_none():
    map_, other = maps(32, 48).requires_grad_(), maps(32, 48, seed=1)
    sum(one.sum() for one in CellMoments.apply(map_, GRID, other)).backward()
    assert other.grad is None
    other.requires_grad_()
    CellMoments.apply(map_.detach(), GRID, other)[2].sum().backward()
    assert torch.allclose(other.grad.sum(), map_.sum() / (8 * 12))


def seen(seed, *, mirrored):
    pixels = maps(32, 48, seed=seed)
    views = maps(17, 23, seed=seed + 10), maps(17, 23, seed=seed + 20)
    return pixels, views, Maps([pixels], [views], mirrored)


def test_looks_at_the_mirror_image_are_turned_back():
    pixels, (one, other), mirrored = seen(0, mirrored=True)
    upright = Maps([pixels], [(one, other.flip(-1))])
    found, expected = (LocalStatistics(x, GRID).tokens() for x in (mirrored, upright))
    assert torch.allclose(found, expected, atol=1e-5)


def test_rows_are_those_of_the_images():
    references = [LocalStatistics(seen(seed, mirrored=True)[2], GRID) for seed in (1, 2)]
    pair = torch.tensor([1, 0])
    chosen = [reference.rows(pair) for reference in references]
    whole = LocalStatistics(seen(0, mirrored=True)[2], GRID, chosen)
    swapped = LocalStatistics(seen(0, mirrored=True)[2].rows(pair), GRID, references)
    for one, other in zip(whole.correlations(), swapped.correlations(), strict=True):
        assert torch.allclose(one[pair], other, atol=1e-6)
    for reference, rows in zip(references, chosen, strict=True):
        assert torch.equal(reference.tokens()[pair], rows.tokens())


def test_the_stronger_map_is_one_of_the_two_to_the_bit():
    one, other = maps(32, 48) - 0.5, maps(32, 48, seed=1) - 0.5
    (found,) = stronger(Maps([], [(one,)]), Maps([], [(other,)])).features[0]
    assert torch.equal(found, torch.where(one.abs() >= other.abs(), one, other))
