"""`fuscore score` and `fuscore info` as a user runs them: in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_model import tiny_fuscore

EXAMPLE = Path(__file__).parents[1] / "fuscore_metric" / "assets" / "example"


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


def test_all_aspects_as_json_agree_with_python(files):
    from fuscore_metric import FuScore, predict
    from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS

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
        ({"fused": "weights"}, ["`fused", "director"]),
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
    assert report["label_kind"] == "proxy"
    assert good > average > max(noisy, blurred) - 0.5
    assert good > max(noisy, blurred) + 0.5
