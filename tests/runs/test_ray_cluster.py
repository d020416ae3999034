"""The Ray engine on a cluster: the local engine's rows, settings, manifests of any size."""

import json
from collections import Counter
from dataclasses import replace
from shutil import copytree

import pandas as pd
import pytest
from pyarrow import csv, parquet

from fuscore_metric import CheckpointError, InputError
from fuscore_metric.results.read import read_results
from fuscore_metric.results.run_folder import RunFolder
from fuscore_metric.runs import on_ray
from fuscore_metric.runs.manifest import read_table
from fuscore_metric.runs.on_ray import score_manifest
from tests.helpers.runs import (
    assert_same_rows,
    make_triples,
    measuring,
    parts,
    raw_rows,
    run_on_ray,
    scoring,
    settings,
    spoil,
)


@pytest.mark.slow
def test_the_rows_are_those_of_the_local_engine(cluster, weights, triples, tmp_path):
    spoil(triples.parent / "c" / "02.png")
    (triples.parent / "vis" / "05.png").write_bytes(b"")
    out = tmp_path / "out"
    assert run_on_ray(weights, triples, out) == out / "results.parquet"
    found = read_results(out)
    assert_same_rows(found.table, triples, weights, "all")
    assert found.table["error"].notna().sum() == 5
    assert found.settings["aspect"] == "all"
    assert len(raw_rows(out)) == 24
    buckets = Counter(row["ir"] for path in parts(out) for row in sources_in(path))
    assert set(buckets.values()) == {1}  # a pair is in one bucket
    for path in (out / "results.parquet", out / "results.csv"):
        pd.testing.assert_frame_equal(read_results(path).table, found.table, check_dtype=False)
    assert read_results(out / "results.parquet").settings == found.settings
    assert parquet.read_schema(parts(out)[0]).metadata[b"fuscore"].decode() == (
        (out / "run.json").read_text().strip()
    )


def sources_in(path):
    pairs = {(row["ir"], row["vis"]) for row in parquet.read_table(path).to_pylist()}
    return [{"ir": ir, "vis": vis} for ir, vis in pairs]


@pytest.fixture(scope="module")
def finished(cluster, weights, tmp_path_factory):
    """A manifest and the folder of its run, by one actor: each has to import all anew."""
    manifest = make_triples(tmp_path_factory.mktemp("finished"))
    run_on_ray(weights, manifest, manifest.parent / "out", actors=1)
    return manifest, manifest.parent / "out"


@pytest.mark.slow
def test_measures_are_added_to_a_run(finished, weights, tmp_path):
    triples, out, how = finished[0], tmp_path / "out", measuring(weights, "SF")
    copytree(finished[1], out)
    before = read_results(out).table
    described = how.describe(ir=str(triples), vis=str(triples))
    score_manifest(triples, out, described, how, actors=1)
    for path in (out, out / "results.parquet", out / "results.csv"):
        found = read_results(path).table
        assert found["SF"].notna().all()
        assert found.drop(columns="SF").equals(before)
    assert read_results(out).settings["measures"] == ["SF"]


@pytest.mark.slow
def test_other_settings_or_another_engine_do_not_go_on(finished, weights, tmp_path):
    triples, out = finished[0], tmp_path / "out"
    copytree(finished[1], out)
    before = parts(out)
    with pytest.raises(InputError, match="aspect sharpness, was all"):
        run_on_ray(weights, triples, out, "sharpness")
    with (
        pytest.raises(InputError, match="another engine in parts"),
        RunFolder(out, settings(weights, triples)),
    ):
        pass
    assert parts(out) == before
    run_on_ray(weights, triples, out, actors=1)  # nothing is left to do
    assert parts(out) == before
    run_on_ray(weights, triples, out, "sharpness", overwrite=True, actors=1)
    found = read_results(out)
    assert_same_rows(found.table, triples, weights, "sharpness")
    assert found.settings["aspect"] == "sharpness"
    assert found.table["artifacts"].isna().all()
    with RunFolder(tmp_path / "local", settings(weights, triples)), pytest.raises(InputError):
        run_on_ray(weights, triples, tmp_path / "local")  # the other process writes
    with pytest.raises(InputError, match=r"another engine in rows\.jsonl"):
        run_on_ray(weights, triples, tmp_path / "local")


@pytest.mark.slow
def test_manifests_of_other_programs_are_read_alike(cluster, triples):
    rows = csv.read_csv(triples).rename_columns(["IR", "Vis", "FUSED"])
    tabs, lines = triples.with_suffix(".tsv"), triples.with_suffix(".jsonl")
    csv.write_csv(rows, tabs, csv.WriteOptions(delimiter="\t"))
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows.to_pylist()))
    parquet.write_table(rows, triples.with_suffix(".parquet"))
    expected = sorted(map(str, read_table(triples).to_pylist()))
    for path in (tabs, lines, triples.with_suffix(".parquet")):
        assert sorted(map(str, on_ray._read(path).take_all())) == expected


@pytest.mark.slow
def test_a_manifest_too_large_for_the_driver_is_checked_by_ray(
    cluster, weights, triples, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_ray, "FEW_ROWS", 0)
    monkeypatch.setattr(on_ray, "FEW_BYTES", 0)
    monkeypatch.setattr(on_ray, "MOST_PARTITIONS", 8)
    monkeypatch.setattr(on_ray, "read_table", None)  # the driver does not read it
    out = tmp_path / "out"
    assert run_on_ray(weights, triples, out) == out / "parts"
    assert not (out / "results.parquet").exists()
    assert_same_rows(read_results(out).table, triples, weights, "all")

    lines = triples.read_text().splitlines()
    triples.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(InputError, match=r"scene '00', method 'a' in 2 rows"):
        run_on_ray(weights, triples, tmp_path / "twice")
    triples.write_text("\n".join([*lines, "ir/x.png,,a/x.png"]) + "\n")
    with pytest.raises(InputError, match="`vis` in every row"):
        run_on_ray(weights, triples, tmp_path / "null")


@pytest.mark.slow
def test_weights_that_are_others_on_a_node_are_one_clear_error(cluster, weights, triples, tmp_path):
    found = replace(settings(weights, triples), weights_hash="sha256:0")
    with pytest.raises(CheckpointError, match="an actor found sha256:"):
        score_manifest(triples, tmp_path / "out", found, scoring(weights), actors=1)
