"""Checkpoints that somebody made to do harm: refused in one line, and none of their code runs."""

import builtins
import json
import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from fuscore_training.fine_tune import fine_tune
from fuscore_training.recipe import read_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fuscore_metric import CheckpointError, FuScore, FuScoreSpec
from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.stored_weights import check_finite
from fuscore_metric.checkpoint import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MAX_SPEC_BYTES,
    SPEC_FILE,
    read_spec,
)
from fuscore_metric.cli import app
from fuscore_metric.hub import upload
from fuscore_metric.integrity import INDEX, WEIGHTS, check_links
from fuscore_metric.locate import fingerprint
from tests.rated_scenes import recipe_content, write_base, write_rated_scenes
from tests.test_adapters import images, make_adapted
from tests.tiny_model import tiny_fuscore
from tests.tiny_qwen import FAMILIES, tiny_backbone

FAMILY = "qwen3_vl"
KINDS = ("lite", "qwen", "adapter")


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """A good checkpoint of each kind; `base` is the adapter's base model."""
    folder = tmp_path_factory.mktemp("originals")
    tiny_fuscore(folder).save_pretrained(folder / "lite")
    backbone = tiny_backbone(FAMILY)
    spec = FuScoreSpec("tiny", FAMILY, backbone.preprocessing, "none")
    FuScore(backbone, spec).save_pretrained(folder / "qwen")
    backbone.save(folder / "base")
    make_adapted(folder / "base", FAMILY).save_pretrained(folder / "adapter")
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


def copied(original: Path, target: Path) -> Path:
    target.mkdir()
    for path in original.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.fixture
def lite(originals, tmp_path) -> Path:
    return copied(originals["lite"], tmp_path / "lite")


@pytest.fixture
def qwen(originals, tmp_path) -> Path:
    return copied(originals["qwen"], tmp_path / "qwen")


