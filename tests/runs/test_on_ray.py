"""The Ray engine without a cluster: what an actor does, and what is refused first."""

from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest
from PIL import Image

from fuscore_metric import CheckpointError, FuScore, InputError, measure
from fuscore_metric.results.parts import Plan, begin_session, read_parts
from fuscore_metric.runs import on_ray
from fuscore_metric.runs.manifest import read_table
from fuscore_metric.runs.on_ray import Job, Scorer
from tests.helpers.runs import (
    KEYS,
    assert_same_rows,
    measuring,
    parts,
    raw_rows,
    run_on_ray,
    scoring,
    settings,
    spoil,
)


def job(weights, manifest, out, buckets=2):
    out.mkdir(exist_ok=True)
    found, how = settings(weights, manifest), scoring(weights)
    return Job(
        folder=out,
        plan=begin_session(out, buckets),
        settings=found.to_json(),
        weights_hash=found.weights_hash,
        threads=1,
        part_seconds=0,
        scoring=how,
    )


def work(job, manifest):
    """Every bucket by one actor; returns rows of [rows, known]."""
    numbered = on_ray._number(read_table(manifest), job.plan)
    scorer, counts = Scorer(job), []
    for number in sorted(set(numbered["bucket"].to_pylist())):
        mask = pa.array([n == number for n in numbered["bucket"].to_pylist()])
        counts += [t.to_pylist()[0] for t in scorer(numbered.filter(mask))]
    return counts


def test_an_actor_reads_a_source_pair_once(weights, triples, tmp_path, monkeypatch):
    encode, counts = FuScore.encode_sources, []
    monkeypatch.setattr(
        FuScore,
        "encode_sources",
        lambda self, *pair: counts.append(len(pair[0])) or encode(self, *pair),
    )
    done = work(job(weights, triples, tmp_path / "out"), triples)
    assert sum(count["rows"] for count in done) == 24
    assert sum(counts) == 6
    assert_same_rows(read_parts(tmp_path / "out").to_pandas(), triples, weights, "all")


def test_work_done_twice_in_a_session_is_there_once(weights, triples, tmp_path):
    first = job(weights, triples, tmp_path / "out")
    work(first, triples)
    rows, before = raw_rows(tmp_path / "out"), parts(tmp_path / "out")
    assert all(count["known"] == count["rows"] for count in work(first, triples))
    before[0].unlink()  # as if the actor had died before it was written
    assert sum(c["rows"] - c["known"] for c in work(first, triples)) == 2
    assert parts(tmp_path / "out") == before
    keys = Counter((row["scene"], row["method"]) for row in raw_rows(tmp_path / "out"))
    assert len(rows) == len(keys) == 24
    assert set(keys.values()) == {1}


def test_errors_and_changed_files_are_tried_again_in_the_next_session(weights, triples, tmp_path):
    fused, whole = triples.parent / "a" / "00.png", (triples.parent / "a" / "00.png").read_bytes()
    spoil(fused)
    first = job(weights, triples, tmp_path / "out")
    work(first, triples)
    assert sum(c["rows"] - c["known"] for c in work(first, triples)) == 0  # an actor was restarted
    table = read_parts(tmp_path / "out").to_pandas().set_index(KEYS)
    assert table["error"].notna().tolist().count(True) == 1
    assert table.loc[("00", "a"), "score"] != table.loc[("00", "a"), "score"]

    fused.write_bytes(whole)
    Image.new("RGB", (48, 40)).save(triples.parent / "b" / "01.png")
    second = job(weights, triples, tmp_path / "out", buckets=17)  # what the first said stays
    assert second.plan == Plan(buckets=2, session=2)
    assert sum(c["rows"] - c["known"] for c in work(second, triples)) == 2
    assert len(raw_rows(tmp_path / "out")) == 26
    assert_same_rows(read_parts(tmp_path / "out").to_pandas(), triples, weights, "all")


def test_an_actor_adds_measures_to_rows_that_have_scores(weights, triples, tmp_path, monkeypatch):
    out, how = tmp_path / "out", measuring(weights, "SD")
    spoil(triples.parent / "a" / "00.png")
    work(job(weights, triples, out), triples)
    before = read_parts(out).to_pandas()
    whole = how.describe(ir=str(triples), vis=str(triples)).to_json()
    second = replace(job(weights, triples, out), scoring=how, settings=whole)
    monkeypatch.setattr(FuScore, "score_fused", lambda *_, **__: pytest.fail("scored again"))
    assert sum(count["known"] for count in work(second, triples)) == 0
    assert sum(count["known"] for count in work(second, triples)) == 24  # all of this session
    found = read_parts(out, whole).to_pandas()
    assert found.drop(columns="SD").equals(before)
    assert found["SD"].isna().equals(found["score"].isna())
    row = found[found["SD"].notna()].iloc[0]
    expected = measure(row["ir"], row["vis"], row["fused"], names="SD")["SD"]
    assert row["SD"] == expected.item()


def test_an_actor_refuses_other_weights(weights, triples, tmp_path):
    other = replace(job(weights, triples, tmp_path / "out"), weights_hash="sha256:0")
    with pytest.raises(CheckpointError, match="sha256:0"):
        Scorer(other)


def test_buckets_are_even_and_the_same_in_every_process():
    plan = Plan(buckets=64, session=1)
    counts = Counter(plan.bucket(f"ir/{n:06}.png", f"vis/{n:06}.png") for n in range(64_000))
    assert len(counts) == 64
    assert 800 < min(counts.values()) < max(counts.values()) < 1200
    # Another number would make runs that were stopped compute what they have.
    assert Plan(1000, 1).bucket("ir/a.png", "vis/a.png") == 265


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 0}, "one actor at least"),
        ({"actors": (3, 2)}, "one actor at least"),
        ({"cpus_per_actor": 0}, "CPUs"),
        ({"gpus_per_actor": 0.5}, "device cpu and 0.5 GPUs"),
    ],
)
def test_impossible_resources_are_refused_first(weights, triples, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run_on_ray(weights, triples, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
