"""The whole way of fine-tuning a big model, on tiny models of the same classes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from fuscore_training import cli
from fuscore_training.large import fine_tune as module
from fuscore_training.large.fine_tune import Base, fine_tune, new_backbone
from fuscore_training.pair_images import read_images
from fuscore_training.ratings import RatingsError, RatingsTable, read_ratings, write_ratings
from fuscore_training.recipe import BaseOptions, FineTuneRecipe, RecipeError, read_recipe
from fuscore_training.trainer import FuScoreTrainer, LevelReader
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainingArguments

from benchmarks.tiny_qwen import FAMILIES
from fuscore_metric import FuScore, score
from fuscore_metric.checkpoints.spec import ADAPTER_WEIGHTS
from tests.helpers import ROOT
from tests.helpers.rated_scenes import recipe_content, write_base, write_rated_scenes

pytestmark = pytest.mark.usefixtures("few_resamples")
RECIPES = ROOT / "training" / "recipes"


@pytest.fixture(scope="module")
def ratings(tmp_path_factory) -> Path:
    return write_rated_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(
    scope="module",
    params=[pytest.param(FAMILIES[0], marks=pytest.mark.slow), FAMILIES[1], "llava"],
)
def base(request, tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / request.param, request.param)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "qwen3", "qwen3_vl")


def recipe_of(folder: Path, content: dict) -> FineTuneRecipe:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    found = read_recipe(path)
    assert isinstance(found, FineTuneRecipe)
    return found


def losses(work: Path, step: int) -> list[dict[str, float]]:
    """What was logged of each step, without timings."""
    state = json.loads((work / "fit" / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [
        {
            name: value
            for name, value in entry.items()
            if "runtime" not in name and "per_s" not in name
        }
        for entry in state["log_history"]
    ]


def triples(ratings: Path, rows: int = 6) -> list[list[str]]:
    frame = read_ratings(ratings).frame
    return [frame[name].tolist()[:rows] for name in ("ir", "vis", "fused")]


def test_a_run_writes_an_adapter_that_scores(base, ratings, tmp_path):
    recipe = recipe_of(tmp_path, recipe_content(base, ratings))
    metrics = fine_tune(recipe, work=tmp_path / "work", out=tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["adapter_config.json", ADAPTER_WEIGHTS, "fuscore.json"]
    loaded = FuScore.from_pretrained(tmp_path / "out")
    assert loaded.spec.weights == "adapter"
    assert loaded.spec.label_kind == "proxy"
    assert (loaded.spec.base_model, loaded.spec.base_revision[:7]) == (str(base), "sha256:")
    assert loaded.spec.metrics == json.loads(json.dumps(metrics))
    assert not any(p.requires_grad for p in loaded.parameters())
    untrained = FuScore(new_backbone(recipe, Base(recipe.base)), loaded.spec)
    change = score(*triples(ratings), model=loaded) - score(*triples(ratings), model=untrained)
    assert change.abs().max() > 1e-3, "training moved nothing"


def test_training_lowers_the_loss(qwen3, ratings, tmp_path):
    content = recipe_content(qwen3, ratings, steps=24, evaluate_every=24, learning_rate=0.01)
    content["tune"] |= {"dropout": 0.0, "checkpointing": False}
    content["batches"] |= {"methods_per_scene": 4, "sub_scores": 0}
    fine_tune(recipe_of(tmp_path, content), work=tmp_path / "work", out=tmp_path / "out")
    seen = [entry["loss"] for entry in losses(tmp_path / "work", 24) if "loss" in entry]
    assert sum(seen[-5:]) < 0.7 * sum(seen[:5])


@pytest.mark.slow
@pytest.mark.parametrize(("base", "steps"), [(FAMILIES[1], 60), ("llava", 30)], indirect=["base"])
def test_what_is_learned_carries_over_to_other_scenes(base, ratings, tmp_path, steps):
    """Random weights learn to order the fusions of scenes that they never saw."""
    content = recipe_content(base, ratings, steps=steps, evaluate_every=10, learning_rate=0.005)
    content["tune"] = {"rank": 8, "vision": "lora", "checkpointing": False}
    content["batches"] |= {"sub_scores": 0, "scenes_per_batch": 3, "methods_per_scene": 4}
    metrics = fine_tune(recipe_of(tmp_path, content), work=tmp_path / "work", out=tmp_path / "out")[
        "held_out_proxy"
    ]
    assert metrics["pairwise_accuracy"]["value"] > 0.7
    assert metrics["srcc"]["value"] > 0.5


def test_every_part_of_the_loss_is_logged_and_adds_up(qwen3, ratings, tmp_path):
    content = recipe_content(qwen3, ratings, sub_scores=0.5)
    content["fit"] |= {"weights": {"dist": 1.0, "within": 2.0, "cross": 3.0}, "consistency": 0.5}
    content["batches"] |= {"consistency": 2}
    fine_tune(recipe_of(tmp_path, content), work=tmp_path / "work", out=tmp_path / "out")
    logged = [entry for entry in losses(tmp_path / "work", 6) if "loss" in entry]
    assert len(logged) == 6
    for entry in logged:
        parts = [entry[f"loss_{name}"] for name in ("dist", "within", "cross", "consistency")]
        weighted = sum(w * part for w, part in zip((1, 2, 3, 0.5), parts, strict=True))
        assert entry["loss"] == pytest.approx(weighted, abs=1e-4)
    events = EventAccumulator(str(tmp_path / "work" / "fit" / "tensorboard")).Reload()
    shown = events.Tags()["scalars"]
    assert {f"train/loss_{name}" for name in ("dist", "within", "cross", "consistency")} <= set(
        shown
    )
    assert {"eval/srcc", "eval/krcc", "train/learning_rate"} <= set(shown)
    steps = [event.step for event in events.Scalars("train/loss_dist")]
    assert steps == [1, 2, 3, 4, 5, 6]


class InterruptedRunError(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(base, ratings, tmp_path, monkeypatch):
    content = recipe_content(base, ratings, steps=8)
    content["tune"] |= {"dropout": 0.1}  # random numbers have to be taken up again, too
    recipe = recipe_of(tmp_path, content)
    fine_tune(recipe, work=tmp_path / "whole", out=tmp_path / "whole_out")

    original, calls = FuScoreTrainer.compute_loss, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 6:  # after the checkpoint of step 4, in the middle of an epoch
            raise InterruptedRunError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(FuScoreTrainer, "compute_loss", interrupted)
    with pytest.raises(InterruptedRunError):
        fine_tune(recipe, work=tmp_path / "cut", out=tmp_path / "cut_out")
    monkeypatch.setattr(FuScoreTrainer, "compute_loss", original)
    fine_tune(recipe, work=tmp_path / "cut", out=tmp_path / "cut_out")

    assert losses(tmp_path / "cut", 8) == losses(tmp_path / "whole", 8)
    whole, cut = (
        load_file(tmp_path / f"{name}_out" / ADAPTER_WEIGHTS) for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.slow
def test_another_recipe_does_not_go_on_in_the_same_folder(qwen3, ratings, tmp_path):
    content = recipe_content(qwen3, ratings, steps=2)
    fine_tune(recipe_of(tmp_path, content), work=tmp_path / "work", out=tmp_path / "out")
    content["fit"]["learning_rate"] = 0.1
    other = recipe_of(tmp_path, content)
    with pytest.raises(RecipeError, match="Expected the recipe that was begun in"):
        fine_tune(other, work=tmp_path / "work", out=tmp_path / "out")
    fine_tune(other, work=tmp_path / "work", out=tmp_path / "out", restart=True)


def test_checkpoints_hold_only_what_is_trained(qwen3, ratings, tmp_path):
    recipe = recipe_of(tmp_path, recipe_content(qwen3, ratings, steps=2))
    fine_tune(recipe, work=tmp_path / "work", out=tmp_path / "out")
    stored = load_file(tmp_path / "work" / "fit" / "checkpoint-2" / "model.safetensors")
    assert stored
    assert all(".lora_" in name for name in stored)


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_training_stops_early(
    qwen3, ratings, tmp_path, monkeypatch
):
    # Validation gets worse from the first look on: the first weights are the best.
    seen, values, original = {}, iter([0.5, 0.4, 0.3, 0.2]), module.evaluate

    def worse(*args, **kwargs):
        found = original(*args, **kwargs)
        if kwargs.get("n_boot") == 20:
            return replace(found, srcc=replace(found.srcc, value=next(values)))
        return found

    monkeypatch.setattr(module, "evaluate", worse)
    save = FuScoreTrainer._save

    def remember(self, output_dir=None, state_dict=None):
        state = self.trained_state(state_dict)
        seen[self.state.global_step] = {name: x.clone() for name, x in state.items()}
        save(self, output_dir, state_dict)

    monkeypatch.setattr(FuScoreTrainer, "_save", remember)
    recipe = recipe_of(tmp_path, recipe_content(qwen3, ratings, steps=8, patience=2))
    fine_tune(recipe, work=tmp_path / "work", out=tmp_path / "out")
    assert sorted(seen) == [2, 4, 6], "two looks without a better one end the run"
    stored = load_file(tmp_path / "out" / ADAPTER_WEIGHTS)
    assert stored
    for name, tensor in stored.items():
        ours = [x for key, x in seen[2].items() if _same_place(key, name)]
        assert len(ours) == 1
        assert torch.equal(tensor, ours[0])


def _same_place(key: str, name: str) -> bool:
    """Whether a trained weight and one of an adapter's file are the same."""
    return key.removeprefix("backbone.model.").replace(".default", "") == name.removeprefix(
        "base_model.model."
    )


