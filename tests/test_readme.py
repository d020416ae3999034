"""README's Python blocks run as they stand, and print what it says they print.

Blocks behind `<!-- try: NAME -->` are run in the folder of the example, as processes of their own.
Those behind `<!-- run: NAME -->` need what this machine does not have; each test says what it puts
in place of that.
"""

import ast
import gc
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fuscore_metric import FuScore, cli
from fuscore_metric.images import as_images
from tests.hub_server import hub_fixture  # noqa: F401
from tests.rated_scenes import write_base
from tests.test_adapters import make_adapted

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "fuscore_metric" / "assets" / "example"
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"<!-- try: (\w+) -->\n```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
RUN = re.compile(r"<!-- run: (\w+) -->\n```(?:python|bash)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")

BLOCKS = {name: (code, shown) for name, code, shown in BLOCK.findall(README)}
RUNS = dict(RUN.findall(README))


def test_every_block_is_run():
    assert set(BLOCKS) == {"rank", "pyiqa", "torchmetrics", "reward"}
    assert set(RUNS) == {"first", "folders", "results", "doors", "large"}
    # All but the bash block of `folders`.
    assert README.count("```python\n") == len(BLOCKS) + len(RUNS) - 1


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


def values(name, **known):
    """Run a block with names that it expects to be there; the values of its bare expressions."""
    found = []
    for statement in ast.parse(RUNS[name]).body:
        if isinstance(statement, ast.Expr):
            found.append(eval(ast.unparse(statement), known))
        else:
            exec(ast.unparse(statement), known)
    return found


def test_the_first_block(tmp_path, monkeypatch):
    """`fused.png` is the example's good fusion."""
    for name in ("ir", "vis", "fused_good"):
        shutil.copy(EXAMPLE / f"{name}.png", tmp_path / f"{name.split('_')[0]}.png")
    monkeypatch.chdir(tmp_path)
    (score,) = values("first")
    assert f"tensor([{score.item():.2f}])" in RUNS["first"]


def test_from_folders_to_results(tmp_path, monkeypatch):
    """The commands, and the block that reads their results; the data are two scenes of ours."""
    methods = {"SeAFusion": "good", "IFCNN": "noisy"}
    for scene in ("1", "2"):
        for place in ("ir", "vis", *(f"fused/{method}" for method in methods)):
            kind = methods.get(place.removeprefix("fused/"))
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            source = EXAMPLE / (f"fused_{kind}.png" if kind else f"{place}.png")
            shutil.copy(source, tmp_path / place / f"{scene}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli._console, "close_output", lambda: None)
    for line in RUNS["folders"].splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code, line
    gc.unfreeze()
    assert (tmp_path / "report.html").is_file()
    ((best, p_values, *_),) = values("results")
    assert best.method == "SeAFusion"
    assert p_values.shape == (2, 2)


def test_the_doors():
    """`ir`, `vis` and three fusions are small pieces of the example as tensors."""
    names = {"ir": "ir", "vis": "vis", "fused": "fused_good"}
    names |= {"fused_a": "fused_good", "fused_b": "fused_noisy"}
    images = {
        name: as_images(EXAMPLE / f"{file}.png", name)[0][:, 100:164, 100:196][None]
        for name, file in names.items()
    }
    found = values("doors", **{name: image.requires_grad_() for name, image in images.items()})
    assert [len(found[n]) for n in range(4)] == [1, 1, 1, 1]
    assert found[2].shape == (1, 5)
    assert 0 <= found[5] <= 1
    assert all(images[name].grad.abs().sum() > 0 for name in ("ir", "vis", "fused"))
    assert found[-1].shape == (1, 64, 96)


def test_large_models(hub, tmp_path, monkeypatch):
    """The hub is a local one, the base model a tiny random one, the GPU the CPU if none is there.

    No weights of that size can be loaded offline, so the code runs on those.
    """
    pytest.importorskip("bitsandbytes")
    monkeypatch.chdir(tmp_path)
    # Wide enough for the blocks of bitsandbytes' kernels.
    base = write_base(tmp_path / "my/copy/of/the/base", "qwen3_vl", width=4)
    made = make_adapted(base, "qwen3_vl")
    made.spec = replace(
        made.spec, base_model="owner/base", base_revision=hub.put("owner/base", base)
    )
    made.push_to_hub("owner/adapter")
    if not torch.cuda.is_available():
        load = FuScore.from_pretrained

        def on_cpu(*given, **options):
            here = {"device": "cpu"} if options.get("device") == "cuda" else {}
            return load(*given, **options | here)

        monkeypatch.setattr(FuScore, "from_pretrained", on_cpu)
    commit, _ = values("large")
    assert commit in hub.repos["owner/name"].commits
    assert FuScore.from_pretrained("merged").spec.weights == "merged"
