"""`evaluate`: folders of methods in, the leaderboard of `fuscore rank` out, in Python."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fuscore_metric import FuScore, InputError, cli, evaluate, measure, score
from fuscore_metric.errors import MissingPackageError
from fuscore_metric.measures.catalogue import STANDARD
from fuscore_metric.results.read import read_results
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def data(tmp_path) -> Path:
    """Three scenes, two methods; one lacks a scene, the other has a broken file."""
    rng = np.random.default_rng(0)
    for place in ("ir", "vis", "fused/ours", "fused/theirs"):
        (tmp_path / place).mkdir(parents=True)
        for scene in "123":
            pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{scene}.png")
    return tmp_path


def folders(data):
    return data / "ir", data / "vis", data / "fused"


def test_it_is_what_the_command_writes(data, model, monkeypatch):
    model.save_pretrained(data / "tiny")
    monkeypatch.chdir(data)
    found = evaluate("ir", "vis", "fused", model="tiny", device="cpu")
    line = "fuscore rank --ir ir --vis vis --methods-root fused --model tiny --out out"
    monkeypatch.setattr(sys, "argv", line.split())
    monkeypatch.setattr(cli.console, "close_output", lambda: None)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    written = read_results("out")
    numbers = written.table.drop(columns="seconds")
    assert found.rows.drop(columns="seconds").equals(numbers)
    assert found.settings["weights_hash"] == written.settings["weights_hash"]
    assert found.to_markdown() + "\n" == Path("out/leaderboard.md").read_text()
    assert found.to_latex() + "\n" == Path("out/leaderboard.tex").read_text()
    methods = json.loads(Path("out/leaderboard.json").read_text())["methods"]
    board = found.to_pandas()
    assert list(board["mean"]) == [one["mean"] for one in methods]
    assert {"win_rate", "sharpness"} <= set(board)
    for text in (str(found), found._repr_html_()):
        assert board["method"][0] in text
        assert f"{board['mean'][0]:.3f}" in text
        assert "no ratings" in text  # what these weights were trained on
    assert not list(data.glob("fuscore*"))


def test_methods_may_be_named_or_listed(data, model):
    ir, vis, fused = folders(data)
    for given in ({"a": fused / "ours", "b": fused / "theirs"}, [fused / "ours", fused / "theirs"]):
        found = evaluate(ir, vis, given, model=model, aspect="sharpness", batch_size=2)
        expected = {"a", "b"} if isinstance(given, dict) else {"ours", "theirs"}
        assert set(found.rows["method"]) == expected
    row = found.rows.iloc[0]
    expected = score(row["ir"], row["vis"], row["fused"], model=model, aspect="sharpness")
    assert row["score"] == pytest.approx(expected.item(), abs=1e-5)


def test_what_is_missing_or_broken_is_said(data, model, caplog):
    (data / "fused" / "theirs" / "3.png").unlink()
    (data / "fused" / "ours" / "2.png").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        found = evaluate(*folders(data), model=model)
    assert "theirs: no fused image of 1 scene: 3" in found.notes[0]
    assert "1 of 5 triples have no score" in found.notes[1]
    assert set(found.leaderboard.notes) <= set(found.notes)
    assert found.notes[:2] == tuple(record.getMessage() for record in caplog.records)
    (error,) = found.rows["error"].dropna()
    assert "fused" in error
    with pytest.raises(InputError, match="strict"):
        evaluate(*folders(data), model=model, strict=True)
    for path in data.glob("fused/*/*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="None of 5 triples"):
        evaluate(*folders(data), model=model)


def test_a_stopped_run_goes_on(data, model):
    done = []

    def stop(count, total):
        done.append((count, total))
        if count == 2:
            raise KeyboardInterrupt

    options = {"model": model, "out": data / "out", "batch_size": 1}
    with pytest.raises(KeyboardInterrupt, match="2 rows are in"):
        evaluate(*folders(data), **options, progress=stop)
    done.clear()
    found = evaluate(*folders(data), **options, progress=lambda *x: done.append(x))
    assert done == [(n, 4) for n in range(1, 5)]
    assert len(found.rows) == 6
    assert (data / "out" / "leaderboard.md").is_file()
    other = tiny_fuscore(data, seed=1)
    with pytest.raises(InputError, match="weights_hash"):
        evaluate(*folders(data), **options | {"model": other})
    with pytest.raises(ValueError, match="`dtype` as that of `model`"):
        evaluate(*folders(data), model=model, dtype="bfloat16")


def test_measures_are_added_without_scoring_again(data, model, monkeypatch):
    options = {"model": model, "out": data / "out", "batch_size": 2}
    plain = evaluate(*folders(data), **options)
    assert not {"SD", "measures"} & {*plain.rows, *plain.to_pandas()}
    monkeypatch.setattr(FuScore, "encode_sources", lambda *_: pytest.fail("scored again"))
    compute, frequencies, done = STANDARD.computes["SF"], [], []
    monkeypatch.setitem(
        STANDARD.computes, "SF", lambda *images: frequencies.append(1) or compute(*images)
    )
    for names, total in (("SF", 6), ("sd,SF", 6), (["SF"], 0)):
        done.clear()
        found = evaluate(
            *folders(data), **options, measures=names, progress=lambda *x: done.append(x)
        )
        assert len(done) == total
    assert len(frequencies) == 6  # what is there is not computed again
    assert found.rows.drop(columns=["SF", "SD"]).equals(plain.rows)
    for row in found.rows.to_dict("records"):
        sources = row["ir"], row["vis"], row["fused"]
        for name, value in measure(*sources, names="SD,SF").items():
            assert row[name] == value.item()
    board = found.to_pandas().set_index("method")
    assert board["SD"].to_dict() == found.rows.groupby("method")["SD"].mean().to_dict()
    assert f"{board['SD'].iloc[0]:.3f}" in found.to_latex()
    for text in (str(found), found._repr_html_(), found.to_markdown()):
        assert "convention standard, colour luma" in text
    with pytest.raises(InputError, match="measures_colour channels, was luma"):
        evaluate(*folders(data), **options, measures="SD", measures_colour="channels")
    for wrong in ({"measures": "beauty"}, {"measures_colour": "luma"}):
        with pytest.raises(ValueError, match="Expected"):
            evaluate(*folders(data), **options, **wrong)


def test_scores_outlast_measures_that_fail(data, model, monkeypatch, caplog):
    def lacking(*_):
        raise torch.OutOfMemoryError("no memory left")

    options = {"model": model, "out": data / "out", "measures": "SD"}
    with monkeypatch.context() as patch:
        patch.setitem(STANDARD.computes, "SD", lacking)
        found = evaluate(*folders(data), **options)
    assert found.rows["score"].notna().all()
    assert found.rows["SD"].isna().all()
    assert found.rows["error"][0].startswith("not measured: out of memory with this triple alone")
    assert "6 of 6 triples have no score or lack measures" in caplog.text
    monkeypatch.setattr(FuScore, "encode_sources", lambda *_: pytest.fail("scored again"))
    found = evaluate(*folders(data), **options)
    assert found.rows["SD"].notna().all()
    assert found.rows["error"].isna().all()


def test_a_report_has_maps_of_a_model_in_memory(data, model):
    found = evaluate(*folders(data), model=model)
    found.report(data / "page.html", scenes=1, per_scene=1)
    page = (data / "page.html").read_text()
    assert "where ours lost score" in page or "where theirs lost score" in page
    assert "fuscore_metric.evaluate(" in page


def test_without_the_extra_it_says_what_to_install(data, monkeypatch):
    monkeypatch.setattr("fuscore_metric.optional.installed", lambda name: name != "scipy")
    with pytest.raises(MissingPackageError, match=r"scipy: pip install .*report"):
        evaluate(*folders(data))


def test_home_is_expanded(data, model, monkeypatch):
    monkeypatch.setenv("HOME", str(data))
    for methods in ("~/fused", ["~/fused/ours"], {"ours": "~/fused/ours"}, ["mine=~/fused/ours"]):
        found = evaluate("~/ir", "~/vis", methods, model=model, out="~/out", overwrite=True)
        assert len(found.rows) % 3 == 0
    assert (data / "out").is_dir()
