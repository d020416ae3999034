"""Triples in files -> rows: the scores of the Python door, and an error row for what is broken."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fuscore_metric import predict
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS, run_aspects
from fuscore_metric.results.rows import COLUMNS, Entry
from fuscore_metric.runs import local
from fuscore_metric.runs.local import score_entries
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_fuscore(tmp_path_factory.mktemp("model"))


@pytest.fixture
def entries(tmp_path):
    """Two scenes of different sizes, three methods."""
    rng = np.random.default_rng(0)
    found = []
    for scene, size in (("one", (40, 48)), ("two", (36, 64))):
        for name in ("ir", "vis", "a", "b", "c"):
            path = tmp_path / name / f"{scene}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        sources = (str(tmp_path / name / f"{scene}.png") for name in ("ir", "vis"))
        pair = tuple(sources)
        found += [Entry(scene, m, *pair, str(tmp_path / m / f"{scene}.png")) for m in "abc"]
    return found


def rows_of(entries, model, aspect="overall", batch_size=2):
    aspects = run_aspects(aspect)
    rows = [
        r
        for some in score_entries(entries, model, aspects=aspects, batch_size=batch_size)
        for r in some
    ]
    assert all(set(row) == set(COLUMNS) for row in rows)
    return {(row["scene"], row["method"]): row for row in rows}


def cut(path, share=0.5):
    """A file whose header is whole and whose pixels are not."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("aspect", ["overall", "sharpness", "all"])
def test_rows_hold_what_predict_says(entries, model, aspect):
    rows = rows_of(entries, model, aspect)
    assert len(rows) == len(entries)
    for entry in entries:
        row = rows[entry.key]
        output = predict(entry.ir, entry.vis, entry.fused, model=model, aspects=run_aspects(aspect))
        score, std, levels = (x[0] for x in (output.score, output.std, output.probabilities))
        if aspect == "all":
            for name, value in zip(ASPECTS[1:], score[1:].tolist(), strict=True):
                assert row[name] == pytest.approx(value, abs=1e-5)
        else:
            assert all(row[name] is None for name in ASPECTS[1:])
        score, std, levels = score[0], std[0], levels[0]
        assert row["score"] == pytest.approx(score.item(), abs=1e-5)
        assert row["std"] == pytest.approx(std.item(), abs=1e-5)
        assert [row[word] for word in LEVEL_WORDS] == pytest.approx(levels.tolist(), abs=1e-5)
        assert row["error"] is None
        assert row["seconds"] > 0


def test_a_bad_fused_file_is_one_row_with_its_error(entries, model):
    whole = rows_of(entries, model)
    cut(entries[1].fused)
    Path(entries[3].fused).write_bytes(b"")
    Image.new("RGB", (50, 50)).save(entries[5].fused)
    rows = rows_of(entries, model)
    failed = {key: row["error"] for key, row in rows.items() if row["error"] is not None}
    assert failed.keys() == {entries[n].key for n in (1, 3, 5)}
    assert "readable image" in failed["one", "b"]
    assert entries[3].fused in failed["two", "a"]
    assert "50x50" in failed["two", "c"]
    for key in whole.keys() - failed.keys():
        assert rows[key]["score"] == pytest.approx(whole[key]["score"], abs=1e-5)
    assert all(rows[key]["score"] is None for key in failed)


@pytest.mark.parametrize("spoil", [cut, lambda path: Path(path).write_bytes(b"")])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_bad_source_fails_its_scene_alone(entries, model, spoil, batch_size):
    spoil(entries[0].vis)
    rows = rows_of(entries, model, batch_size=batch_size)
    assert [rows[e.key]["error"] is None for e in entries] == [False] * 3 + [True] * 3
    assert "`vis`" in rows["one", "c"]["error"]


def test_lack_of_memory_for_a_single_triple_is_a_row(entries, model, monkeypatch):
    scored = type(model).score_fused

    def lacking(self, sources, fused, **options):
        if fused.shape[-1] == 64:
            raise torch.OutOfMemoryError("no memory left")
        return scored(self, sources, fused, **options)

    monkeypatch.setattr(type(model), "score_fused", lacking)
    rows = rows_of(entries, model, batch_size=8)
    assert [rows[e.key]["error"] for e in entries[:3]] == [None] * 3
    for entry in entries[3:]:
        assert rows[entry.key]["error"].startswith("out of memory with this triple alone; smaller")
        assert rows[entry.key]["error"].endswith(": no memory left")


def test_rows_come_as_they_are_done(entries, model, monkeypatch):
    monkeypatch.setattr(local, "CHUNK", 1)
    some = score_entries(entries, model, aspects=("overall",), batch_size=8)
    assert [row["scene"] for row in next(some)] == ["one"] * 3
    Path(entries[3].ir).write_bytes(b"")  # read when its turn comes, not before
    assert [row["error"] is None for rows in some for row in rows] == [False] * 3


def test_a_source_pair_is_read_once(entries, model, monkeypatch):
    read, counts = type(model).encode_sources, []
    monkeypatch.setattr(
        type(model),
        "encode_sources",
        lambda self, *pair: counts.append(len(pair[0])) or read(self, *pair),
    )
    rows_of(entries, model, batch_size=2)
    assert counts == [1, 1]


def test_one_ir_beside_two_vis_in_a_batch(entries, model):
    first = entries[0]
    other = Entry("one", "other", first.ir, first.fused, first.fused)
    rows = rows_of([first, other], model)
    for entry in (first, other):
        expected = predict(entry.ir, entry.vis, entry.fused, model=model).score.item()
        assert rows[entry.key]["score"] == pytest.approx(expected, abs=1e-5)


def test_swapped_sources_are_warned_of_once(entries, model, monkeypatch):
    monkeypatch.setattr(local, "CHUNK", 1)
    for entry in entries:
        image = Image.open(entry.vis)
        image.convert("L").save(entry.vis)
    with pytest.warns(UserWarning, match="swapped") as caught:
        rows_of(entries, model)
    assert len(caught) == 1


def test_nothing_leaves_a_grad_mode_behind(entries, model):
    some = score_entries(entries, model, aspects=("overall",), batch_size=1)
    next(some)
    assert torch.is_grad_enabled()
    some.close()
