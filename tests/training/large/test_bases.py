"""A base model put together from parts, on tiny parts; and what is said where it is missing."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from fuscore_training import cli
from fuscore_training.large import bases
from fuscore_training.large.bases import Package, assemble
from fuscore_training.large.fine_tune import Base
from fuscore_training.recipe import BaseOptions
from transformers import Dinov2Model, LlamaForCausalLM

from benchmarks.tiny_llava import tiny_model, tokenizer
from fuscore_metric import CheckpointError, FuScore
from fuscore_metric.backbones.llava.llava import Llava
from fuscore_metric.checkpoints.locate import MADE_BASE_FILE
from tests.helpers.adapted import images, make_adapted


def parts():
    torch.manual_seed(0)
    config = tiny_model("dinov2").config
    llama = LlamaForCausalLM(config.text_config).eval()
    return llama, tokenizer(), Dinov2Model(config.vision_config).eval()


def test_the_parts_come_back_from_the_assembled_model(tmp_path):
    llama, words, tower = parts()
    model = assemble(llama, words, tower, layers=2)
    model.to(torch.float16).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    backbone = Llava.from_base(tmp_path)
    inner = backbone.model.model
    assert len(inner.language_model.layers) == 2
    given = llama.half().float().model.state_dict()
    for name, tensor in inner.language_model.state_dict().items():
        rows = len(given[name])
        assert torch.equal(tensor[:rows], given[name]), name
    for name, tensor in inner.vision_tower.state_dict().items():
        assert torch.equal(tensor, tower.half().float().state_dict()[name]), name
    embedded = FuScore.from_pretrained("embedded", device="cpu").backbone
    assert torch.equal(inner.statistics.vision.stem.conv.weight, embedded.vision.stem.conv.weight)
    assert torch.equal(inner.statistics.projectors["whole"].mean, embedded.projectors["whole"].mean)
    ir, vis, fused = images()
    assert backbone.level_logits(backbone.encode(ir, vis, fused), "overall").isfinite().all()


def test_the_seed_decides_what_is_untrained():
    first, again, other = (assemble(*parts(), layers=1, seed=seed) for seed in (0, 0, 1))
    name = "model.multi_modal_projector.linear_1.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    random = assemble(*parts(), layers=1, random_language=True)
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(first.state_dict()[name], random.state_dict()[name])


def test_a_wheel_with_another_content_is_refused(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gguf")
    pytest.importorskip("onnx")
    package = Package("some-words", "1.0", "0" * 64, "a.gguf", "words", "MIT", "nowhere")
    monkeypatch.setattr(bases, "LANGUAGE", package)
    for message in ("not there", "SHA-256"):
        arguments = ["base", "smollm2", "--out", str(tmp_path / "out"), "--wheels", str(tmp_path)]
        monkeypatch.setattr("sys.argv", ["fuscore-train", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        assert message in capsys.readouterr().err
        (tmp_path / package.wheel).write_bytes(b"PK")


@pytest.mark.parametrize("command", ["smollm2", "smollm2 --layers 8", "rm -rf /", "a; b"])
def test_an_adapter_says_how_its_base_is_made(command, tmp_path):
    llama, words, tower = parts()
    base = tmp_path / "base"
    assemble(llama, words, tower, layers=1).save_pretrained(base)
    words.save_pretrained(base)
    (base / MADE_BASE_FILE).write_text(
        json.dumps([{"id": "words", "licence": "MIT", "assembled_by": command}])
    )
    adapted = make_adapted(base, "llava")
    facts = Base(BaseOptions(str(base))).parts
    adapted.spec = replace(adapted.spec, base=facts)
    adapted.save_pretrained(tmp_path / "adapter")
    assert FuScore.from_pretrained(tmp_path / "adapter").spec.base == facts
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="not there") as caught:
        FuScore.from_pretrained(tmp_path / "adapter")
    told = f"`fuscore-train base {command} --out DIR`" in str(caught.value)
    assert told == command.startswith("smollm2")
