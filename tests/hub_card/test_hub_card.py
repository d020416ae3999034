"""The model card says what the weights are, in numbers from JSON."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load

from fuscore_metric.checkpoints.spec import LABEL_MEANING, FuScoreSpec, read_spec
from tests.helpers import ROOT
from tests.hub_card.conftest import EMBEDDED, HUB_CARD, ID, evaluation, statistic

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra [demo])")

DECIMAL = re.compile(r"\d\.\d{3}(?!\d)")


@pytest.fixture(scope="module")
def embedded(make_card):
    return make_card(EMBEDDED, repo_id=ID)


def spec(**changes):
    made = FuScoreSpec("made-up", "qwen3_vl", {}, "human", "Eleven people, 1-5.")
    return replace(made, metrics={"held_out_human": evaluation()}, **changes)


def body(card):
    return card.split("---\n", 2)[2]


def test_the_metadata_survives_the_library(embedded, tmp_path):
    (tmp_path / "README.md").write_text(embedded)
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata == ModelCard(embedded).data.to_dict()
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "fuscore-metric"
    assert metadata["pipeline_tag"] == "image-text-to-text"
    assert "model-labels" in metadata["tags"]
    assert "base_model" not in metadata
    assert "datasets" not in metadata  # "TNO" would be somebody else's page
    for results in ModelCard(embedded).data.eval_results:
        for text in (results.task_name, results.dataset_name, results.metric_name):
            assert "ratings by a multimodal LLM" in text
    assert "human" not in json.dumps(metadata)


def test_every_recorded_number_is_in_model_index_and_table(embedded):
    metrics = read_spec(EMBEDDED).metrics
    names = ("srcc", "plcc", "krcc", "within_srcc", "within_krcc", "method_srcc")
    sets = [key for key, value in metrics.items() if isinstance(value, dict) and "srcc" in value]
    assert len(sets) == 2
    found = ModelCard(embedded).data.eval_results
    for key in sets:
        values = [one.metric_value for one in found if one.dataset_config == key]
        expected = [metrics[key][name]["value"] for name in (*names, "pairwise_accuracy")]
        assert values == expected
    for name, title in (("srcc", "SRCC"), ("within_krcc", "mean KRCC within a scene")):
        (line,) = (line for line in embedded.splitlines() if line.startswith(f"| {title} |"))
        cells = [cell.strip() for cell in line.strip("| ").split("|")][1:]
        ones = [metrics[key][name] for key in sets]
        assert cells == [f"{x['value']:.3f} ({x['low']:.3f} to {x['high']:.3f})" for x in ones]


def test_the_embedded_weights_are_never_called_human(embedded):
    text = " ".join(body(embedded).split())
    for claim in re.finditer(r".{0,60}\bhuman\b.{0,20}", text):
        allowed = ("not human ones", "as human opinion", "are called human")
        assert any(part in claim[0] for part in allowed), claim[0]
    top = body(embedded).split("##")[0]
    assert "a multimodal LLM that looked at the pictures, not by people" in " ".join(
        top.replace(">", "").split()
    )
    assert LABEL_MEANING["model"] in top


@pytest.mark.parametrize("kind", LABEL_MEANING)
def test_the_labels_stand_on_top_for_every_kind(make_card, kind):
    card = make_card(replace(spec(), label_kind=kind, metrics={}))
    top = body(card).split("##")[0]
    assert LABEL_MEANING[kind] in top
    words = {
        "proxy": "trained on proxy ratings, not on human ones",
        "human": "trained on human ratings**: opinions given by people",
        "model": "multimodal LLM that looked at the pictures, not by people",
        "none": "trained on no ratings",
    }
    for other, claim in words.items():
        assert (claim in " ".join(top.replace(">", "").split())) == (other == kind)
    assert f"{kind}-labels" in ModelCard(card).data.tags
    assert "No evaluation is recorded" in card
    assert ("stand-in for a study with people" in card) == (kind != "human")


@pytest.mark.parametrize(
    ("weights", "relation", "words"),
    [
        ("adapter", "adapter", "an adapter alone"),
        ("merged", "finetune", "merged into them"),
        ("full", "finetune", "all weights |"),
    ],
)
def test_the_base_model_and_how_it_was_used(make_card, weights, relation, words):
    base = {"base_model": "Qwen/Qwen3-VL-2B-Instruct", "base_revision": "a" * 40}
    made = spec(weights=weights, data=["runs/ratings.csv", "TNO"], **base)
    card = make_card(made, licence="mit", datasets=["someone/rated"])
    data = ModelCard(card).data
    assert data.base_model == base["base_model"]
    assert data.base_model_relation == relation
    assert data.datasets == ["someone/rated"]
    assert data.license == "mit"
    for part in (words, base["base_revision"], "runs/ratings.csv, TNO", "base model's own licence"):
        assert part in card
    assert "agreement with human ratings" in data.eval_results[0].task_name


@pytest.mark.parametrize("folder", ["/models/qwen", "models/qwen"])
def test_a_local_base_model_is_no_link(make_card, folder):
    card = make_card(spec(weights="adapter", base_model=folder, base_revision="sha256:ab"))
    assert "base_model" not in ModelCard(card).data.to_dict()
    assert f"`{folder}`, revision `sha256:ab`" in card


def test_what_fine_tuning_records(make_card):
    metrics = {
        "held_out_human": evaluation() | {"aspect_srcc": {"sharpness": 0.4567}},
        "held_out_scenes": ["a", "b"],
        "calibration": {"skipped": "no pair of different ratings"},
    }
    card = make_card(replace(spec(), metrics=metrics))
    assert "The temperature was not fitted: no pair of different ratings." in card
    assert "| SRCC, sharpness alone | 0.457 |" in card
    nan = float("nan")
    calibration = {
        "ece_before": {"all": 0.2},
        "ece": {"all": 0.1},
        "std_error_srcc": {"value": nan, "low": nan, "high": nan},
    }
    undefined = {name: statistic(nan, nan, nan) for name in ("srcc", "plcc")}
    undefined |= {"counts": {"rows": 2, "scenes": 1}, "settings": {}}
    metrics = {"held_out_human": evaluation(), "other": undefined, "calibration": calibration}
    card = make_card(replace(spec(), metrics=metrics))
    assert "nan" not in re.findall(r"\w+", card)
    assert "0.200 before, 0.100 after" in card
    assert "**ratings of unstated kind**" in card


def test_an_undefined_number_is_left_out(make_card):
    card = make_card(spec())
    assert "SRCC of method means" not in card
    assert len(ModelCard(card).data.eval_results) == 6
    assert "90 % of 200 resamples" in card


def test_a_variable_that_the_card_does_not_know_is_an_error(modules, monkeypatch, tmp_path):
    import jinja2

    (tmp_path / "template.md").write_text("{{ spec.name }} {{ spec.nonsense }}")
    monkeypatch.setattr(modules["card"], "FOLDER", tmp_path)
    with pytest.raises(jinja2.UndefinedError, match="nonsense"):
        modules["card"].make_card(spec())


def test_evaluations_are_added_with_whose_ratings_they_are(make_card, tmp_path):
    path = tmp_path / "our_study.json"
    path.write_text(json.dumps(evaluation(0.4321)))
    card = make_card(EMBEDDED, [f"human:{path}"], repo_id=ID)
    last = ModelCard(card).data.eval_results[-1]
    assert last.dataset_name == "Our study (human ratings)"
    assert last.dataset_config == "our_study"
    (line,) = (line for line in card.splitlines() if line.startswith("| compared with |"))
    assert line.count("**ratings by a multimodal LLM**") == 2
    assert line.endswith("**human ratings** |")
    path.write_text(json.dumps(evaluation() | {"label_kind": "model"}))
    assert make_card(EMBEDDED, [path], repo_id=ID).count("**ratings by a multimodal LLM**") == 3


@pytest.mark.parametrize(
    ("content", "entry", "words"),
    [
        (evaluation(), "{path}", ["whose ratings", "proxy:"]),
        (evaluation() | {"label_kind": "crowd"}, "{path}", ["whose ratings"]),
        ({"srcc": 0.9}, "proxy:{path}", ["fuscore-train evaluate"]),
        ("no JSON", "proxy:{path}", ["evaluation JSON"]),
        (None, "human:{path}", ["evaluation JSON", "No such file"]),
    ],
)
def test_an_unusable_evaluation_is_one_clear_error(make_card, tmp_path, content, entry, words):
    path = tmp_path / "eval.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError) as caught:
        make_card(EMBEDDED, [entry.format(path=path)], repo_id=ID)
    assert len(str(caught.value).splitlines()) == 1
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda card: card.replace("license: apache-2.0\n", ""), "license"),
        (lambda card: card.replace("  - task:", "  - tusk:", 1), "model_index"),
        (lambda card: card.replace("language: en", "base_model: no/hub/id"), "no/hub/id"),
        (lambda card: card.replace("language: en", "datasets: [TNO]"), "TNO"),
        (lambda card: card.replace("language: en", "language: ["), "parsing"),
    ],
)
def test_a_broken_card_is_found_offline(modules, embedded, break_it, words):
    with pytest.raises(Exception, match=words):
        modules["card"].check_card(break_it(embedded), repo_id=ID)


def test_what_was_measured_on_other_weights_stays_out(make_card, embedded, tmp_path):
    assert "Published fusions of different scenes" in embedded
    other = tmp_path / "same_name"
    shutil.copytree(EMBEDDED, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    for card in (make_card(other, repo_id=ID), make_card(read_spec(EMBEDDED), repo_id=ID)):
        assert "Published fusions of different scenes" not in card
        assert "How far these weights can be gamed was not measured." in card


@pytest.mark.parametrize("folder", ["known_failures", "gaming"])
def test_measured_numbers_are_those_of_the_readmes(folder):
    benchmarks = (f"benchmarks/{name}/README.md" for name in ("accuracy", "reward", "gaming"))
    readmes = ("README.md", "training/README.md", *benchmarks)
    measured = " ".join((ROOT / name).read_text() for name in readmes)
    for path in (HUB_CARD / folder).glob("*.md"):
        text = path.read_text().split("-->", 1)[1]
        numbers = DECIMAL.findall(text)
        assert numbers
        assert [number for number in numbers if number not in measured] == []
