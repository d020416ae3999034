"""Adapters, merged and whole weights; big models over several devices and quantised."""

import importlib
import json
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.tiny_qwen import FAMILIES, SMALL
from fuscore_metric import CheckpointError, FuScore, FuScoreSpec, optional
from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.qwen.qwen3_vl import Qwen3VL
from fuscore_metric.checkpoints.spec import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SPEC_FILE
from fuscore_metric.compute.placement import choose_dtype
from tests.helpers.adapted import images, logits, make_adapted
from tests.helpers.rated_scenes import write_base


@pytest.fixture(scope="module", params=[*FAMILIES, "llava"])
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(family, tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / family, family)


@pytest.fixture
def adapted(base, family) -> FuScore:
    return make_adapted(base, family)


@pytest.fixture
def saved(adapted, tmp_path) -> Path:
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_is_small_and_comes_back_with_its_base(base, adapted, saved):
    assert sorted(p.name for p in saved.iterdir()) == [ADAPTER_CONFIG, ADAPTER_WEIGHTS, SPEC_FILE]
    loaded = FuScore.from_pretrained(saved)
    assert torch.equal(logits(loaded), logits(adapted))
    plain = backbone_class(adapted.spec.family).from_base(base, preprocessing=SMALL)
    assert (logits(FuScore(plain, adapted.spec)) - logits(adapted)).abs().max() > 0.01


