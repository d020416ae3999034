"""Source pairs that weights learned from are known again, in other formats and sizes too."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from fuscore_training.labels.learned_pairs import learned_pairs, viewed_sources
from PIL import Image

from fuscore_metric import FuScore, InputError, evaluate
from fuscore_metric.backbones.sizes import resize
from fuscore_metric.checkpoints.learned import LearnedPairs, pair_hash
from fuscore_metric.images.convert import as_images
from fuscore_metric.results.read import read_results
from tests.helpers import ROOT
from tests.helpers.scenes import synthetic_pair
from tests.helpers.tiny_model import tiny_fuscore


def images(seed):
    return [torch.from_numpy(one).float().expand(3, -1, -1) for one in synthetic_pair(seed)]


def as_jpeg(image):
    file = io.BytesIO()
    pixels = (image * 255).round().byte().movedim(0, -1).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    return as_images(file, "vis")[0]


def test_copies_are_known_and_others_are_not():
    learned = LearnedPairs([pair_hash(*images(seed)) for seed in range(20)])
    ir, vis = images(7)
    assert learned.has(ir, vis)
    assert learned.has(as_jpeg(ir), as_jpeg(vis))
    assert learned.has(*(resize(one[None], (48, 64))[0] for one in (ir, vis)))
    assert not learned.has(*images(20))
    assert not learned.has(ir, images(8)[1])


@pytest.fixture
def data(tmp_path):
    """Four scenes, of which the first two were trained on, and weights that say so."""
    for place in ("ir", "vis", "fused/a", "fused/b"):
        (tmp_path / place).mkdir(parents=True)
    for seed in range(4):
        pair = [(one * 255).round().astype(np.uint8) for one in synthetic_pair(seed)]
        for place, pixels in zip(("ir", "vis", "fused/a", "fused/b"), pair * 2, strict=True):
            Image.fromarray(pixels).save(tmp_path / place / f"{seed}.png")
    return tmp_path


@pytest.fixture
def model(tmp_path) -> FuScore:
    made = tiny_fuscore(tmp_path)
    hashes = [pair_hash(*images(seed)) for seed in (0, 1)]
    made.spec = replace(made.spec, training_pairs=hashes)
    made.save_pretrained(tmp_path / "weights")
    return FuScore.from_pretrained(tmp_path / "weights", device="cpu")


def test_a_leaderboard_says_which_scenes_were_trained_on(data, model):
    folders = data / "ir", data / "vis", data / "fused"
    found = evaluate(*folders, model=model, out=data / "out")
    assert found.leaderboard.in_training == ("0", "1")
    assert "2 of 4 scenes are among those that the weights learned from" in found.notes[0]
    for path in ("out", "out/results.csv", "out/results.parquet"):
        table = read_results(data / path).table.set_index("scene")
        assert table["in_training"].astype(bool).groupby(level=0).all().tolist() == [1, 1, 0, 0]
    new = evaluate(*folders, model=model, out=data / "out", held_out=True)
    assert new.leaderboard.scenes == ("2", "3")
    assert "2 of 4 scenes do not count" in new.notes[0]
    for path in ("2", "3"):
        for file in data.glob(f"*/{path}.png"):
            file.unlink()
    with pytest.raises(InputError, match="got 2 that they did"):
        evaluate(*folders, model=model, held_out=True)
    model.spec = replace(model.spec, training_pairs=[])
    assert evaluate(*folders, model=model).rows["in_training"].isna().all()
    with pytest.raises(InputError, match="do not tell"):
        evaluate(*folders, model=model, held_out=True)


def test_a_cropped_scene_is_known_by_its_whole_sources(data, model):
    for path in data.glob("fused/*/*.png"):
        image = Image.open(path)
        image.crop((0, 0, 96, 64)).save(path)
    folders = data / "ir", data / "vis", data / "fused"
    with pytest.warns(UserWarning, match="cropped"):
        found = evaluate(*folders, model=model, resize="crop")
    assert found.leaderboard.in_training == ("0", "1")
    assert set(found.rows["crop"]) == {"top 0, left 0"}
    with pytest.raises(InputError, match="--resize crop"):
        evaluate(*folders, model=model)


@pytest.mark.real_data
@pytest.mark.slow
def test_the_embedded_weights_know_their_training_scenes(real_data):

    training = ROOT / "training"
    frame = viewed_sources(training / "ratings", real_data, training / "recipes" / "split.yaml")
    hashes = FuScore.from_pretrained(device="cpu").spec.training_pairs
    assert learned_pairs(frame) == hashes
    learned = LearnedPairs(hashes)
    seen = []
    for ir in sorted((real_data / "VIFB" / "ir").iterdir()):
        (vis,) = (real_data / "VIFB" / "vis").glob(f"{ir.stem}.*")
        if learned.has(as_images(ir, "ir")[0], as_images(vis, "vis")[0]):
            seen.append(f"VIFB/{ir.stem}")
    assert seen == [scene for scene in frame["scene"] if scene.startswith("VIFB/")]
    assert len(seen) == 12
