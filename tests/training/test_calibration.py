"""Calibration on simulated raters, for whom the right answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fuscore_training.calibration import (
    Pairs,
    Predictions,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    join,
    plot_calibration,
    reliability,
    sample_pairs,
)

from fuscore_metric import levels, preference
from fuscore_metric.checkpoints.spec import read_spec
from fuscore_metric.errors import CheckpointError
from tests.helpers.tiny_model import tiny_fuscore


def simulated(seed: int, scale: float = 1.0, rows: int = 3000) -> Predictions:
    """Ratings that scatter around the scores by exactly the predicted std, over `scale`."""
    rng = np.random.default_rng(seed)
    score, std = rng.uniform(2, 4, rows), rng.uniform(0.1, 0.9, rows)
    mu = score + rng.normal(0, 1, rows) * std
    return Predictions(score, std * scale, mu, np.arange(rows) % 40)


def test_a_calibrated_rater_needs_no_temperature():
    found = calibrate(simulated(0), simulated(1))
    assert found.temperature == pytest.approx(1.0, abs=0.05)
    assert max(*found.ece.values(), *found.ece_before.values()) < 0.02


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_wrong_width_is_found_and_mended(scale):
    found = calibrate(simulated(0, scale), simulated(1, scale))
    assert found.temperature == pytest.approx(1 / scale, rel=0.06)
    assert found.ece["all"] < 0.02 < 0.08 < found.ece_before["all"]


def test_wider_predictions_err_more():
    low_value_high = calibrate(simulated(0), simulated(1)).std_error_srcc
    value, low, high = low_value_high
    assert 0.3 < low < value < high < 0.7
    errors = calibrate(simulated(0), simulated(1)).error_deciles
    assert errors[-1] > 3 * errors[0]


def test_a_coin_that_boasts():
    """Says 0.9, is right half of the time."""
    won = np.arange(1000) % 2 == 0
    coin = Pairs(np.full(1000, 1.2815515655), won)
    assert expected_calibration_error(reliability(coin)) == pytest.approx(0.4, abs=1e-6)


def test_swapping_a_and_b_changes_nothing():
    pairs = join(sample_pairs(simulated(0)))
    swapped = Pairs(-pairs.z, ~pairs.won)
    assert reliability(swapped).observed == pytest.approx(reliability(pairs).observed)
    assert fit_temperature(swapped) == pytest.approx(fit_temperature(pairs))


def test_pairs_are_of_the_kind_they_are_called():
    """Scores that are the scene's number: differences say which scenes a pair is from."""
    scene = np.repeat(np.arange(5), 20)
    mu = np.random.default_rng(0).uniform(1, 5, 100)
    kinds = sample_pairs(Predictions(scene.astype(float), np.ones(100), mu, scene), count=500)
    assert len(kinds["within"].z) == len(kinds["across"].z) == 500
    assert (kinds["within"].z == 0).all()
    assert (kinds["across"].z != 0).all()


def test_refusals():
    fine = simulated(0, rows=40)
    with pytest.raises(ValueError, match="as many"):
        replace(fine, mu=fine.mu[:3])
    with pytest.raises(ValueError, match="std"):
        replace(fine, std=fine.std * 0)
    with pytest.raises(ValueError, match="pairs within"):
        sample_pairs(replace(fine, mu=np.full(40, 3.0)))


def test_the_plot_is_written(tmp_path):
    plot_calibration(calibrate(simulated(0), simulated(1)), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_the_temperature_reaches_the_preference(tmp_path):
    model = tiny_fuscore(tmp_path)
    object.__setattr__(model, "spec", replace(model.spec, temperature=0.5))
    model.save_pretrained(tmp_path / "saved")
    assert read_spec(tmp_path / "saved").temperature == 0.5
    images = [torch.rand(6, 3, 32, 32) for _ in range(4)]
    a, b = model(*images[:3]), model(*images[:2], images[3])
    found = preference(a, b)
    expected = levels.preference(a.score, b.score, a.variance, b.variance, temperature=0.5)
    assert torch.equal(found, expected)
    plain = levels.preference(a.score, b.score, a.variance, b.variance)
    assert ((found - 0.5).abs() >= (plain - 0.5).abs()).all()
    assert torch.allclose(preference(b, a), 1 - found, atol=1e-6)
    assert torch.equal(preference(a[1:3], b[[1, 2]]), found[1:3])
    assert torch.equal(preference(a, b[0])[:1], found[:1])
    with pytest.raises(ValueError, match="same weights"):
        preference(a, replace(b, temperature=1.0))


@pytest.mark.parametrize("temperature", [0, -1, "NaN", "warm", True, None])
def test_bad_temperatures_are_refused(tmp_path, temperature):
    model = tiny_fuscore(tmp_path)
    path = tmp_path / "saved"
    model.save_pretrained(path)
    text = (path / "fuscore.json").read_text()
    value = {True: "true", None: "null", "warm": '"warm"'}.get(temperature, str(temperature))
    (path / "fuscore.json").write_text(
        text.replace('"temperature": 1.0', f'"temperature": {value}')
    )
    with pytest.raises(CheckpointError, match="temperature"):
        read_spec(path)
    if isinstance(temperature, int) and temperature is not True:
        with pytest.raises(ValueError, match="temperature"):
            levels.preference(*(torch.ones(1) for _ in range(4)), temperature=temperature)