@pytest.mark.parametrize(
    ("tune", "weights"),
    [
        ({"language": "full", "projector": "full", "vision": "full"}, "full"),
        ({"language": "lora", "projector": "full", "vision": "lora"}, "merged"),
    ],
)
def test_what_is_trained_in_full_is_saved_in_full(base, ratings, tmp_path, tune, weights):
    content = recipe_content(base, ratings, steps=2)
    content["tune"] = tune
    recipe = recipe_of(tmp_path, content)
    fine_tune(recipe, work=tmp_path / "work", out=tmp_path / "out")
    loaded = FuScore.from_pretrained(tmp_path / "out")
    if base.name == "llava" and weights == "merged":
        weights = "adapter"  # its small projectors go with it
    assert loaded.spec.weights == weights
    if weights != "adapter":
        assert not any(".lora_" in name for name, _ in loaded.named_parameters())
    untrained = FuScore(new_backbone(recipe, Base(recipe.base)), loaded.spec)
    change = score(*triples(ratings), model=loaded) - score(*triples(ratings), model=untrained)
    assert change.abs().max() > 1e-3


def test_ratings_without_sub_scores_train_the_overall_quality(
    qwen3, ratings, tmp_path, monkeypatch
):
    table = read_ratings(ratings)
    frame = table.frame.drop(
        columns=["thermal_retention", "texture_preservation", "artifacts", "sharpness"]
    ).assign(sigma=0.4)
    monkeypatch.setattr(
        module, "load_ratings", lambda *args, **kwargs: RatingsTable(frame, "human", "made up")
    )
    content = recipe_content(qwen3, ratings, steps=2)
    with pytest.raises(ValueError, match="`sub_scores` 0"):
        fine_tune(recipe_of(tmp_path, content), work=tmp_path / "a", out=tmp_path / "out")
    content["batches"]["sub_scores"] = 0
    metrics = fine_tune(recipe_of(tmp_path, content), work=tmp_path / "b", out=tmp_path / "out")
    assert list(metrics["held_out_human"]["aspect_srcc"]) == ["overall"]


