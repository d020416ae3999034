"""`config.json` and tokenizers made to do harm: sizes are checked before memory is taken."""

import json
from contextlib import suppress

import pytest

from benchmarks.tiny_qwen import FAMILIES, tiny_backbone
from fuscore_metric import CheckpointError, FuScore
from fuscore_metric.backbones import backbone_class
from tests.checkpoints.conftest import cases, change, label, refused

LLAMA_CHANGES = {
    "hidden_size": [10**9, 0, -16, "16", None, 15, 16.0],
    "intermediate_size": [10**9, 0, 1.5],
    "num_hidden_layers": [10**9, 0, "2", True],
    "num_attention_heads": [0, 3, 10**9],
    "num_key_value_heads": [0, 3, 64, 10**9],
    "max_position_embeddings": [0, 10**12],
    "tie_word_embeddings": [1, "no", None],
    "surprise": [1],
    "attn_implementation": ["eager"],
}


class TestTheSmallFamily:
    @pytest.mark.parametrize(("name", "value"), cases(LLAMA_CHANGES), ids=label)
    def test_its_sizes_are_checked_before_memory_is_taken(self, lite, name, value):
        llama = json.loads((lite / "config.json").read_text())["llama"]
        change(lite / "config.json", llama=llama | {name: value})
        refused(lite, r"Expected `llama.*config\.json")

    @pytest.mark.parametrize(
        "large",
        [
            {"hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 64},  # 60 GB
            {"num_hidden_layers": 64},
            {"hidden_size": 4096},
        ],
        ids=str,
    )
    def test_a_size_within_bounds_that_the_weights_do_not_have(self, lite, large):
        llama = json.loads((lite / "config.json").read_text())["llama"]
        change(lite / "config.json", llama=llama | large)
        refused(lite, r"Expected at least \d+ numbers in .*model\.safetensors")

    @pytest.mark.parametrize("content", ["[]", "{}", '{"llama": []}', '{"llama": {}}', "3"])
    def test_a_configuration_of_something_else(self, lite, content):
        (lite / "config.json").write_text(content)
        refused(lite, "config.json")

    def test_word_ids_beyond_the_embedding(self, lite):
        content = json.loads((lite / "tokenizer.json").read_text())
        content["model"]["vocab"]["excellent"] = 10**6
        (lite / "tokenizer.json").write_text(json.dumps(content))
        refused(lite, r"tokenizer\.json: expected ids below \d+, got 1000000")


class TestTheLargeFamilies:
    def test_token_ids_beyond_the_embedding(self, qwen):
        content = json.loads((qwen / "tokenizer.json").read_text())
        content["model"]["vocab"]["zzz"] = 10**6
        (qwen / "tokenizer.json").write_text(json.dumps(content))
        refused(qwen, "Expected token ids below 509, the rows of the embedding, .*, got 1000000")

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("name", ["num_hidden_layers", "depth"])
    def test_layers_without_end(self, tmp_path, family, name):
        tiny_backbone(family).save(tmp_path)
        part = "vision_config" if name == "depth" else "text_config"
        content = json.loads((tmp_path / "config.json").read_text())
        change(tmp_path / "config.json", **{part: content[part] | {name: 10**9}})
        with pytest.raises(CheckpointError, match=f"Expected `{name}` up to 512 in .*config.json"):
            backbone_class(family).from_base(tmp_path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"text_config": 3},
            {"text_config": {}},  # transformers' default: 8 billion numbers
            {"text_config": {"vocab_size": 10**9}},
            {"text_config": {"num_hidden_layers": 10**9}},
            {"vision_config": {"depth": 10**9}},
            {"vision_config": []},
            {"vision_config": {"depth": -1}},
            {"vision_config": {"deepstack_visual_indexes": [0] * 10**5}},
            {"num_labels": 10**9},
            {"id2label": [[]] * 1000},
            {"model_type": "bert"},
            {"image_token_id": "x"},
            {"image_token_id": 10**9},
            {"architectures": "Evil"},
        ],
        ids=label,
    )
    def test_odd_configurations_end_in_one_line(self, qwen, changes):
        change(qwen / "config.json", **changes)
        if "architectures" in changes or "model_type" in changes:
            with suppress(CheckpointError):  # transformers 5.12 minds what is no list
                FuScore.from_pretrained(qwen)  # neither chooses the class
        else:
            refused(qwen, "Expected|Cannot load")
