"""The Python blocks of README and manual run as they stand, and print what they say they print.

Blocks behind `<!-- try: NAME -->` are run in the folder of the example. Those behind
`<!-- run: NAME -->` need what this machine does not have; each test says what it puts in place of
that.
"""

import ast
import doctest
import gc
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from PIL import Image

import fuscore_metric
from fuscore_metric import FuScore, cli
from fuscore_metric.images.convert import as_images
from tests.helpers import EXAMPLE, ROOT
from tests.helpers.adapted import make_adapted
from tests.helpers.hub_server import hub_fixture  # noqa: F401
from tests.helpers.rated_scenes import write_base

PAGES = (ROOT / "README.md", ROOT / "fuscore_metric" / "README.md")
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCK = re.compile(r"<!-- try: (\w+) -->\n```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
RUN = re.compile(r"<!-- run: (\w+) -->\n```(?:python|bash)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")

FOLDERS = ("fuscore_metric", "training", "benchmarks", "hub_card")
LINK = re.compile(r"\]\(([^)\s{]+)\)")

BLOCKS = {name: (code, shown) for name, code, shown in BLOCK.findall(TEXT)}
RUNS = dict(RUN.findall(TEXT))


def test_every_block_is_run():
    assert set(BLOCKS) == {"rank", "pyiqa", "torchmetrics", "reward"}
    assert set(RUNS) == {"first", "folders", "evaluate", "results", "doors", "large", "reward_step"}
    # All but the bash block of `folders`.
    assert TEXT.count("```python\n") == len(BLOCKS) + len(RUNS) - 1


def test_readme_is_short():
    lines = PAGES[0].read_text().splitlines()
    assert len(lines) <= 180
    assert max(map(len, lines)) <= 100


def anchors(page):
    """Of headings outside of code, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md")]
    pages += [page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")]
    for page in pages:
        for link in LINK.findall(page.read_text()):
            if link.startswith("https:"):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}"


def assert_shown(printed, shown):
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    found, expected = (list(map(float, NUMBER.findall(text))) for text in (printed, shown))
    assert found == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", sorted(BLOCKS.keys() - {"pyiqa"}))
def test_a_block_prints_what_stands_below_it(name, capsys, monkeypatch):
    code, shown = BLOCKS[name]
    monkeypatch.chdir(EXAMPLE)
    exec(code, {"__name__": "__main__"})
    assert_shown(capsys.readouterr().out, shown)


@pytest.mark.skipif(not find_spec("pyiqa"), reason="pyiqa is not installed (extra [pyiqa])")
def test_the_block_of_pyiqa_prints_what_stands_below_it():
    """In a process of its own, as which of the two is imported first matters."""
    code, shown = BLOCKS["pyiqa"]
    line = [sys.executable, "-c", code]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=EXAMPLE, env=env)
    assert done.returncode == 0, done.stderr
    assert_shown(done.stdout, shown)


class Near(doctest.OutputChecker):
    """Numbers may differ as machines do."""

    def check_output(self, want, got, flags):
        found, expected = (list(map(float, NUMBER.findall(text))) for text in (got, want))
        same = NUMBER.sub("#", got) == NUMBER.sub("#", want)
        return same and found == pytest.approx(expected, abs=2e-3)


def test_examples_in_docstrings(monkeypatch):
    monkeypatch.chdir(EXAMPLE)
    tried = set()
    runner, finder = doctest.DocTestRunner(Near()), doctest.DocTestFinder(exclude_empty=True)
    for name in fuscore_metric.__all__:
        for found in finder.find(getattr(fuscore_metric, name), name, globs={}):
            report = []
            runner.run(found, out=report.append)
            assert not report, "".join(report)
            if found.examples:
                tried.add(found.name)
    assert {"FuScore", "FuScoreReward", "predict", "preference", "rank", "score"} <= tried


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
    score, figure = values("first")
    assert len(figure.axes) == 5
    assert f"tensor([{score.item():.2f}])" in RUNS["first"]


def test_from_folders_to_results(tmp_path, monkeypatch):
    """The commands, and the block that reads their results; the data are two scenes of ours."""
    methods = {"SeAFusion": "good", "IFCNN": "noisy"}
    for scene in ("1", "2"):
        for place in ("ir", "vis", *(f"fused/{method}" for method in methods)):
            kind = methods.get(place.removeprefix("fused/"))
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            source = EXAMPLE / (f"fused_{kind}.png" if kind else f"{place}.png")
            with Image.open(source) as image:  # a piece: the maps of a report take time
                image.crop((80, 60, 240, 180)).save(tmp_path / place / f"{scene}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.console, "close_output", lambda: None)
    for line in RUNS["folders"].splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code, line
    gc.unfreeze()
    assert (tmp_path / "report.html").is_file()
    (tmp_path / "report.html").unlink()
    (_, (board, latex, _), (rows, _), _) = values("evaluate")
    assert list(board["method"]) == ["SeAFusion", "IFCNN"]
    assert "tabular" in latex
    assert len(rows) == 4
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
    assert [len(found[n]) for n in range(5)] == [1, 1, 1, 1, 1]
    assert found[2].shape == (1, 2)
    assert 0 <= found[6] <= 1
    assert len(found[7].axes) == 5
    assert all(images[name].grad.abs().sum() > 0 for name in ("ir", "vis", "fused"))
    assert found[-1].shape == (1, 64, 96)


def test_one_step_with_the_reward():
    """`your_loss` is a number; the images are small pieces of the example."""
    images = {
        name: as_images(EXAMPLE / f"{file}.png", name)[0][:, 100:164, 100:196][None]
        for name, file in (("ir", "ir"), ("vis", "vis"), ("fused", "fused_good"))
    }
    values("reward_step", your_loss=0.5, **{n: x.requires_grad_() for n, x in images.items()})
    assert images["fused"].grad.abs().sum() > 0
    assert images["ir"].grad is None


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
