"""Runs on Ray, and how a command ends that meets a fault."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.stats  # noqa: F401 - imported here, so that forked commands need not
from PIL import Image
from pyarrow import csv, parquet

from fuscore_metric import FuScore, cli
from fuscore_metric.backbones.lite import lite_llama  # noqa: F401 - as scipy
from fuscore_metric.prompts import run_aspects
from fuscore_metric.results.rows import COLUMNS, FILES
from fuscore_metric.runs.local import score_entries
from fuscore_metric.runs.manifest import read_manifest
from fuscore_metric.runs.measuring import Measuring
from fuscore_metric.runs.on_ray import score_manifest
from fuscore_metric.runs.scoring import Scoring
from tests.helpers.faults import forked

RAY_METHODS = "abcd"
KEYS = ["scene", "method"]


def make_triples(folder, scenes=6):
    """Source pairs of two sizes with four fusions each, in a manifest of relative paths."""
    rng = np.random.default_rng(0)
    rows = []
    for scene in range(scenes):
        size = (40, 48) if scene % 2 else (36, 64)
        for name in ("ir", "vis", *RAY_METHODS):
            path = folder / name / f"{scene:02}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        rows += [
            {
                "ir": f"ir/{scene:02}.png",
                "vis": f"vis/{scene:02}.png",
                "fused": f"{m}/{scene:02}.png",
            }
            for m in RAY_METHODS
        ]
    # Triples of a pair are far apart, as in a manifest made method by method.
    rows.sort(key=lambda row: row["fused"])
    csv.write_csv(pa.Table.from_pylist(rows), folder / "m.csv")
    return folder / "m.csv"


def scoring(weights, aspect="all"):
    return Scoring(str(weights), None, aspect, "cpu", None, batch_size=2)


def measuring(weights, *names):
    return replace(scoring(weights), measuring=Measuring.of(names))


def settings(weights, manifest, aspect="all"):
    return scoring(weights, aspect).describe(ir=str(manifest), vis=str(manifest))


def run_on_ray(weights, manifest, out, aspect="all", **options):
    return score_manifest(
        manifest,
        out,
        settings(weights, manifest, aspect),
        scoring(weights, aspect),
        **{"actors": 2} | options,
    )


def raw_rows(out) -> list[dict]:
    """Rows of all parts, also of what would be left out because it comes twice."""
    found = (parquet.read_table(path, partitioning=None) for path in parts(out))
    return [row for table in found for row in table.to_pylist()]


def parts(out) -> list[Path]:
    return sorted((out / "parts").glob("*/*.parquet"))


def spoil(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def assert_same_rows(table, manifest, weights, aspect):
    entries = read_manifest(manifest)
    model = FuScore.from_pretrained(weights)
    scored = score_entries(entries, model, aspects=run_aspects(aspect))
    local = [row for rows in scored for row in rows]
    expected = pd.DataFrame(local, columns=list(COLUMNS)).set_index(KEYS).sort_index()
    got = table.set_index(KEYS).sort_index()
    assert list(got) == list(expected)
    assert list(got.index) == list(expected.index)
    for name in (*FILES, "error"):
        assert got[name].fillna("").tolist() == expected[name].fillna("").tolist()
    for name in set(expected) - {*FILES, "error", "seconds"}:
        difference = got[name].astype(float) - expected[name].astype(float)
        assert got[name].isna().tolist() == expected[name].isna().tolist()
        assert difference.abs().max() <= 1e-5 or difference.isna().all()


METHODS, SCENES = ("a", "b"), 3
ROWS = len(METHODS) * SCENES


def write_images(folder, scenes, size):
    """Source pairs and a fusion by each method."""
    rng = np.random.default_rng(0)
    for place in ("ir", "vis", *(f"methods/{name}" for name in METHODS)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for scene in scenes:
            pixels = rng.integers(0, 256, size, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{scene}.png")


def journal(out):
    """The rows in it: every line is whole."""
    path = out / "rows.jsonl"
    content = path.read_bytes() if path.exists() else b""
    assert content.endswith(b"\n") or not content
    return [json.loads(line) for line in content.splitlines()]


def one_line(done, *words):
    """What a command said that ended for a reason of the user's or the machine's."""
    last = done.err.splitlines()[-1]
    assert done.status == 2, done.err
    assert last.startswith("fuscore: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in last
    return last


def goes_on(run, out, known):
    """The same command again: what was known is not computed again, and all is there once."""
    before = journal(out)
    done = forked(run)
    assert done.status == 0, done.err
    if known:
        assert f"{known} of {ROWS} triples are in" in done.err
    after = journal(out)
    assert after[: len(before)] == before
    keys = Counter((row["scene"], row["method"]) for row in after if row["error"] is None)
    assert set(keys.values()) == {1}
    table = pd.read_csv(out / "results.csv")
    assert len(table) == len(keys) == ROWS
    assert table["error"].isna().all()
    assert len(pd.read_parquet(out / "results.parquet")) == ROWS
    assert not list(out.glob(".*.new"))


def command(*arguments):
    """A command line, to be run in a process of its own."""

    def run():
        sys.argv = ["fuscore", *map(str, arguments)]
        cli.main()

    return run


def triple_options(images, weights):
    """What `score` and `explain` need for the first fusion of the first method."""
    files = {"ir": images / "ir", "vis": images / "vis", "fused": images / "methods" / "a"}
    named = [part for name, folder in files.items() for part in (f"--{name}", folder / "0.png")]
    return [*named, "--model", weights]
