"""The command line in this process, and files for it."""

import gc
import io
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fuscore_metric import cli


class Done(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command line in this process."""

    def run(*arguments: object, stdin: bytes = b"", columns: int | None = 200):
        monkeypatch.setattr(sys, "argv", ["fuscore", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Done(left.value.code or 0, *capfd.readouterr())

    # This process goes on, and pytest's own output may be at the same place.
    monkeypatch.setattr(cli.console, "close_output", lambda: None)
    yield run
    gc.unfreeze()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Two fusions of one source pair, tiny weights, and what no command can read."""
    from tests.helpers.tiny_model import tiny_fuscore  # not at the top: it needs the training code

    folder = tmp_path_factory.mktemp("cli")
    tiny_fuscore(folder).save_pretrained(folder / "weights")
    rng = np.random.default_rng(0)
    found = {"model": folder / "weights"}
    for name in ("ir", "vis", "fused", "other"):
        found[name] = folder / f"{name}.png"
        Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(found[name])
    found["small"] = folder / "small.png"
    Image.new("RGB", (40, 40)).save(found["small"])
    found["text"] = folder / "text.png"
    found["text"].write_text("not an image")
    return found


def arguments(files: dict[str, Path], **changed: object) -> list[object]:
    """`fuscore score` on the first of them, with other values for some options."""
    names = ("ir", "vis", "fused", "model")
    chosen = {name: files[name] for name in names} | changed
    options = [part for name, value in chosen.items() for part in (f"--{name}", value)]
    return ["score", *options]
