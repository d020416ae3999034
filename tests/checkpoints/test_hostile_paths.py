"""Names and links in a checkpoint that lead out of its folder: refused, or not uploaded."""

import json

import pytest

from fuscore_metric import CheckpointError, FuScore
from fuscore_metric.checkpoints.hub import upload
from fuscore_metric.checkpoints.integrity import INDEX, WEIGHTS, check_links
from fuscore_metric.checkpoints.locate import fingerprint
from fuscore_metric.checkpoints.spec import SPEC_FILE, read_spec
from tests.checkpoints.conftest import change, refused, spec_refused


class TestNothingLeadsOut:
    @pytest.mark.parametrize(
        "name",
        ["../../etc/passwd", "/etc/passwd", "..", "a/../b", "~/a/b", "a", "a/b/c", "./b", "a\\b"],
    )
    def test_a_commit_pins_hub_ids_only(self, adapter, name):
        change(adapter / SPEC_FILE, base_model=name, base_revision="a" * 40)
        spec_refused(adapter, 'Expected `base_model` as a hub id "owner/name"')

    def test_a_local_base_is_known_by_its_content(self, originals, adapter):
        pinned = read_spec(adapter)
        assert pinned.base_revision == fingerprint(originals["base"])
        change(adapter / SPEC_FILE, base_model=str(originals["qwen"].parent / "lite"))
        refused(adapter, "Expected the base model that adapted was trained on")

    @pytest.mark.parametrize(
        "name",
        [
            "../model.safetensors",
            "/etc/model.safetensors",
            "a/b.safetensors",
            "a\\b.safetensors",
            "model.bin",
            "a\nb.safetensors",
            ".",
            "",
            3,
            None,
            ["model.safetensors"],
        ],
    )
    def test_shards_are_files_beside_the_index(self, qwen, name):
        (qwen / WEIGHTS).rename(qwen / "a.safetensors")
        places = {"lm_head.weight": "a.safetensors", "other": name}
        (qwen / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        refused(qwen, "Expected `weight_map` .* to name safetensors files beside it, got ")

    @pytest.mark.parametrize("places", [None, [], "a", {}, 3])
    def test_an_index_of_something_else(self, qwen, places):
        (qwen / WEIGHTS).unlink()
        (qwen / INDEX).write_text(json.dumps({"weight_map": places}))
        refused(qwen, "Expected `weight_map`")

    @pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", SPEC_FILE])
    def test_links_are_followed_but_not_uploaded(self, lite, tmp_path, name):
        (lite / name).rename(tmp_path / "outside")
        (lite / name).symlink_to("../outside")
        FuScore.from_pretrained(lite)
        with pytest.raises(CheckpointError, match=f"{name} is a link out of .*: copy the file"):
            upload(lite, "owner/name")

    def test_links_within_and_to_the_blobs_of_a_cache_are(self, lite, tmp_path):
        (lite / WEIGHTS).rename(lite / "weights")
        (lite / WEIGHTS).symlink_to("weights")
        check_links(lite)
        snapshot = tmp_path / "models--a--b" / "snapshots" / ("a" * 40)
        blobs = tmp_path / "models--a--b" / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        for number, path in enumerate(lite.iterdir()):
            (blobs / str(number)).write_bytes(path.read_bytes())
            (snapshot / path.name).symlink_to(f"../../blobs/{number}")
        check_links(snapshot)

    def test_a_link_that_goes_round(self, lite):
        (lite / "tokenizer.json").unlink()
        (lite / "tokenizer.json").symlink_to("tokenizer.json")
        refused(lite, "tokenizer.json")
