"""Checkpoints that bring code, as pickles or as Python: none of it runs."""

import builtins
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fuscore_training.large.fine_tune import fine_tune
from fuscore_training.recipe import read_recipe

from fuscore_metric import FuScore
from fuscore_metric.backbones import backbone_class
from fuscore_metric.checkpoints.integrity import INDEX, WEIGHTS
from fuscore_metric.checkpoints.spec import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.checkpoints.conftest import FAMILY, KINDS, change, copied, refused, weights_of
from tests.helpers.adapted import images
from tests.helpers.rated_scenes import recipe_content, write_base, write_rated_scenes


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path) -> Path:
    """What a trap makes; it must not be there at the end of the test."""
    return tmp_path / "it_ran"


@pytest.fixture(params=["pickle.dump", "torch.save"])
def write_trap(request, marker, tmp_path):
    """Write a pickle that works: reading it with `weights_only=False` makes the marker."""

    def write(path: Path) -> None:
        if request.param == "torch.save":
            torch.save({"a": Trap(marker)}, path)
        else:
            path.write_bytes(pickle.dumps(Trap(marker)))

    write(tmp_path / "tried.pt")
    with (tmp_path / "tried.pt").open("rb") as file:
        if request.param == "torch.save":
            torch.load(file, weights_only=False)
        else:
            pickle.load(file)
    marker.rmdir()  # fails if the trap does not work
    return write


PICKLE_NAMES = ("pytorch_model.bin", "model.pt", "a.pth", "a.pkl", "a.pickle", "a.ckpt", "a.joblib")