@pytest.mark.parametrize(
    ("dtype", "mixed", "tune"),
    [
        ("bfloat16", False, {"rank": 4}),
        ("float32", True, {"language": "full", "projector": "full", "vision": "full"}),
    ],
)
def test_half_precision_trains_float32_weights(qwen3, ratings, tmp_path, dtype, mixed, tune):
    content = recipe_content(qwen3, ratings, steps=2)
    content["base"] |= {"dtype": dtype, "mixed": mixed}
    content["tune"] = tune
    recipe = recipe_of(tmp_path, content)
    backbone = new_backbone(recipe, Base(recipe.base))
    assert {p.dtype for p in backbone.parameters() if p.requires_grad} == {torch.float32}
    assert backbone.dtype == getattr(torch, dtype)
    fine_tune(recipe, work=tmp_path / "work", out=tmp_path / "out")
    assert all(math.isfinite(entry["loss"]) for entry in losses(tmp_path / "work", 2)[:1])
    loaded = FuScore.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float32
    assert score(*triples(ratings, 2), model=loaded).isfinite().all()


def test_scenes_of_one_row_are_left_out_and_empty_splits_refused(
    qwen3, ratings, tmp_path, monkeypatch, caplog
):
    table = read_ratings(ratings)
    lonely = table.frame[(table.frame["scene"] != "00") | (table.frame["method"] == "noisy")]
    recipe = recipe_of(tmp_path, recipe_content(qwen3, ratings))

    def parts_of(frame):
        made = RatingsTable(frame, "proxy", "made up")
        monkeypatch.setattr(module, "load_ratings", lambda *args, **kwargs: made)
        return module.read_parts(recipe, tmp_path / "ratings")

    parts = parts_of(lonely)
    assert "00" not in set(parts["train"].frame["scene"])
    assert len(parts["train"]) == 28
    assert "left out 1 training scenes" in caplog.text
    with pytest.raises(RatingsError, match=r"none in \['test'\]"):
        parts_of(table.frame[table.frame["split"] != "test"])


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_the_recipe_of_smollm2_runs_on_another_base_too(family, ratings, tmp_path):
    content = yaml.safe_load((RECIPES / "smollm2.yaml").read_text())
    content["base"]["model"] = str(write_base(tmp_path / family, family))
    content |= {"ratings": str(ratings), "split": ""}
    content["batches"] |= {"scenes_per_batch": 2, "methods_per_scene": 2, "workers": 0}
    content["fit"] |= {"steps": 2, "evaluate_every": 2}
    fine_tune(recipe_of(tmp_path, content), work=tmp_path / "work", out=tmp_path / "out")
    loaded = FuScore.from_pretrained(tmp_path / "out")
    assert loaded.spec.weights == {"llava": "adapter", "qwen3_vl": "merged"}[family]
    assert score(*triples(ratings, 2), model=loaded).isfinite().all()


