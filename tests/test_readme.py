"""README's blocks for other tools print what it says they print."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "fuscore_metric" / "assets" / "example"
BLOCK = re.compile(r"<!-- try: (\w+) -->\n```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")

BLOCKS = {
    name: (code, shown) for name, code, shown in BLOCK.findall((ROOT / "README.md").read_text())
}


def test_every_host_has_a_block():
    assert set(BLOCKS) == {"rank", "pyiqa", "torchmetrics", "reward"}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_prints_what_stands_below_it(name):
    if name == "pyiqa" and not find_spec("pyiqa"):
        pytest.skip("pyiqa is not installed (extra [pyiqa])")
    code, shown = BLOCKS[name]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=EXAMPLE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert NUMBER.sub("#", done.stdout) == NUMBER.sub("#", shown)
    found, expected = (list(map(float, NUMBER.findall(text))) for text in (done.stdout, shown))
    assert found == pytest.approx(expected, abs=2e-3)
