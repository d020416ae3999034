"""The classic measures on a GPU against the CPU's."""

import pytest
import torch

from fuscore_metric import measure
from fuscore_metric.measures.catalogue import CONVENTIONS, MEASURES
from tests.gpu.scenes import crops, example, on, write_crops

pytestmark = pytest.mark.gpu

RELATIVE_ERROR = 1e-9
LOOSER = {
    # Computed in float32.
    **dict.fromkeys(("FMI_pixel", "FMI_gradient", "FMI_wavelet"), 1e-6),
    # Where the gains of both sources are rounding errors, these choose the source.
    "VIFF": 1e-6,
    # Rounding decides which gradients of images in [0, 1] are equal.
    "tang2022 Qabf": 1e-3,
}
SLOPES = 0.01
"""Where a measure has a kink, rounding decides which slope counts."""


def check(found, expected, convention="standard"):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == torch.float64
        error = LOOSER.get(name, LOOSER.get(f"{convention} {name}", RELATIVE_ERROR))
        assert value.tolist() == pytest.approx(expected[name].tolist(), rel=error, abs=1e-9), name


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_measures_are_those_of_the_cpu(device, convention):
    asked = {"names": "all", "convention": convention}
    found = measure(*on(device, crops(2)), **asked)
    assert {value.device.type for value in found.values()} == {device}
    check(found, measure(*crops(2), **asked), convention)


def test_whole_pictures_of_one_pair(device):
    """Large enough for all scales."""
    ir, vis, fused = example()
    expected = measure(ir[0], vis[0], fused[:2], names="all")
    check(measure(*on(device, (ir[0], vis[0], fused[:2])), names="all"), expected)


def test_flat_and_equal_images(device):
    ir, vis, fused = (images[0] for images in crops(1))
    flat = torch.full_like(fused, 100 / 255)
    columns = [ir, ir, flat, flat], [vis, vis, vis, flat], [flat, vis, fused, flat]
    triples = tuple(map(torch.stack, columns))
    check(measure(*on(device, triples), names="all"), measure(*triples, names="all"))


def test_files_of_mixed_sizes_come_back_in_the_order_given(device, tmp_path):
    columns = [[], [], []]
    for height, width in ((64, 96), (80, 72)):
        parts = write_crops(tmp_path, 3, height=height, width=width)
        for column, part in zip(columns, parts, strict=True):
            column.extend(part)
    shuffled = [column[::2] + column[1::2] for column in columns]
    expected = measure(*shuffled, device="cpu")
    check(measure(*shuffled, device=device, batch_size=2), expected)


@pytest.mark.parametrize("name", [name for name, one in MEASURES.items() if one.differentiable])
def test_gradients_are_those_of_the_cpu(device, name):
    slopes = []
    for where in ("cpu", device):
        ir, vis, fused = on(where, crops(1))
        fused.requires_grad_()
        measure(ir, vis, fused, names=name)[name].sum().backward()
        slopes.append(fused.grad.cpu())
    expected, found = slopes
    assert found.isfinite().all()
    assert ((found - expected).norm() / expected.norm()).item() <= SLOPES