def test_without_ratings_of_test_scenes_the_validation_scenes_serve(qwen3, ratings, tmp_path):
    table = read_ratings(ratings)
    rated = table.frame[table.frame["split"] != "test"].drop(columns="split")
    write_ratings(replace(table, frame=rated), tmp_path / "rated.csv")
    lists = {"val": ["08", "09"], "test": ["10", "11"], "held_out_methods": ["another"]}
    (tmp_path / "split.yaml").write_text(yaml.safe_dump(lists))
    content = recipe_content(qwen3, tmp_path / "rated.csv") | {"split": "split.yaml"}
    parts = module.read_parts(recipe_of(tmp_path, content), tmp_path / "ratings")
    assert set(parts["test"].frame["scene"]) == {"08", "09"}


def test_by_the_command_line(qwen3, ratings, tmp_path, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_content(qwen3, ratings, steps=2)))
    monkeypatch.setattr("sys.argv", ["fuscore-train", str(path), "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code in (0, None)
    metrics = json.loads(capsys.readouterr().out)
    assert math.isfinite(metrics["held_out_proxy"]["srcc"]["value"])
    assert (tmp_path / "work" / "checkpoint" / ADAPTER_WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": {"model": "a", "dtype": "float16"}}, "`dtype` bfloat16 or float32"),
        ({"base": {"revision": "a"}}, "base"),
        ({"tune": {"language": "half"}}, "`language` to be one of lora, full, frozen"),
        ({"tune": {"language": "frozen", "projector": "frozen"}}, "all are frozen"),
        ({"tune": {"rank": "a"}}, "expected int"),
        ({"proxy": {}}, "unknown key 'proxy'"),
        ({"ratings": None}, "expected str"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "base": {"model": "b"}, "ratings": "c"} | change))
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_several_gpus_need_a_launcher(qwen3, ratings, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(RecipeError, match="start with `accelerate launch`"):
        fine_tune(
            recipe_of(tmp_path, recipe_content(qwen3, ratings)),
            work=tmp_path / "work",
            out=tmp_path / "out",
        )


def test_a_base_of_no_known_family_is_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RecipeError, match="Expected a Qwen-VL model"):
        Base(BaseOptions(str(tmp_path))).family()


def test_cached_features_and_images_go_the_same_way(qwen3, ratings, tmp_path):
    recipe = recipe_of(tmp_path, recipe_content(qwen3, ratings))
    reader = LevelReader(new_backbone(recipe, Base(recipe.base)).eval())
    files = read_ratings(ratings).frame[["ir", "vis", "fused"]].to_numpy()[:4]
    images = read_images(files)
    aspects = ["overall", "sharpness"]
    with torch.no_grad():
        by_images = reader([images, images], aspects)
        encoded = reader(reader.backbone.encode(**images), aspects)
    assert torch.equal(by_images, torch.cat([encoded, encoded]))
