"""The commands in a real terminal: wide, narrow, without colour, dumb; and stopped by Ctrl-C."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import ROOT
from tests.helpers.terminals import fuscore
from tests.helpers.tiny_model import tiny_fuscore

METHODS = ("good", "soft")
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
CURSOR = {b"\x1b[?25l", b"\x1b[?25h", b"\x1b[2K", b"\x1b[1A"}
"""What moves and hides the cursor and clears lines: a progress bar needs it."""
BAR = re.compile(r"(\d+)/(\d+) +(\d+\.\d/s|) +(\d+:\d\d:\d\d|-:--:--)")
CUT = "\N{HORIZONTAL ELLIPSIS}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_data) -> Path:
    """ir/, vis/, methods/ of 60 scenes, all links to few images, and tiny weights."""
    folder = tmp_path_factory.mktemp("terminal")
    made = make_data(folder / "made", 1) / "VIFB"
    for place in ("ir", "vis", *METHODS):
        source = made / (place if place in ("ir", "vis") else f"fused/{place}") / "00.png"
        target = folder / ("methods" if place in METHODS else "") / place
        target.mkdir(parents=True)
        for number in range(60):
            os.link(source, target / f"{number:02d}.png")
    tiny_fuscore(folder).save_pretrained(folder / "tiny")
    return folder


def score(folder: Path, *options: object) -> list[object]:
    sources = ["--ir", folder / "ir" / "00.png", "--vis", folder / "vis" / "00.png"]
    fused = [folder / "methods" / method / "00.png" for method in METHODS]
    return ["score", *sources, "--model", folder / "tiny", "--fused", *fused, *options]


def rank(folder: Path, out: Path, *options: object, methods: Path | None = None) -> list[object]:
    sources = ["--ir", folder / "ir", "--vis", folder / "vis"]
    root = ["--methods-root", methods or folder / "methods"]
    given = ["--model", folder / "tiny", "--out", out, "--batch-size", 1]
    return ["rank", *sources, *root, *given, *options]


def escapes(terminal) -> set[bytes]:
    return set(ESCAPE.findall(terminal.written))


def plain_but_for_the_bar(terminal) -> bool:
    return escapes(terminal) <= CURSOR and b"\x1b" not in ESCAPE.sub(b"", terminal.written)


def bars(terminal) -> list[tuple[str, ...]]:
    """(done, of, rate, time left) of each bar that was on the screen, and differs from the last."""
    found = [match for text in terminal.seen for match in BAR.findall(text)]
    return list(dict.fromkeys(found))


def numbers(terminal) -> list[str]:
    return re.findall(r"(?<![\d.])\d\.\d{3}(?!\d)", terminal.text)


@pytest.mark.slow
def test_score_in_a_narrow_terminal(folder, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    terminal = fuscore(*score(folder, tmp_path / "text.png"), columns=40)
    assert terminal.end() == 1, terminal.text
    words = terminal.text.split()
    assert len([word for word in words if re.fullmatch(r"\d\.\d{3}", word)]) == 14
    assert CUT not in terminal.text
    assert "1 of 3 fused images have no score" in terminal.text
    assert not bars(terminal)  # a single batch


@pytest.mark.slow
def test_rank_shows_its_progress_and_a_leaderboard(folder, tmp_path):
    terminal = fuscore(*rank(folder, tmp_path / "out"), columns=40, NO_COLOR="1")
    assert terminal.end() == 0, terminal.text
    shown = bars(terminal)
    assert {of for _, of, _, _ in shown} == {"120"}
    done = [int(count) for count, *_ in shown]
    assert done == sorted(done)
    assert done[-1] == 120
    assert any(0 < count < 120 for count in done)
    assert all(rate and left != "-:--:--" for count, _, rate, left in shown if int(count) > 20)
    # The bar is left once, finished, and what follows is below it.
    assert len(BAR.findall(terminal.text)) == 1
    assert terminal.text.index("120/120") < terminal.text.index("method")
    assert all(method in terminal.text for method in METHODS)
    assert len(numbers(terminal)) >= 2 * 3, terminal.text
    assert CUT not in terminal.text
    assert plain_but_for_the_bar(terminal), escapes(terminal)
    assert terminal.written.rindex(b"\x1b[?25h") > terminal.written.rindex(b"\x1b[?25l")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no colour", "dumb", "no progress"])
def test_every_terminal_can_show_score_and_rank(folder, tmp_path, kind):
    environment = {"no colour": {"NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}}.get(kind, {})
    options = ["--no-progress"] if kind == "no progress" else []
    many = [folder / "methods" / "good" / f"{number:02d}.png" for number in range(1, 30)]
    commands = [(score(folder, *many, "--batch-size", 1, *options), 31 * 7)]
    if kind != "no colour":  # tested above
        commands.append((rank(folder, tmp_path / "out", *options), 2 * 3))
    for arguments, scores in commands:
        terminal = fuscore(*arguments, columns=40, **environment)
        assert terminal.end() == 0, terminal.text
        assert len(numbers(terminal)) >= scores, terminal.text
        assert CUT not in terminal.text
        assert bool(bars(terminal)) == (kind == "no colour")
        if kind == "no colour":
            assert plain_but_for_the_bar(terminal), escapes(terminal)
        if kind == "dumb":
            assert b"\x1b" not in terminal.written
    if kind == "no progress":
        assert escapes(terminal) - CURSOR  # the leaderboard's


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_rank_loses_nothing(folder, tmp_path):
    out = tmp_path / "out"
    terminal = fuscore(*rank(folder, out))
    terminal.read(lambda it: any(int(count) >= 10 for count, *_ in bars(it)))
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text
    before = (out / "rows.jsonl").read_bytes()
    assert before.endswith(b"\n")
    count = before.count(b"\n")
    assert 10 <= count < 120
    assert f"Stopped: {count} rows are in" in " ".join(terminal.text.split())
    assert len(pd.read_csv(out / "results.csv")) == count
    assert len(pd.read_parquet(out / "results.parquet")) == count
    assert terminal.written.rindex(b"\x1b[?25h") > terminal.written.rindex(b"\x1b[?25l")

    terminal = fuscore(*rank(folder, out))
    assert terminal.end() == 0, terminal.text
    assert {of for _, of, *_ in bars(terminal)} == {str(120 - count)}
    after = (out / "rows.jsonl").read_bytes()
    assert after.startswith(before)  # nothing was computed again
    keys = Counter((row["scene"], row["method"]) for row in map(json.loads, after.splitlines()))
    assert len(keys) == 120
    assert set(keys.values()) == {1}
    assert len(pd.read_csv(out / "results.csv")) == 120


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["torch", "transformers", "fuscore_metric.model"])
def test_ctrl_c_while_the_model_loads_is_silent(folder, tmp_path, moment):
    # Says when an import begins, in the middle of which the interrupt then comes.
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import sys

class Speak:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            print("now", flush=True)
            sys.meta_path.remove(self)

sys.meta_path.insert(0, Speak())
"""
    )
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    terminal = fuscore(*score(folder), PYTHONPATH=path)
    terminal.read(lambda it: "now" in it.text)
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert terminal.text.split() == ["now", "^C"] or terminal.text == "now\n^C"


@pytest.mark.parametrize("command", ["score-manifest", "rank", "compare"])
def test_help_shows_every_option_whole(command):
    terminal = fuscore(command, "--help", columns=40)
    assert terminal.end() == 0
    own = {
        "score-manifest": "--gpus-per-actor",
        "rank": "--methods-root",
        "compare": "--results",
    }[command]
    for option in (own, "--batch-size", "--no-progress", "--overwrite"):
        assert option in terminal.text
    assert CUT not in terminal.text


def test_the_reader_of_a_pipe_may_leave(folder):
    line = [sys.executable, "-m", "fuscore_metric.cli", "info", "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("option", ["--json", "--verify"])
def test_a_full_disk_is_one_line(option):
    line = [sys.executable, "-m", "fuscore_metric.cli", "info", option]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr == b"fuscore: No space left on device\n"
