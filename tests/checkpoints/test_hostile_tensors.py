"""Weights files made to do harm: tensors that are not as they must be, headers made to confuse."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fuscore_metric import FuScore
from fuscore_metric.backbones.stored_weights import check_finite
from fuscore_metric.checkpoints.integrity import WEIGHTS
from tests.checkpoints.conftest import KINDS, copied, refused, weights_of
from tests.helpers.adapted import images

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
