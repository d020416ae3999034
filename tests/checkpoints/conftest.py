"""Checkpoints of each kind to be spoiled, and how all of them have to be refused."""

import json
from pathlib import Path

import pytest

from benchmarks.tiny_qwen import tiny_backbone
from fuscore_metric import CheckpointError, FuScore, FuScoreSpec
from fuscore_metric.checkpoints.spec import SPEC_FILE, read_spec

FAMILY = "qwen3_vl"
KINDS = ("lite", "qwen", "adapter")


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> dict[str, Path]:
    """A good checkpoint of each kind; `base` is the adapter's base model."""
    # Not at the top: they need the training code.
    from tests.helpers.adapted import make_adapted
    from tests.helpers.tiny_model import tiny_fuscore

    folder = tmp_path_factory.mktemp("originals")
    tiny_fuscore(folder).save_pretrained(folder / "lite")
    backbone = tiny_backbone(FAMILY)
    spec = FuScoreSpec("tiny", FAMILY, backbone.preprocessing, "none")
    FuScore(backbone, spec).save_pretrained(folder / "qwen")
    backbone.save(folder / "base")
    make_adapted(folder / "base", FAMILY).save_pretrained(folder / "adapter")
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


def copied(original: Path, target: Path) -> Path:
    target.mkdir()
    for path in original.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.fixture
def lite(originals, tmp_path) -> Path:
    return copied(originals["lite"], tmp_path / "lite")


@pytest.fixture
def qwen(originals, tmp_path) -> Path:
    return copied(originals["qwen"], tmp_path / "qwen")


@pytest.fixture
def adapter(originals, tmp_path) -> Path:
    return copied(originals["adapter"], tmp_path / "adapter")


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def change(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; `...` removes one."""
    content = json.loads(path.read_text()) | changes
    kept = {name: value for name, value in content.items() if value is not ...}
    path.write_text(json.dumps(kept))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        FuScore.from_pretrained(folder)
    text = str(caught.value)
    assert text.isprintable()  # one line, nothing for the terminal
    assert len(text) < 600


def cases(table: dict[str, list[object]]) -> list[tuple[str, object]]:
    return [(name, value) for name, values in table.items() for value in values]


def label(value: object) -> str:
    return ascii(value)[:20]


def spec_refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_spec(folder)
    assert SPEC_FILE in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