def test_loading_and_saving_again_changes_nothing(saved, tmp_path):
    FuScore.from_pretrained(saved).save_pretrained(tmp_path / "again")
    ours, theirs = (load_file(folder / ADAPTER_WEIGHTS) for folder in (saved, tmp_path / "again"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_others_can_load_the_adapter_with_peft_alone(base, family, adapted, saved):
    from peft import PeftModel

    plain = backbone_class(family).from_base(base, preprocessing=SMALL)
    PeftModel.from_pretrained(plain.model, str(saved))
    assert torch.equal(logits(FuScore(plain, adapted.spec)), logits(adapted))


def test_merged_weights_score_alike_and_need_no_adapter(adapted, saved, tmp_path):
    before = logits(adapted)
    merged = FuScore.from_pretrained(saved).merge()
    assert merged.spec.weights == "merged"
    assert torch.allclose(logits(merged), before, atol=1e-4)
    assert not any(".lora_" in name for name, _ in merged.named_parameters())
    merged.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged" / ADAPTER_WEIGHTS).exists()
    loaded = FuScore.from_pretrained(tmp_path / "merged")
    assert loaded.spec == merged.spec
    assert torch.equal(logits(loaded), logits(merged))


def test_one_folder_never_mixes_two_saves(adapted, saved):
    before = logits(adapted)
    FuScore.from_pretrained(saved).merge().save_pretrained(saved)
    assert not list(saved.glob("adapter*"))
    assert torch.allclose(logits(FuScore.from_pretrained(saved)), before, atol=1e-4)
    adapted.save_pretrained(saved)
    assert not (saved / "model.safetensors").exists()
    assert torch.equal(logits(FuScore.from_pretrained(saved)), before)


def test_an_adapter_beside_whole_weights_is_refused(adapted, saved, tmp_path):
    adapted.merge().save_pretrained(tmp_path / "merged")
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        shutil.copy(saved / name, tmp_path / "merged")
    with pytest.raises(CheckpointError, match="Expected whole weights alone"):
        FuScore.from_pretrained(tmp_path / "merged")


def test_there_must_be_something_to_merge(base, family, tmp_path):
    backbone = backbone_class(family).from_base(base, preprocessing=SMALL)
    model = FuScore(backbone, FuScoreSpec("a", family, backbone.preprocessing, "none"))
    with pytest.raises(ValueError, match="with an adapter to merge"):
        model.merge()


def test_gradients_reach_the_images_through_an_adapter(saved):
    model = FuScore.from_pretrained(saved)
    ir, vis, fused = images()
    fused.requires_grad_()
    model(ir, vis, fused).score.sum().backward()
    assert fused.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in model.parameters())


class TestTheBase:
    def test_another_base_is_refused(self, family, adapted, saved, tmp_path):
        other = write_base(tmp_path / "other", family)
        weights = load_file(other / "model.safetensors")
        save_file({name: x + 0.1 for name, x in weights.items()}, other / "model.safetensors")
        for given in ({}, {"adapter": saved}):
            if not given:
                spec = replace(adapted.spec, base_model=str(other))
                spec.save(saved)
            with pytest.raises(CheckpointError, match="Expected the base model that adapted was"):
                FuScore.from_pretrained(*([other] if given else [saved]), **given)

    def test_a_base_that_moved_can_be_given(self, base, adapted, saved, tmp_path):
        replace(adapted.spec, base_model="/not/here").save(saved)
        with pytest.raises(CheckpointError, match="give the directory of your copy") as caught:
            FuScore.from_pretrained(saved)
        assert "\n" not in str(caught.value)
        copy = shutil.copytree(base, tmp_path / "copy")
        found = FuScore.from_pretrained(copy, adapter=saved)
        assert torch.equal(logits(found), logits(adapted))

    def test_a_hub_base_needs_a_commit(self, adapted, saved):
        replace(adapted.spec, base_model="owner/name", base_revision="main").save(saved)
        with pytest.raises(CheckpointError, match="to be a commit hash, got 'main'"):
            FuScore.from_pretrained(saved)

    def test_a_copy_of_a_hub_base_is_taken_with_a_warning(self, base, adapted, saved, caplog):
        replace(adapted.spec, base_model="owner/name", base_revision="a" * 40).save(saved)
        found = FuScore.from_pretrained(base, adapter=saved)
        assert "Cannot tell whether" in caplog.text
        assert torch.equal(logits(found), logits(adapted))

    def test_another_revision_of_the_base_is_refused(self, adapted, saved):
        replace(adapted.spec, base_model="owner/name", base_revision="a" * 40).save(saved)
        with pytest.raises(CheckpointError, match=f"Expected revision {'a' * 40} of 'owner/name'"):
            FuScore.from_pretrained("owner/name", revision="b" * 40, adapter=saved)

    def test_whole_weights_are_no_adapter(self, base, family, tmp_path):
        backbone = backbone_class(family).from_base(base, preprocessing=SMALL)
        FuScore(backbone, FuScoreSpec("a", family, backbone.preprocessing, "none")).save_pretrained(
            tmp_path
        )
        with pytest.raises(CheckpointError, match="Expected `adapter` to be an adapter's"):
            FuScore.from_pretrained(base, adapter=tmp_path)


class TestForeignAdapters:
    def refused(self, saved: Path, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            FuScore.from_pretrained(saved)
        assert "\n" not in str(caught.value)

    def change_config(self, saved: Path, **change: object) -> None:
        path = saved / ADAPTER_CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    def test_pickles_are_refused(self, saved):
        (saved / ADAPTER_WEIGHTS).rename(saved / "adapter_model.bin")
        self.refused(saved, ADAPTER_WEIGHTS)

    @pytest.mark.parametrize(
        "change",
        [{"peft_type": "PROMPT_TUNING"}, {"megatron_config": {"a": 1}}, {"peft_type": None}],
    )
    def test_only_plain_loras_are_taken(self, saved, change):
        self.change_config(saved, **change)
        self.refused(saved, "Expected a plain LoRA")

    def test_an_adapter_for_other_layers_is_refused(self, saved):
        self.change_config(saved, target_modules=["q_proj"])
        self.refused(saved, "do not fit")

    def test_an_adapter_of_another_rank_is_refused(self, saved):
        self.change_config(saved, r=8)
        self.refused(saved, "Cannot load the weights|do not fit")

    def test_missing_weights_are_refused(self, saved):
        weights = load_file(saved / ADAPTER_WEIGHTS)
        weights.pop(sorted(weights)[0])
        save_file(weights, saved / ADAPTER_WEIGHTS)
        self.refused(saved, "1 of its weights do not fit")

    def test_a_spec_without_base_is_refused(self, adapted, saved):
        replace(adapted.spec, base_model="").save(saved)
        self.refused(saved, "Expected `base_model` and `base_revision`")

    def test_unknown_kinds_of_weights_are_refused(self, adapted, saved):
        replace(adapted.spec, weights="half").save(saved)
        self.refused(saved, "Expected `weights` in full, merged, adapter")

    def test_small_families_have_none(self, tmp_path):
        embedded = FuScore.from_pretrained()
        embedded.save_pretrained(tmp_path)
        (tmp_path / ADAPTER_CONFIG).write_text("{}")
        replace(
            embedded.spec, weights="adapter", base_model="embedded", base_revision="a" * 40
        ).save(tmp_path)
        self.refused(tmp_path, "Expected whole weights for family lite_llama")


class TestPlacement:
    def test_spread_over_devices_with_parts_on_disk(self, base, adapted, saved, tmp_path):
        expected, merged = logits(adapted), tmp_path / "merged"
        adapted.merge().save_pretrained(merged)
        parts = [f"model.{name}" for name, _ in adapted.backbone.model.model.named_children()]
        whole = dict.fromkeys([*parts, "lm_head"], "cpu")
        # transformers (5.24) cannot keep embeddings on disk that are also the head.
        tied = adapted.backbone.model.config.tie_word_embeddings
        for disk in ([], *([] if tied else [["lm_head"], ["lm_head", "model.language_model"]])):
            parts = whole | dict.fromkeys(disk, "disk")
            loaded = FuScore.from_pretrained(merged, device_map=parts)
            assert torch.allclose(logits(loaded), expected, atol=1e-4), disk
            assert loaded.device.type == "cpu"
        if not tied:
            with pytest.raises(CheckpointError, match="merge it first"):
                FuScore.from_pretrained(base, adapter=saved, device_map=whole | {"lm_head": "disk"})

    def test_automatically(self, saved, adapted):
        loaded = FuScore.from_pretrained(saved, device_map="auto")
        assert loaded.dtype == (torch.bfloat16 if torch.cuda.is_available() else torch.float32)
        assert torch.allclose(logits(loaded).cpu(), logits(adapted), atol=1e-5)

    def test_one_of_device_and_device_map(self, saved):
        with pytest.raises(ValueError, match="one of `device` and `device_map`"):
            FuScore.from_pretrained(saved, device="cpu", device_map="auto")

    @pytest.mark.parametrize("given", [{"device_map": "auto"}, {"quantize": "4bit"}])
    def test_not_for_small_families(self, given):
        with pytest.raises(ValueError, match="Expected no `device_map` or `quantize` for family"):
            FuScore.from_pretrained(**given)

    def test_default_dtypes(self):
        assert choose_dtype(None, Qwen3VL, on_cpu=True) == torch.float32
        assert choose_dtype(None, Qwen3VL, on_cpu=False) == torch.bfloat16
        assert choose_dtype(None, LiteLlama, on_cpu=False) == torch.float32
        with pytest.raises(CheckpointError, match="overflow in float16"):
            choose_dtype("float16", Qwen3VL, on_cpu=False)


class TestQuantised:
    def test_says_what_to_install(self, saved, monkeypatch):
        monkeypatch.setattr(
            optional,
            "find_spec",
            lambda name: None if name == "bitsandbytes" else find_spec(name),
        )
        with pytest.raises(ImportError, match="needs bitsandbytes: pip install 'bitsandbytes'"):
            FuScore.from_pretrained(saved, quantize="4bit")

    def test_unknown_ways_are_refused(self, saved):
        with pytest.raises(ValueError, match="to be one of 4bit, 8bit, int8, got '2bit'"):
            FuScore.from_pretrained(saved, quantize="2bit")

    @pytest.mark.parametrize("way", ["4bit", "8bit"])
    def test_scores_stay_near(self, family, way, tmp_path):
        pytest.importorskip("bitsandbytes")
        # Wide enough for the blocks of its kernels.
        adapted = make_adapted(write_base(tmp_path / "base", family, width=4), family)
        saved = tmp_path / "adapter"
        adapted.save_pretrained(saved)
        model = FuScore.from_pretrained(saved, quantize=way)
        with torch.no_grad():
            moved = model(*images()).score - adapted(*images()).score
        assert 0 < moved.abs().max() < 1  # random weights are no easy ones
        vision, whole = (x.backbone.vision_tower.state_dict() for x in (model, adapted))
        assert all(torch.equal(vision[name], x) for name, x in whole.items())
        with pytest.raises(ValueError, match="got quantised ones"):
            model.merge()
        model.save_pretrained(tmp_path / "again")  # the adapter is not quantised
        assert torch.equal(logits(FuScore.from_pretrained(tmp_path / "again")), logits(adapted))

    def test_eight_bits_on_a_cpu(self, saved, adapted, tmp_path):
        """The adapter is merged, scores stay near, and what cannot be done is said."""
        model = FuScore.from_pretrained(saved, quantize="int8")
        assert model.backbone.adapter is None
        with torch.no_grad():
            moved = model(*images()).score - adapted(*images()).score
        assert 0 < moved.abs().mean() < 0.5
        parts = model.backbone.model.model.named_modules()
        linear = [name for name, x in parts if type(x) is torch.nn.Linear]
        assert all(name.startswith("statistics.") for name in linear)
        ir, vis, fused = images()
        with pytest.raises(ValueError, match="without gradient"):
            model(ir, vis, fused.requires_grad_())
        with pytest.raises(ValueError, match="got quantised ones"):
            model.save_pretrained(tmp_path)

    def test_eight_bits_are_for_float32_on_a_cpu(self, saved):
        with pytest.raises(ValueError, match=r"of float32 weights, got .*bfloat16"):
            FuScore.from_pretrained(saved, quantize="int8", dtype="bfloat16")
        with pytest.raises(ValueError, match="`quantize='int8'` on a CPU"):
            FuScore.from_pretrained(saved, quantize="int8", device_map={"": "cpu"})

    def test_a_pytorch_without_it_is_named(self, saved, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
        with pytest.raises(ImportError, match=r"needs a PyTorch with torch\.ao\.quantization"):
            FuScore.from_pretrained(saved, quantize="int8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_scores_are_the_same(saved, adapted, family):
    model = FuScore.from_pretrained(saved)
    model.compile()
    with torch.no_grad():
        # Another size of the batch is compiled anew, which takes half a minute: in one family.
        for count in (1, 3) if family == "qwen3_vl" else (2,):
            given = [x[:1].repeat(count, 1, 1, 1) for x in images()]
            difference = model(*given).score - adapted(*given).score
            assert difference.abs().max() <= 1e-4
    assert any(x._compiled_call_impl is not None for x in model.backbone.modules())


@pytest.mark.parametrize("package", ["peft", "accelerate"])
def test_a_missing_package_is_named(saved, monkeypatch, package):
    monkeypatch.setattr(optional, "installed", lambda name: name != package)
    with pytest.raises(
        ImportError, match=f"needs {package}: pip install 'fuscore-metric\\[large\\]'"
    ):
        FuScore.from_pretrained(saved, device_map="auto" if package == "accelerate" else None)


def test_a_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "a_package_of_nobody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not optional.installed("a_package_of_nobody")
    (tmp_path / "a_package_of_nobody" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert optional.installed("a_package_of_nobody")
