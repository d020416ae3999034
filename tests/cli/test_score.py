"""`fuscore score` as a user runs it, mostly in this process."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest

from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS
from tests.cli.conftest import arguments
from tests.helpers import EXAMPLE, ROOT
from tests.helpers.commands import fuscore

NUMBER = re.compile(r"\d+\.\d+")


def test_score_prints_all_and_says_what_spoke(files):
    done = fuscore(*arguments(files), "--fused", files["other"])
    assert done.returncode == 0, done.stderr
    for word in ("score", "std", "bad", "poor", "fair", "good", "excellent", "other.png", "tiny"):
        assert word in done.stdout
    assert "no ratings" in done.stdout


def test_score_as_json_agrees_with_python(run, files):
    from fuscore_metric import FuScore, predict

    _, out, _ = run(*arguments(files), "--json", "--aspect", "sharpness")
    report = json.loads(out)
    model = FuScore.from_pretrained(files["model"])
    output = predict(files["ir"], files["vis"], files["fused"], model=model, aspect="sharpness")
    (result,) = report["results"]
    assert result["score"] == pytest.approx(output.score.item(), abs=1e-5)
    assert result["std"] == pytest.approx(output.std.item(), abs=1e-5)
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert report["label_kind"] == "none"
    assert report["aspect"] == "sharpness"


def test_all_aspects_as_json_agree_with_python(run, files):
    from fuscore_metric import FuScore, predict

    _, out, _ = run(*arguments(files, aspect="all"), "--fused", files["other"], "--json")
    report = json.loads(out)
    assert report["aspect"] == "all"
    assert [Path(result["fused"]).name for result in report["results"]] == [
        "fused.png",
        "other.png",
    ]
    model = FuScore.from_pretrained(files["model"])
    for result in report["results"]:
        assert list(result["aspects"]) == list(ASPECTS)
        output = predict(files["ir"], files["vis"], result["fused"], model=model, aspects=ASPECTS)
        for number, found in enumerate(result["aspects"].values()):
            assert found["score"] == pytest.approx(output.score[0, number].item(), abs=1e-5)
            assert found["std"] == pytest.approx(output.std[0, number].item(), abs=1e-5)
            assert list(found["probabilities"]) == list(LEVEL_WORDS)
            levels = output.probabilities[0, number].tolist()
            assert list(found["probabilities"].values()) == pytest.approx(levels, abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ir": "missing.png"}, ["`ir`", "missing.png"]),
        ({"vis": "text"}, ["`vis`", "text.png"]),
        ({"fused": "small"}, ["`fused", "40x40", "64x80"]),
        ({"fused": "model"}, ["`fused", "director", "fuscore rank"]),
        ({"aspect": "beauty"}, ["--aspect", "overall", "all"]),
        ({"device": "abacus"}, ["--device", "abacus"]),
        ({"dtype": "int8"}, ["--dtype", "bfloat16"]),
        ({"model": "nothing_here"}, ["nothing_here"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_status_2(run, files, changed, words):
    changed = {name: files.get(value, value) for name, value in changed.items()}
    status, out, err = run(*arguments(files, **changed))
    assert (status, out) == (2, "")
    for word in words:
        assert word in err
    if not changed.keys() & {"aspect", "device", "dtype"}:  # typer frames its usage errors
        assert len(err.strip().splitlines()) == 1


def test_several_images_go_behind_one_option(run, files):
    status, out, err = run(*arguments(files), files["other"], "--json")
    assert status == 0, err
    names = [Path(result["fused"]).name for result in json.loads(out)["results"]]
    assert names == ["fused.png", "other.png"]


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_a_list_of_images_comes_from_standard_input(run, files, end):
    files["line\nbreak"] = files["ir"].parent / "line\nbreak.png"
    files["line\nbreak"].write_bytes(files["other"].read_bytes())
    names = ("fused", "other", "line\nbreak") if end == b"\0" else ("fused", "other")
    given = end.join(os.fsencode(files[name]) for name in names) + end
    sources = arguments(files, fused="-")
    status, out, err = run(*sources, "--json", "--batch-size", 2, stdin=given)
    assert status == 0, err
    results = json.loads(out)["results"]
    assert [result["fused"] for result in results] == [str(files[name]) for name in names]
    _, alone, _ = run(*arguments(files), files["other"], "--json")
    assert results[:2] == [
        result
        | {"probabilities": pytest.approx(result["probabilities"], abs=1e-5)}
        | {key: pytest.approx(result[key], abs=1e-5) for key in ("score", "std")}
        for result in json.loads(alone)["results"]
    ]


def test_an_empty_list_is_bad_input(run, files):
    status, out, err = run(*arguments(files, fused="-"))
    assert (status, out) == (2, "")
    assert "standard input" in err


@pytest.mark.parametrize("broken", ["text", "small", "missing", "cut"])
def test_a_bad_image_among_several_is_a_row_with_its_error(run, files, tmp_path, broken):
    # A file may be bad at first sight, or when its turn comes.
    cut = tmp_path / "cut.png"
    cut.write_bytes(files["fused"].read_bytes()[:3000])
    bad = {"missing": tmp_path / "missing.png", "cut": cut}.get(broken) or files[broken]
    status, out, err = run(*arguments(files), bad, files["other"], "--json")
    assert status == 1
    first, failed, last = json.loads(out)["results"]
    assert set(failed) == {"fused", "error"}
    assert failed["fused"] == str(bad)
    assert f"failed: {bad}: {failed['error']}" in err
    assert "1 of 3 fused images have no score" in err
    _, alone, _ = run(*arguments(files), files["other"], "--json")
    for one, other in zip((first, last), json.loads(alone)["results"], strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_csv_has_what_json_has(run, files):
    given = [*arguments(files), files["text"], files["other"]]
    status, out, _ = run(*given, "--format", "csv")
    _, as_json, _ = run(*given, "--format", "json")
    assert status == 1
    rows = list(csv.DictReader(io.StringIO(out)))
    for row, result in zip(rows, json.loads(as_json)["results"], strict=True):
        assert row["fused"] == result["fused"]
        assert row["error"] == result.get("error", "")
        if "score" in result:
            found = [float(row[name]) for name in ("score", "std", *LEVEL_WORDS)]
            numbers = [result["score"], result["std"], *result["probabilities"].values()]
            assert found == pytest.approx(numbers, abs=1e-6)
            assert row["labels"]


def test_measures_stand_beside_scores(run, files):
    from fuscore_metric import measure

    given = [*arguments(files), files["text"], files["other"], "--measures", "sf,SD"]
    given += ["--measures-colour", "channels"]
    status, as_json, err = run(*given, "--json")
    assert (status, "1 of 3 fused images have no score" in err) == (1, True)
    report = json.loads(as_json)
    assert report["measures"] == {"convention": "standard", "colour": "channels"}
    one, broken, other = report["results"]
    expected = measure(
        *(files["ir"], files["vis"], [files["fused"], files["other"]]),
        names="SF,SD",
        colour="channels",
    )
    for n, result in enumerate((one, other)):
        assert result["measures"] == {name: value[n].item() for name, value in expected.items()}
    assert "measures" not in broken
    _, as_csv, _ = run(*given, "--format", "csv")
    first, second, _ = csv.DictReader(io.StringIO(as_csv))
    assert float(first["SD"]) == expected["SD"][0].item()
    assert (first["measures_colour"], second["SD"]) == ("channels", "")
    for columns in (200, 40):
        _, text, _ = run(*given, columns=columns)
        said = " ".join(text.split())
        assert f"{expected['SD'][1].item():.3f}" in said
        assert "convention standard, colour channels" in said


@pytest.mark.parametrize(
    "options",
    [
        ["--measures", "SD,beauty"],
        ["--measures-convention", "standard"],
        ["--measures", "SD", "--measures-convention", "nobody"],
        ["--measures", "SD", "--measures-colour", "grey"],
    ],
)
@pytest.mark.parametrize("command", ["score", "score-manifest"])
def test_unknown_measures_are_usage_errors(run, files, command, options):
    given = arguments(files) if command == "score" else [command, "nothing.csv"]
    status, _, err = run(*given, *options)
    assert status == 2
    assert "--measures" in err


@pytest.mark.parametrize("second", ["text", "cut"])
def test_nothing_but_bad_images_is_bad_input(run, files, tmp_path, second):
    cut = tmp_path / "cut.png"
    cut.write_bytes(files["fused"].read_bytes()[:3000])
    bad = cut if second == "cut" else files[second]
    status, out, err = run(*arguments(files, fused=files["small"]), bad)
    assert (status, out) == (2, "")
    assert err.startswith("fuscore: None of 2 fused images can be scored; the first: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("changed", ["ir", "vis"])
def test_a_bad_source_is_bad_input_for_all(run, files, changed):
    status, out, err = run(*arguments(files, **{changed: files["small"]}), files["other"])
    assert (status, out) == (2, "")
    assert "must have the same height and width" in err


def test_a_name_that_is_no_text_is_shown_escaped(run, files, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes(files["fused"].read_bytes())
    status, out, err = run(*arguments(files, fused="-"), stdin=odd)
    assert status == 0, err
    assert "caf\\udce9.png" in out


def test_in_a_pipe_long_names_are_not_folded(run, files, tmp_path):
    long = tmp_path / ("x" * 150 + ".png")
    long.write_bytes(files["fused"].read_bytes())
    _, out, _ = run(*arguments(files, fused=long), columns=None)
    assert str(long) in out
    assert len(NUMBER.findall(out.splitlines()[1])) == 7


@pytest.mark.parametrize("aspect", ["overall", "all"])
@pytest.mark.parametrize("columns", [20, 60])
def test_no_number_is_cut_however_narrow(run, files, aspect, columns):
    status, out, _ = run(*arguments(files, aspect=aspect), files["other"], columns=columns)
    assert status == 0
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert max(map(len, out.splitlines())) <= columns
    words = " ".join(out.split())
    for heading in ASPECTS if aspect == "all" else ("score", "std", *LEVEL_WORDS):
        assert heading.split("_")[0] in words
    numbers = re.findall(r"(?<!\S)\d\.\d{3}(?!\S)", words)
    assert len(numbers) == 2 * (5 if aspect == "all" else 7)


@pytest.mark.real_data
def test_a_real_triple(run, real_data):
    scene = {"ir": "ir", "vis": "vis", "fused": "fused/IFCNN"}
    options = [p for k, v in scene.items() for p in (f"--{k}", real_data / "TNO" / v / "35.png")]
    status, out, err = run("score", *options, "--json")
    assert status == 0, err
    assert 1 <= json.loads(out)["results"][0]["score"] <= 5


def test_the_shipped_example_is_ordered_by_the_embedded_weights(run):
    names = ("good", "average", "noisy", "blurred")
    fused = [part for name in names for part in ("--fused", EXAMPLE / f"fused_{name}.png")]
    sources = ["--ir", EXAMPLE / "ir.png", "--vis", EXAMPLE / "vis.png"]
    report = json.loads(run("score", *sources, *fused, "--json")[1])
    good, average, noisy, blurred = (result["score"] for result in report["results"])
    assert report["label_kind"] == "model"
    assert good > average > max(noisy, blurred) - 0.5
    assert good > max(noisy, blurred) + 0.5


def test_it_prints_what_the_manual_shows(run, monkeypatch):
    text = (ROOT / "fuscore_metric" / "README.md").read_text()
    shown = re.search(r"```\n(fused  +score.*?)```", text, re.DOTALL)[1]
    names = re.findall(r"^(\S+\.png)", shown, re.MULTILINE)
    assert len(names) == 3
    folder = "fuscore_metric/assets/example"
    sources = ["--ir", f"{folder}/ir.png", "--vis", f"{folder}/vis.png"]
    monkeypatch.chdir(ROOT)
    _, found_text, _ = run("score", *sources, "--fused", *names, columns=None)
    assert NUMBER.sub("#", found_text) == NUMBER.sub("#", shown)
    found, expected = (list(map(float, NUMBER.findall(text))) for text in (found_text, shown))
    assert found == pytest.approx(expected, abs=2e-3)
