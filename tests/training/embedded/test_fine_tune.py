"""Fine-tuning weights of the embedded family on one's own ratings, with a tiny checkpoint."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from fuscore_training import cli
from fuscore_training.embedded import fine_tune as fine_tune_embedded
from fuscore_training.embedded.example_study import FUSIONS, write_example_study
from fuscore_training.embedded.fine_tune import split_ratings
from fuscore_training.importers.mean_opinions import import_mean_opinions
from fuscore_training.ratings import (
    RatingsError,
    RatingsTable,
    read_ratings,
    write_ratings,
)
from fuscore_training.recipe import (
    EmbeddedFineTuneRecipe,
    FineTuneRecipe,
    RecipeError,
    read_recipe,
)

from fuscore_metric import FuScore, score
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from tests.helpers import ROOT
from tests.helpers.rated_scenes import write_rated_scenes
from tests.helpers.tiny_model import tiny_fuscore

pytestmark = pytest.mark.usefixtures("few_resamples")
SHIPPED = ROOT / "training" / "recipes" / "finetune-embedded.yaml"


@pytest.fixture(scope="module")
def ratings(tmp_path_factory) -> Path:
    """Twelve scenes of four fusions, without the column `split`."""
    path = write_rated_scenes(tmp_path_factory.mktemp("scenes"), side=128)
    table = read_ratings(path)
    write_ratings(replace(table, frame=table.frame.drop(columns="split")), path)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    model = tiny_fuscore(folder, relations=True)
    model.spec = replace(model.spec, label_kind="model", temperature=0.5)
    model.spec.metrics["held_out_scenes"] = ["00", "elsewhere"]
    model.save_pretrained(folder / "weights")
    return folder / "weights"


def write_recipe(folder: Path, **content: object) -> Path:
    fit = {"steps": 3, "evaluate_every": 3, "log_every": 3, "learning_rate": 0.01}
    batches = {"scenes_per_batch": 3, "methods_per_scene": 4, "consistency": 2, "least_cells": 4}
    path = folder / "recipe.yaml"
    filled = {"name": "mine", "base": "embedded", "fit": fit, "batches": batches} | content
    path.write_text(yaml.safe_dump(filled))
    return path


def command(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["fuscore-train", *map(str, arguments)])
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(cli.logging.root, "handlers", [])  # those of other tests may be closed
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code or 0, *capsys.readouterr()


@pytest.fixture(scope="module")
def tuned(base, ratings, tmp_path_factory, few_resamples) -> tuple[Path, str]:
    """A checkpoint made by the command line, and what that printed."""
    folder = tmp_path_factory.mktemp("tuned")
    recipe = write_recipe(folder, base=str(base), adversarial={"weight": 0.3, "measured_on": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = [str(recipe), "--ratings", str(ratings)]
        printed: list[str] = []
        patch.setattr("sys.argv", ["fuscore-train", *arguments])
        patch.setattr(cli.logging, "basicConfig", lambda **_: None)
        patch.setattr(cli.typer, "echo", printed.append)
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code in (0, None)
    return folder / "runs" / "recipe" / "checkpoint", "\n".join(printed)


def test_the_checkpoint_scores_and_says_what_it_learned_from(tuned, base, ratings):
    out, printed = tuned
    new, old = FuScore.from_pretrained(out), FuScore.from_pretrained(base)
    frame = read_ratings(ratings).frame
    triples = [frame[name].tolist()[:4] for name in ("ir", "vis", "fused")]
    assert (score(*triples, model=new) - score(*triples, model=old)).abs().max() > 1e-3
    spec = new.spec
    assert (spec.name, spec.label_kind, spec.weights) == ("mine", "proxy", "full")
    assert "made up for tests" in spec.label_description
    assert "Fine-tuned from tiny, trained on MODEL ratings" in spec.label_description
    assert (spec.base_model, spec.base_revision[:7]) == (str(base), "sha256:")
    assert spec.data == ["ratings.csv"]
    assert spec.temperature == 0.5
    assert "got 2" in spec.metrics["calibration"]["skipped"]
    before, after = (spec.metrics[name] for name in ("before_fine_tuning", "held_out_proxy"))
    assert before["counts"] == after["counts"]
    assert after["counts"]["scenes"] == 2
    for found in (before, after):
        assert f"{found['srcc']['value']:.3f}" in printed
    assert "The temperature stays 0.50" in printed
    held_out = set(spec.metrics["held_out_scenes"])
    assert "elsewhere" in held_out
    assert len(held_out - {"elsewhere"}) == 2, "scenes that it learned from are not held out"


def test_what_is_frozen_stays_as_it_was(tuned, base):
    old, new = (
        LiteLlama.load(path, FuScore.from_pretrained(path).spec.preprocessing)
        for path in (base, tuned[0])
    )
    state = new.state_dict()
    standard = [name for name in state if name.endswith((".mean", ".std"))]
    assert len(standard) == 8
    for name in [*standard, *(name for name in state if name.startswith("vision."))]:
        assert torch.equal(state[name], old.state_dict()[name].half().float()), name


def test_the_temperature_is_fitted_where_there_are_enough_scenes(
    base, ratings, tmp_path, monkeypatch
):
    monkeypatch.setattr(fine_tune_embedded, "LEAST_CALIBRATION_SCENES", 2)
    recipe = read_recipe(write_recipe(tmp_path, base=str(base), ratings=str(ratings)))
    found = fine_tune_embedded.fine_tune_embedded(recipe, work=tmp_path, out=tmp_path / "out")
    assert "fitted on the validation scenes" in found.summary()
    assert found.spec.temperature == found.spec.metrics["calibration"]["temperature"]


def test_an_image_that_changed_is_looked_at_again(base, ratings, tmp_path):
    table = read_ratings(ratings)
    state = fine_tune_embedded._state_of_images(table)
    Path(table.frame["fused"][0]).touch()
    assert fine_tune_embedded._state_of_images(table) != state


def test_the_example_study_goes_all_the_way(base, tmp_path, monkeypatch, capsys):
    """Opinions on the overall quality alone, as most studies have them."""
    opinions = write_example_study(tmp_path / "study")
    table = import_mean_opinions(opinions, label_kind="proxy", scale=(1, 5))
    assert len(table) == 12 * len(FUSIONS)
    assert not table.has_sub_scores
    write_ratings(table, tmp_path / "own.parquet")
    recipe = write_recipe(tmp_path, base=str(base), ratings="own.parquet")
    status, text, _ = command(monkeypatch, capsys, recipe, "--work", tmp_path / "work")
    assert status == 0
    assert "SRCC" in text
    spec = FuScore.from_pretrained(tmp_path / "work" / "checkpoint").spec
    assert list(spec.metrics["held_out_proxy"]["aspect_srcc"]) == ["overall"]


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda f: f["scene"].isin(["00", "01"]), "2 source pairs of 2 or more"),
        (lambda f: f["scene"] == "00", "scenes"),
        (lambda f: f["method"] == "noisy", "got 0 such pairs"),
        (
            lambda f: (
                f["scene"].isin(["00", "01", "02"])
                & (f["method"] != "average")
                & ((f["scene"] != "02") | (f["method"] == "noisy"))
            ),
            "source pairs",
        ),
    ],
)
def test_too_few_ratings_are_one_sentence(ratings, keep, words):
    table = read_ratings(ratings)
    with pytest.raises(RatingsError, match=words):
        split_ratings(replace(table, frame=table.frame[keep(table.frame)]), seed=0)


def test_a_source_pair_of_one_fusion_is_left_out(ratings, caplog):
    frame = read_ratings(ratings).frame
    split = frame["scene"].map(lambda name: "val" if name > "08" else "train")
    one = (frame["scene"] != "00") | (frame["method"] == "noisy")
    table = RatingsTable(frame.assign(split=split)[one], "human")
    parts = split_ratings(table, seed=0)
    assert "00" not in set(parts["train"].frame["scene"])
    assert set(parts["val"].frame["scene"]) == {"09", "10", "11"}
    assert "left out 1 of 33" in caplog.text


# Recipes and the command line


def test_the_shipped_recipe_names_every_option():
    recipe, content = read_recipe(SHIPPED), yaml.safe_load(SHIPPED.read_text())
    assert isinstance(recipe, EmbeddedFineTuneRecipe)
    assert content.keys() == {f.name for f in fields(EmbeddedFineTuneRecipe)}
    for part in ("labels", "batches", "fit", "adversarial"):
        assert content[part].keys() == vars(getattr(recipe, part)).keys()


def test_paths_in_a_recipe_start_at_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "owner" / "set").mkdir(parents=True)
    small = read_recipe(write_recipe(Path("a"), base="./weights", ratings="../own.csv"))
    assert (small.base, small.ratings) == ("a/weights", "a/../own.csv")
    assert read_recipe(write_recipe(Path("a"))).base == "embedded"
    for ratings, expected in (("owner/set", "a/owner/set"), ("owner/other", "owner/other")):
        content = {"base": {"model": "../qwen"}, "ratings": ratings, "batches": {}, "split": "s"}
        big = read_recipe(write_recipe(Path("a"), **content))
        assert isinstance(big, FineTuneRecipe)
        assert (big.base.model, big.ratings, big.split) == ("a/../qwen", expected, "a/s")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"base": {"model": "embedded"}, "ratings": "a.csv"}, "say `base: embedded`"),
        ({"base": None}, "base: expected str"),
        ({"tune": {}}, "unknown key 'tune'"),
    ],
)
def test_a_bad_recipe_is_refused_by_name(tmp_path, content, words):
    with pytest.raises(RecipeError, match=words):
        read_recipe(write_recipe(tmp_path, **content))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}"], "YAML file, got the directory"),
        (["{recipe}", "--ratings", "{folder}"], "a ratings table, got the directory"),
        (["{recipe}", "--ratings", "no_such.csv"], "no such ratings table"),
        (["{recipe}"], "`--ratings TABLE`"),
        (["{big}", "--ratings", "{ratings}"], "Expected a Qwen-VL model"),
        (["{qwen}", "--ratings", "{ratings}"], "of the embedded family"),
        (["{scratch}", "--ratings", "{ratings}"], "makes its own ratings"),
        (["evaluate", "{folder}"], "got the directory"),
        (
            ["import-mos", "{folder}", "--out", "{folder}/a.csv", "--label-kind", "human"],
            "got the directory",
        ),
        (["{recipe}", "--ratings", "{ratings}", "--work", "{recipe}"], "recipe.yaml"),
    ],
)
def test_the_command_line_refuses_in_one_line(
    base, ratings, tmp_path, monkeypatch, capsys, arguments, words
):
    recipes = {}
    qwen = tmp_path / "qwen_weights"
    spec = json.loads((base / "fuscore.json").read_text()) | {"family": "qwen3_vl"}
    for name, content in {
        "recipe": {"base": str(base)},
        "big": {"base": {"model": str(base)}, "ratings": "a", "batches": {}},
        "qwen": {"base": str(qwen)},
    }.items():
        (tmp_path / name).mkdir()
        recipes[name] = write_recipe(tmp_path / name, **content)
    qwen.mkdir()
    for path in base.iterdir():
        (qwen / path.name).write_bytes(path.read_bytes())
    (qwen / "fuscore.json").write_text(json.dumps(spec))
    recipes["scratch"] = tmp_path / "scratch.yaml"
    recipes["scratch"].write_text("name: a\n")
    places = recipes | {"folder": tmp_path, "ratings": ratings}
    filled = [argument.format(**places) for argument in arguments]
    status, text, error = command(monkeypatch, capsys, *filled)
    assert (status, text) == (2, "")
    assert words in error
    assert len(error.splitlines()) == 1
