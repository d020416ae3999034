"""Figures of triples, outputs and rankings: what they show, without pyplot."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fuscore_metric import FuScore, InputError, optional, predict, rank, show
from fuscore_metric.errors import MissingPackageError
from fuscore_metric.prompts import ASPECTS
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("words"))


def triple(count: int = 3) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    ir, vis, *fused = np.random.default_rng(0).integers(0, 256, (2 + count, 48, 64, 3), np.uint8)
    return ir, vis, fused


def test_a_triple_is_a_row_of_images_and_levels(model):
    ir, vis, fused = triple()
    figure = show(ir, vis, fused, model=model, aspect="sharpness")
    output = predict(ir, vis, fused, model=model, aspect="sharpness")
    rows = np.reshape(figure.axes, (3, 5))
    for number, row in enumerate(rows):
        images = [axes.images[0].get_array() for axes in row[:4]]
        for found, expected in zip(images, (ir, vis, fused[number]), strict=False):
            assert np.array_equal(found, expected)
        widths = [bar.get_width() for bar in row[4].patches]
        assert widths == pytest.approx(output.probabilities[number].tolist(), abs=1e-5)
        assert f"sharpness {output.score[number].item():.2f}" in row[4].get_title()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_names_of_files_are_shown_as_they_are(model, tmp_path):
    ir, vis, fused = triple(1)
    Image.fromarray(fused[0]).save(tmp_path / "a$b$.png")
    figure = show(ir, vis, tmp_path / "a$b$.png", model=model)
    assert figure.axes[2].get_title() == "a$b$.png"
    figure.savefig(tmp_path / "shown.png", dpi=20)


@pytest.mark.parametrize(("asked", "rows"), [({}, 3), ({"aspects": ASPECTS}, 15)])
def test_outputs_and_rankings_are_bars(model, asked, rows):
    ir, vis, fused = triple()
    ranking = rank(ir, vis, dict(zip("abc", fused, strict=True)), model=model, **asked)
    for figure in (ranking.plot(), ranking.output.plot()):
        left, right = figure.axes
        assert len(left.get_yticks()) == rows
        assert len(right.patches) == 5 * rows
        assert figure._repr_png_().startswith(b"\x89PNG")
    best = ranking.names[ranking.order[0]]
    assert ranking.plot().axes[0].get_yticklabels()[0].get_text().startswith(best)


def test_a_graph_is_no_hindrance(model):
    images = [torch.rand(1, 3, 48, 64).requires_grad_() for _ in range(3)]
    assert len(show(*images, model=model).axes) == 5
    assert len(model(*images).plot().axes) == 2


@pytest.mark.slow
def test_pyplot_is_not_touched():
    code = (
        "import sys, fuscore_metric as f\n"
        "from fuscore_metric.drawing.plots import _figure\n"
        "_figure(1, 1)._repr_png_()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_cannot_be_drawn_is_refused(model, monkeypatch):
    ir, vis, fused = triple()
    with pytest.raises(ValueError, match="`aspect`"):
        show(ir, vis, fused, model=model, aspect="all")
    with pytest.raises(InputError, match="`fused`"):
        show(ir, vis, fused[0][:32], model=model)
    monkeypatch.setattr(optional, "installed", lambda package: False)
    with pytest.raises(MissingPackageError, match="matplotlib"):
        show(ir, vis, fused, model=model)
