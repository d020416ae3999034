"""Columns of a data set are found under every spelling, and what is missing is named."""

import pytest
from fuscore_training.importers.dataset_columns import find_columns
from fuscore_training.ratings import SCORE_COLUMNS, RatingsError

from tests.training.importers.conftest import SCORE_NAMES

SPELLINGS = [
    {"scores": dict.fromkeys(SCORE_NAMES)},
    {"Scores": {name.lower().replace(" ", "_"): None for name in SCORE_NAMES}},
    {"scores." + name: None for name in SCORE_NAMES},
    {"scores_" + name.replace(" ", "") for name in SCORE_NAMES},
    dict.fromkeys(["OVERALL", "thermal-retention", "texturePreservation", "artifact", "Sharpness"]),
]
IMAGE_COLUMNS = [
    ["fused", "infrared", "visible"],
    ["Fused Image", "IR", "VIS"],
    ["fusion", "infrared_image", "visible_image"],
]


@pytest.mark.parametrize("scores", SPELLINGS)
@pytest.mark.parametrize("images", IMAGE_COLUMNS)
def test_spellings(scores, images):
    scores = scores if isinstance(scores, dict) else dict.fromkeys(scores)
    found = find_columns(dict.fromkeys(images) | {"artifact_heatmap": None} | scores)
    assert list(found.images.values()) == [(images[1],), (images[2],), (images[0],)]
    assert list(found.scores) == list(SCORE_COLUMNS)
    assert len(set(found.scores.values())) == 5
    assert "artifact_heatmap" not in found.top_level


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("visible"), ["'visible'", "there: fused, infrared", "scores.Sharpness"]),
        (lambda f: f["scores"].pop("Sharpness"), ["'sharpness'", "scores.Overall Score"]),
        (lambda f: f.update(overall=None), ["'overall'", "several", "scores.Overall Score"]),
        (lambda f: f.clear(), ["'infrared'", "there: none"]),
    ],
)
def test_bad_columns(change, words):
    there = dict.fromkeys(["fused", "infrared", "visible"]) | {"scores": dict.fromkeys(SCORE_NAMES)}
    change(there)
    with pytest.raises(RatingsError) as caught:
        find_columns(there)
    assert [word for word in words if word not in str(caught.value)] == []