class TestNoCodeFromPickles:
    @pytest.mark.parametrize("name", PICKLE_NAMES)
    def test_alone_it_is_refused_by_name(self, lite, write_trap, marker, name):
        (lite / WEIGHTS).unlink()
        write_trap(lite / name)
        refused(lite, f"got {name}: pickles can run code and are never loaded")
        assert not marker.exists()

    @pytest.mark.parametrize("kind", KINDS)
    def test_under_the_name_of_safetensors(self, originals, tmp_path, write_trap, marker, kind):
        folder = copied(originals[kind], tmp_path / "hostile")
        write_trap(weights_of(folder))
        refused(folder, "safetensors looks like a pickle, which can run code and is never loaded")
        assert not marker.exists()

    @pytest.mark.parametrize("kind", KINDS)
    def test_beside_good_weights_it_is_not_opened(
        self, originals, tmp_path, write_trap, marker, kind, monkeypatch
    ):
        folder = copied(originals[kind], tmp_path / "hostile")
        for name in (*PICKLE_NAMES, "adapter_model.bin", "training_args.bin", "optimizer.pt"):
            write_trap(folder / name)
        opened, real = [], builtins.open
        monkeypatch.setattr(
            builtins, "open", lambda f, *a, **k: (opened.append(f), real(f, *a, **k))[1]
        )
        monkeypatch.setattr(pickle, "Unpickler", None)
        monkeypatch.setattr(torch, "load", None)
        FuScore.from_pretrained(folder)
        assert not marker.exists()
        assert not [f for f in opened if str(f).endswith((".bin", ".pt", ".pkl", ".ckpt"))]

    def test_an_adapter_as_a_pickle(self, adapter, write_trap, marker):
        (adapter / ADAPTER_WEIGHTS).unlink()
        write_trap(adapter / "adapter_model.bin")
        refused(adapter, "Expected adapter_model.safetensors .*, got adapter_model.bin: pickles")
        assert not marker.exists()

    def test_as_a_shard(self, qwen, write_trap, marker):
        (qwen / WEIGHTS).unlink()
        write_trap(qwen / "pytorch_model-00001-of-00001.bin")
        places = {"lm_head.weight": "pytorch_model-00001-of-00001.bin"}
        (qwen / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        refused(qwen, "Expected `weight_map` .* to name safetensors files beside it")
        assert not marker.exists()


HOOKS = {
    "config.json": {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModel": "modeling_evil.EvilModel",
        "AutoModelForImageTextToText": "modeling_evil.EvilModel",
    },
    "tokenizer_config.json": {"AutoTokenizer": ["tokenization_evil.Evil", None]},
    "generation_config.json": {"AutoModel": "modeling_evil.EvilModel"},
    "preprocessor_config.json": {"AutoProcessor": "modeling_evil.EvilModel"},
}


class TestNoCodeFromPythonFiles:
    def plant(self, folder: Path, marker: Path) -> None:
        code = f"import os\nos.mkdir({str(marker)!r})\n"
        classes = "class EvilConfig: pass\nclass EvilModel: pass\nclass Evil: pass\n"
        names = ("configuration_evil.py", "modeling_evil.py", "tokenization_evil.py", "__init__.py")
        (folder / "custom_generate").mkdir()
        for name in (*names, "sitecustomize.py", "custom_generate/generate.py"):
            (folder / name).write_text(code + classes + "def generate(*a, **k): pass\n")

    @pytest.mark.parametrize("kind", KINDS)
    def test_files_alone_do_nothing(self, originals, tmp_path, marker, kind):
        folder = copied(originals[kind], tmp_path / "hostile")
        self.plant(folder, marker)
        FuScore.from_pretrained(folder)
        assert not marker.exists()

    @pytest.mark.parametrize("kind", ["lite", "qwen"])
    @pytest.mark.parametrize("name", HOOKS)
    def test_what_names_them_is_refused(self, originals, tmp_path, marker, kind, name):
        folder = copied(originals[kind], tmp_path / "hostile")
        self.plant(folder, marker)
        if not (folder / name).exists():
            (folder / name).write_text("{}")
        change(folder / name, auto_map=HOOKS[name])
        refused(folder, rf"{name} asks for code of its own to be run \(`auto_map`\)")
        assert not marker.exists()

    def test_nor_does_it_run_where_nobody_verified(self, originals, tmp_path, marker):
        """`from_base` takes a folder as it is."""
        folder = copied(originals["base"], tmp_path / "hostile")
        self.plant(folder, marker)
        for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
            change(folder / name, auto_map=HOOKS[name], trust_remote_code=True)
        change(folder / "tokenizer_config.json", tokenizer_class="Evil")
        backbone_class(FAMILY).from_base(folder)
        assert not marker.exists()
        assert not [name for name in sys.modules if name.startswith("transformers_modules")]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"trust_remote_code": True}, "asks for code of its own to be run"),
            ({"custom_pipelines": {"a": {"impl": "evil.Pipe"}}}, "asks for code of its own"),
            ({"text_config": {"auto_map": {"AutoModel": "evil.M"}}}, "asks for code of its own"),
            ({"transformers_weights": "../secret.safetensors"}, "asks for another way of loading"),
            ({"quantization_config": {"quant_method": "fp8"}}, "asks for another way of loading"),
            ({"attn_implementation": "owner/kernel"}, "asks for compiled code from the hub"),
            ({"_attn_implementation": {"": "owner/kernel:f"}}, "asks for compiled code from"),
        ],
    )
    def test_other_ways_to_ask_for_code_are_refused(self, qwen, changes, message):
        change(qwen / "config.json", **changes)
        refused(qwen, message)

    @pytest.mark.parametrize("name", ["Evil", "EsmTokenizer", "LlamaTokenizer", 3, None])
    def test_the_tokenizer_class_is_ours(self, qwen, name):
        change(qwen / "tokenizer_config.json", tokenizer_class=name)
        made = FuScore.from_pretrained(qwen).backbone.tokenizer
        assert type(made).__name__ == "Qwen2Tokenizer"

    def test_chat_templates_are_not_rendered(self, qwen, monkeypatch):
        from transformers.utils import chat_template_utils

        template = "{{ raise_exception('rendered') }}{{ ''.__class__.__mro__ }}"
        change(qwen / "tokenizer_config.json", chat_template=template)
        (qwen / "chat_template.jinja").write_text(template)
        monkeypatch.setattr(chat_template_utils, "_compile_jinja_template", None)
        with torch.no_grad():
            assert FuScore.from_pretrained(qwen)(*images()).score.isfinite().all()

    @pytest.mark.parametrize(
        "changes",
        [
            {"megatron_config": {"a": 1}},
            {"megatron_core": "evil"},
            {"init_lora_weights": "corda", "corda_config": {"cache_file": "evil.pt"}},
            {"lora_ga_config": {"cache_file": "evil.pt"}},
            {"init_lora_weights": "pissa"},
            {"layer_replication": [[0, 1], [0, 2]]},
            {"loftq_config": {"loftq_bits": 4}},
            {"target_modules": "(a+)+$"},
            {"rank_pattern": {"(a+)+$": 4}},
            {"surprise": 1},
            {"r": 10**9},
            {"r": "4"},
            {"lora_alpha": float("nan")},
            {"bias": "all"},
        ],
        ids=str,
    )
    def test_an_adapter_that_is_no_plain_lora(self, adapter, changes):
        change(adapter / ADAPTER_CONFIG, **changes)
        refused(adapter, rf"(Expected a plain LoRA|Expected `{next(iter(changes))}` to be) .*in ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_resumed_training_run_executes_nothing(tmp_path, write_trap, marker, name):
    """The Trainer keeps its state in pickles; they are read as tensors only."""
    base = write_base(tmp_path / "base", FAMILY)
    path = tmp_path / "recipe.yaml"
    content = recipe_content(base, write_rated_scenes(tmp_path / "scenes"), steps=2)
    path.write_text(yaml.safe_dump(content))
    folders = {"work": tmp_path / "work", "out": tmp_path / "out"}
    fine_tune(read_recipe(path), **folders)
    state = tmp_path / "work" / "fit" / "checkpoint-2" / name
    assert state.exists()
    write_trap(state)
    with pytest.raises(pickle.UnpicklingError):
        fine_tune(read_recipe(path), **folders)
    assert not marker.exists()