@pytest.fixture
def adapter(originals, tmp_path) -> Path:
    return copied(originals["adapter"], tmp_path / "adapter")


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def change(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; `...` removes one."""
    content = json.loads(path.read_text()) | changes
    kept = {name: value for name, value in content.items() if value is not ...}
    path.write_text(json.dumps(kept))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        FuScore.from_pretrained(folder)
    text = str(caught.value)
    assert text.isprintable()  # one line, nothing for the terminal
    assert len(text) < 600


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


DAMAGES = {
    "wrong shape": (lambda x: torch.zeros(3, 3), r"{name}"),
    "int8": (lambda x: x.to(torch.int8), r"Expected {name} in F32, BF16, F16 .*, got I8"),
    "int64": (lambda x: x.to(torch.int64), r"Expected {name} in F32, .*, got I64"),
    "bool": (lambda x: x > 0, r"Expected {name} in F32, .*, got BOOL"),
    "float64": (lambda x: x.double(), r"Expected {name} in F32, .*, got F64"),
    "float8": (lambda x: x.to(torch.float8_e4m3fn), r"Expected {name} in F32, .*, got F8_E4M3"),
    "NaN": (lambda x: x.index_fill(0, torch.tensor([1]), torch.nan), r"{name} has NaN"),
    "infinity": (lambda x: x.index_fill(0, torch.tensor([1]), torch.inf), r"{name} has infinite"),
    "-infinity": (lambda x: x.index_fill(0, torch.tensor([1]), -torch.inf), r"{name} has infinite"),
}
"""What becomes of a tensor, and what the message says."""


class TestTensors:
    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_tensor_that_is_not_as_it_must_be(self, originals, tmp_path, kind, damage):
        folder = copied(originals[kind], tmp_path / "hostile")
        tensors = load_file(weights_of(folder))
        name = sorted(name for name, tensor in tensors.items() if tensor.dim() == 2)[0]
        spoil, message = DAMAGES[damage]
        tensors[name] = spoil(tensors[name])
        save_file(tensors, weights_of(folder), metadata={"format": "pt"})
        # peft and transformers name a tensor of a wrong shape their own way.
        known = "lora_A" if kind == "adapter" and damage == "wrong shape" else name
        refused(folder, message.format(name=known.replace(".", r"\.")))

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_missing(self, originals, tmp_path, kind):
        folder = copied(originals[kind], tmp_path / "hostile")
        tensors = load_file(weights_of(folder))
        name = sorted(tensors)[-1]
        del tensors[name]
        save_file(tensors, weights_of(folder), metadata={"format": "pt"})
        refused(folder, rf"(such as|Expected) {name}")

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_too_many(self, originals, tmp_path, kind):
        folder = copied(originals[kind], tmp_path / "hostile")
        tensors = load_file(weights_of(folder)) | {"model.zzz.weight": torch.zeros(3)}
        save_file(tensors, weights_of(folder), metadata={"format": "pt"})
        refused(folder, r"(such as model\.zzz|Expected model\.zzz.* as no such tensor)")

    @pytest.mark.parametrize("kind", ["lite", "qwen"])
    def test_a_name_for_the_terminal(self, originals, tmp_path, kind):
        folder = copied(originals[kind], tmp_path / "hostile")
        tensors = load_file(folder / WEIGHTS) | {"model.\x1b[2J\nweight": torch.zeros(3)}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        refused(folder, r"(Expected|such as) 'model\.\\x1b\[2J\\nweight'")

    @pytest.mark.parametrize(
        "name", ["v_head.summary.weight", "model.visual.rotary_pos_emb.inv_freq"]
    )
    def test_what_decides_nothing_may_be_there(self, qwen, originals, name):
        """Another head, and frequencies that older versions of transformers stored."""
        tensors = load_file(qwen / WEIGHTS) | {name: torch.zeros(3)}
        save_file(tensors, qwen / WEIGHTS, metadata={"format": "pt"})
        ours, theirs = (FuScore.from_pretrained(folder) for folder in (originals["qwen"], qwen))
        with torch.no_grad():
            assert torch.equal(ours(*images()).score, theirs(*images()).score)

    def test_finite_numbers_of_every_dtype_pass(self):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            largest = torch.finfo(dtype).max
            check_finite([("a", torch.tensor([-largest, largest], dtype=dtype))], Path("a"))
        check_finite(
            [("none", torch.zeros(0)), ("packed", torch.zeros(2, dtype=torch.uint8))], Path("a")
        )
        check_finite([("elsewhere", torch.zeros(2, device="meta"))], Path("a"))


def header(content: bytes, data: bytes = b"") -> bytes:
    return len(content).to_bytes(8, "little") + content + data


def entry(start: int, end: int, *, shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape or [1], "data_offsets": [start, end]}


FILES = {
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "a header of 99 MB": (99_000_000).to_bytes(8, "little") + b"{}",
    "offsets that overlap": header(
        json.dumps({"a": entry(0, 4), "b": entry(2, 6)}).encode(), bytes(6)
    ),
    "a hole": header(json.dumps({"a": entry(0, 4), "b": entry(8, 12)}).encode(), bytes(12)),
    "an end before the start": header(json.dumps({"a": entry(4, 0)}).encode(), bytes(4)),
    "offsets below 0": header(json.dumps({"a": entry(-4, 0)}).encode(), bytes(4)),
    "a shape that overflows": header(
        json.dumps({"a": entry(0, 4, shape=[2**62, 2**62])}).encode(), bytes(4)
    ),
    "a deep header": header(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "a list": header(b"[1, 2]"),
    "not UTF-8": header(b'{"\xff": 1}'),
    "unknown dtype": header(json.dumps({"a": entry(0, 4) | {"dtype": "X"}}).encode(), bytes(4)),
}


@pytest.mark.parametrize("case", FILES)
def test_a_safetensors_file_made_to_confuse(lite, case):
    (lite / WEIGHTS).write_bytes(FILES[case])
    refused(lite, r"model\.safetensors (has no readable header|is damaged|is \d+ of \d+ bytes)")


DEEP = json.loads("[" * 200 + "]" * 200)
FIELDS = {
    "name": [3, None, True, "", [], "a\nb", "\x1b[2Jfree", "a\u202eb", "\ud800", "x" * 201],
    "family": [3, None, [], {}, "clip", "../lite_llama", "os:system", "x" * 10**5],
    "preprocessing": [3, None, [], "grid"],
    "label_kind": [3, None, [], {}, "people", "human\n"],
    "label_description": [3, None, [], "\x1b]0;title\x07", "\r"],
    "prompt_version": [2, "1", None, True, 1.0, [], 10**400],
    "level_words": [3, None, "bad", {}, [], [1, 2, 3, 4, 5], ["bad"], DEEP],
    "aspects": [3, None, "overall", [], ["beauty"], ["overall", "overall"], [["overall"]]],
    "weights": [3, None, [], "half", "pickle"],
    "base_model": [3, None, [], "a\nb", "a\x00b"],
    "base_revision": [3, None, [], "a\nb"],
    "base": [3, None, {}, ["a"], [{"id": 1}], [{"id": "a\nb"}]],
    "data": [3, None, {}, "TNO", [1], ["a\nb"], DEEP],
    "temperature": [0, -1, None, "1", True, [], float("nan"), float("inf"), 10**400, 1e301],
    "metrics": [3, None, [], {"a\nb": 1}, {"a": "\x1b[2J"}, {"a": DEEP}],
    "code_revision": [3, None, "a\nb"],
    "created": [3, None, "a\nb"],
    "format_version": [4, 0, -1, "3", None, True, 3.0, [], {}, 10**400],
}
OPTIONS = {
    "min_pixels": [0, -1, 10**12, "1", None, True, 1.5, float("nan"), 786433, []],
    "max_pixels": [0, -1, 10**12, 10**400, "1", None, True, 1e6, float("inf"), 16383],
    "multiple": [0, -1, 10**6, "1", None, 1.0],
    "grid": [0, -1, 10**6, "4", None, 4.0, [4]],
    "mean": [float("nan"), float("inf"), -1, 2, "0.5", None, True, [0.5]],
    "std": [0, -1, float("nan"), float("inf"), 1e-30, "0.5", None, [1, 1, 1]],
}
QWEN_OPTIONS = {
    "image_mean": [0.5, [0.5, 0.5], [0.5, 0.5, float("nan")], ["0", "0", "0"], None],
    "image_std": [0.5, [0, 1, 1], [float("nan")] * 3, [1, 1, 1, 1], [True, True, True]],
    "patch_size": [0, "16", 10**9, None],
    "merge_size": [0, -2, 2.0],
    "temporal_patch_size": [0, [2]],
    "max_pixels": [10**12, 0, 3],
}


def cases(table: dict[str, list[object]]) -> list[tuple[str, object]]:
    return [(name, value) for name, values in table.items() for value in values]


def label(value: object) -> str:
    return ascii(value)[:20]


def spec_refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_spec(folder)
    assert SPEC_FILE in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


class TestSpec:
    @pytest.mark.parametrize(("name", "value"), cases(FIELDS), ids=label)
    def test_no_field_takes_anything(self, lite, name, value):
        change(lite / SPEC_FILE, **{name: value})
        words = {"format_version": "format version"}.get(name, name)
        # Strings inside are named by the key that they stand at.
        spec_refused(lite, rf"Expected (`{words}`|{words}|`id`|`a|`'a)|JSON")

    @pytest.mark.parametrize(("name", "value"), cases(OPTIONS), ids=label)
    def test_no_option_of_the_pixels_does(self, lite, name, value):
        options = json.loads((lite / SPEC_FILE).read_text())["preprocessing"]
        change(lite / SPEC_FILE, preprocessing=options | {name: value})
        spec_refused(lite, rf"Expected `preprocessing\.(min_pixels|{name})`.* got ")

    @pytest.mark.parametrize(("name", "value"), cases(QWEN_OPTIONS), ids=label)
    def test_nor_one_of_the_large_families(self, qwen, name, value):
        options = json.loads((qwen / SPEC_FILE).read_text())["preprocessing"]
        change(qwen / SPEC_FILE, preprocessing=options | {name: value})
        spec_refused(qwen, rf"Expected `preprocessing\.(min_pixels|{name})`.* got ")

    @pytest.mark.parametrize("kind", ["lite", "qwen"])
    @pytest.mark.parametrize("name", ["max_pixels", "surprise"])
    def test_options_are_neither_missing_nor_unknown(self, originals, tmp_path, kind, name):
        folder = copied(originals[kind], tmp_path / "hostile")
        options = json.loads((folder / SPEC_FILE).read_text())["preprocessing"]
        if options.pop(name, None) is None:
            options[name] = 1
        change(folder / SPEC_FILE, preprocessing=options)
        refused(folder, f"Expected `preprocessing` .*{name}")

    @pytest.mark.parametrize("name", ["name", "family", "preprocessing", "label_kind"])
    def test_what_must_be_there(self, lite, name):
        change(lite / SPEC_FILE, **{name: ...})
        spec_refused(lite, f"Missing keys in .*: {name}")

    def test_a_newer_format_says_what_to_do(self, lite):
        change(lite / SPEC_FILE, format_version=4, from_the_future=1)
        spec_refused(lite, "Expected format version up to 3 .*, got 4: .* upgrade the package")

    def test_unknown_keys_are_named_escaped_and_not_all(self, lite):
        change(lite / SPEC_FILE, **{"a\nb": 1})
        spec_refused(lite, r"Unknown keys in .*: 'a\\nb'")
        change(lite / SPEC_FILE, **{f"key_{n}": n for n in range(10_000)})
        spec_refused(lite, r"Unknown keys in .*, \.\.\.")

    @pytest.mark.parametrize(
        "content",
        [
            b"\xff\xfe{}",
            '{"name": "é"}'.encode("latin-1"),
            b"",
            b"\x00" * 9,
            b"[]",
            b'"text"',
            b"NaN",
            b"[" * 10**5,
            b'{"a":' * 10**5,
            b'{"name": 1' + b"0" * 10_000 + b"}",
            b'{"name": "a", "name": "b"}',
            b'{"preprocessing": {"grid": 4, "grid": 5}}',
            b"{} {}",
            b"{'name': 'a'}",
        ],
        ids=label,
    )
    def test_what_is_no_json_object(self, lite, content):
        (lite / SPEC_FILE).write_bytes(content)
        spec_refused(lite, "Expected (JSON|an object) in")

    def test_a_byte_order_mark_is_no_harm(self, lite):
        expected = read_spec(lite)
        (lite / SPEC_FILE).write_bytes(b"\xef\xbb\xbf" + (lite / SPEC_FILE).read_bytes())
        assert read_spec(lite) == expected
        FuScore.from_pretrained(lite)

    def test_a_hundred_megabytes_are_not_read(self, lite):
        with (lite / SPEC_FILE).open("wb") as file:
            file.truncate(100_000_000)  # sparse
        spec_refused(lite, f"larger than {MAX_SPEC_BYTES} bytes")
        refused(lite, "Expected .*fuscore.json to be a file of up to 64000000 bytes")

    @pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "merges.txt"])
    def test_nor_of_other_texts(self, qwen, name):
        with (qwen / name).open("wb") as file:
            file.truncate(1_000_000_000)  # sparse
        refused(qwen, f"Expected .*{name} to be a file of up to 64000000 bytes")

    @pytest.mark.parametrize("metrics", [{"a": {"srcc": {"value": "x"}}}, {"a": {"srcc": [1]}}])
    def test_odd_metrics_can_be_shown(self, lite, metrics):
        change(lite / SPEC_FILE, metrics=metrics)
        shown = CliRunner().invoke(app, ["info", "--weights", str(lite)], catch_exceptions=False)
        assert shown.exit_code == 0

    def test_a_pipe_is_not_waited_for(self, lite):
        (lite / SPEC_FILE).unlink()
        os.mkfifo(lite / SPEC_FILE)
        spec_refused(lite, "not a regular file")
        refused(lite, "Expected a checkpoint with fuscore.json")

    def test_nor_is_one_of_a_library(self, qwen):
        os.mkfifo(qwen / "merges.txt")
        refused(qwen, "Expected .*merges.txt to be a file")

    def test_lines_about_the_labels_stay(self, lite):
        change(lite / SPEC_FILE, label_description="two\nlines")
        assert read_spec(lite).label_description == "two\nlines"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from([*FIELDS, *OPTIONS, "surprise"])


@settings(max_examples=150, deadline=None)
@given(fields=st.dictionaries(NAMES, JSON, max_size=3), options=st.dictionaries(NAMES, JSON))
def test_random_values_are_read_or_refused(tmp_path_factory, fields, options):
    folder = tmp_path_factory.getbasetemp()
    good = {"name": "a", "family": "lite_llama", "label_kind": "none", "preprocessing": options}
    (folder / SPEC_FILE).write_text(json.dumps(good | fields))
    try:
        spec = read_spec(folder)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it may also be read
    else:
        spec.save(folder)
        assert read_spec(folder).label_statement() == spec.label_statement()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_random_bytes_are_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / SPEC_FILE).write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_spec(folder)
    assert "\n" not in str(caught.value)


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
