"""The study of a base's parts, on a tiny base: what it measures, and that it goes on."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from fuscore_training.large import base_study
from fuscore_training.ratings import read_ratings, write_ratings
from typer.testing import CliRunner

from benchmarks.tiny_llava import tiny_model, tokenizer
from tests.helpers import ROOT
from tests.helpers.rated_scenes import write_rated_scenes

pytestmark = pytest.mark.usefixtures("few_resamples")
LAYERS, STATISTICS = "8 layers", "8 layers, statistics alone"


@pytest.fixture
def made(monkeypatch) -> list[dict]:
    """What bases were asked for; each is tiny."""
    asked = []

    def make(out, *, wheels, **options):
        asked.append(options)
        tiny_model("dinov2", statistics=True).save_pretrained(out)
        tokenizer().save_pretrained(out)
        (out / "LICENCES.md").touch()

    monkeypatch.setattr(base_study, "make_smollm2", make)
    return asked


@pytest.fixture
def recipe(tmp_path):
    table = read_ratings(write_rated_scenes(tmp_path / "scenes"))
    kinds = np.where(np.arange(len(table)) % 2, "blur", "method")
    write_ratings(replace(table, frame=table.frame.assign(kind=kinds)), tmp_path / "rated.csv")
    content = yaml.safe_load((ROOT / "training" / "recipes" / "smollm2.yaml").read_text())
    content |= {"ratings": "rated.csv", "split": ""}
    content["batches"] |= {"scenes_per_batch": 2, "methods_per_scene": 2, "workers": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


def test_a_study_goes_on_where_it_stopped(made, recipe, tmp_path):
    out = tmp_path / "found.jsonl"

    def run(*names):
        options = ["--work", tmp_path / "work", "--out", out, "--steps", 5, "--seeds", 1]
        only = [word for name in names for word in ("--only", name)]
        found = CliRunner().invoke(base_study.app, ["run", *map(str, [recipe, *options]), *only])
        assert found.exit_code == 0, found.output
        return [json.loads(line) for line in out.read_text().splitlines()]

    (first,) = run(LAYERS)
    assert made == [{"layers": 8, "random_language": False, "seed": 0}]
    assert [seen for seen, _ in first["curve"]] == [4, 8, 12, 16, 20]
    assert first["triples"] == 20
    assert 0 < first["trained"] < first["millions"] * 1e6
    found = run(base_study.EMBEDDED, LAYERS, STATISTICS)
    assert found[0] == first
    assert [line["variant"] for line in found] == [LAYERS, base_study.EMBEDDED, STATISTICS]
    assert len(made) == 1  # the statistics alone read the same base
    for line in found:
        assert -1 <= line["undamaged_srcc"] <= 1
        assert line["mirror"] > 0
        assert line["per_second"] > 0
    assert found[1]["srcc"] > found[0]["srcc"]  # five steps teach a random model little
    report = CliRunner().invoke(base_study.app, ["report", str(out)])
    assert [line.split(" | ")[0] for line in report.output.splitlines()[2:]] == [
        f"| {LAYERS}",
        f"| {base_study.EMBEDDED}",
        f"| {STATISTICS}",
    ]
    assert out.with_suffix(".png").stat().st_size > 1000


def test_rows_of_some_source_pairs_keep_their_index(recipe):
    table = read_ratings(recipe.parent / "rated.csv")
    few = base_study._some_pairs(table)
    pairs = table.source_pairs
    assert 0 < len(few) < len(table)
    assert set(pairs[few.frame.index]) == set(pd.unique(pairs)[:: base_study.SHARE])
