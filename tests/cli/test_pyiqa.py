"""`fuscore pyiqa` and its import hook where pyiqa itself is not needed: with a stand-in for it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fuscore_metric import InputError
from fuscore_metric.cli import app, pyiqa
from fuscore_metric.images.convert import as_images
from fuscore_metric.integrations.pyiqa import split_sources

STAND_IN = {
    "__init__.py": "from .default_model_configs import DEFAULT_CONFIGS\n",
    "default_model_configs.py": "DEFAULT_CONFIGS = {}\n",
    "utils/__init__.py": "",
    "utils/registry.py": (
        "class Registry(dict):\n"
        "    def register(self, obj, name, override):\n"
        "        self[name] = obj\n"
        "ARCH_REGISTRY = Registry()\n"
    ),
}


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A site-packages of our own."""
    monkeypatch.setattr(pyiqa, "hook_path", lambda: tmp_path / pyiqa.HOOK_FILE)
    return tmp_path


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    """A folder with a package that has pyiqa's name and its two tables."""
    folder = tmp_path_factory.mktemp("path")
    for name, text in STAND_IN.items():
        path = folder / "pyiqa" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def fuscore(*arguments: object):
    return CliRunner().invoke(app, ["pyiqa", *map(str, arguments)])


def run(code: str, path: Path) -> str:
    """Run Python with a folder before everything else on its path."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(folder: Path, *names: str, size: tuple[int, int] = (40, 32)) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param("import pyiqa, fuscore_metric", marks=pytest.mark.slow),
        pytest.param("import fuscore_metric, pyiqa", marks=pytest.mark.slow),
        pytest.param("import pyiqa.utils", marks=pytest.mark.slow),
    ],
)
def test_registration_in_either_order(stand_in, order):
    code = f"import fuscore_metric\n{order}\nprint(sorted(pyiqa.DEFAULT_CONFIGS))"
    if order.startswith("import pyiqa,"):
        code = code.removeprefix("import fuscore_metric\n")
    assert run(code, stand_in) == "['fuscore', 'fuscore_fr']"


@pytest.mark.slow
def test_looking_for_pyiqa_without_importing_it_does_not_spend_the_hook(stand_in):
    code = (
        "import fuscore_metric, importlib.util\n"
        "for _ in range(2):\n    assert importlib.util.find_spec('pyiqa') is not None\n"
        "import pyiqa\nprint(len(pyiqa.DEFAULT_CONFIGS))\n"
        "print([f for f in sys.meta_path if 'fuscore' in type(f).__module__])"
    )
    assert run(code, stand_in).splitlines() == ["2", "[]"]


def test_nothing_happens_without_pyiqa(tmp_path):
    (tmp_path / "pyiqa.py").write_text("raise ImportError('broken inside')\n")
    code = (
        "import fuscore_metric\n"
        "for _ in range(2):\n"
        "    try:\n        import pyiqa\n"
        "    except ImportError as error:\n        print(error)\n"
    )
    assert run(code, tmp_path).splitlines() == ["broken inside"] * 2


def test_enable_says_what_it_does_and_disable_undoes_it(site):
    enabled = fuscore("enable")
    assert enabled.exit_code == 0
    for said in (str(site / pyiqa.HOOK_FILE), "every start", "fuscore pyiqa disable"):
        assert said in enabled.output.replace("\n", " ")
    (line,) = (site / pyiqa.HOOK_FILE).read_text().splitlines()
    assert line.startswith("import ")  # site.py runs no other lines
    assert fuscore("enable").exit_code == 0
    assert fuscore("disable").exit_code == 0
    assert list(site.iterdir()) == []
    assert "Nothing to remove" in fuscore("disable").output


def test_the_hook_line_registers_and_is_quiet_without_this_package(stand_in):
    line = pyiqa.HOOK_LINE
    assert run(f"{line}\nimport pyiqa\nprint(len(pyiqa.DEFAULT_CONFIGS))", stand_in) == "2"
    alone = [sys.executable, "-I", "-S", "-c", f"{line}\nimport fuscore_metric"]  # no site-packages
    done = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert "line 2" in done.stderr  # the import after the hook line fails, not the hook line
    assert "No module named 'fuscore_metric'" in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(pyiqa, "hook_path", lambda: tmp_path / "file" / pyiqa.HOOK_FILE)
    for command in ("enable", "disable"):
        failed = fuscore(command)
        assert failed.exit_code == 2
        assert "Not a directory" in failed.output


def test_references_of_folders_come_apart_again(tmp_path):
    write(tmp_path / "ir", "one.png", "two.bmp")
    write(tmp_path / "vis", "one.bmp", "two.png")
    (tmp_path / "vis" / "Thumbs.db").touch()
    folders = [f"--{name}={tmp_path / name}" for name in ("ir", "vis")]
    done = fuscore("reference", *folders, "--out", tmp_path / "ref")
    assert done.exit_code == 0, done.output
    assert "Wrote 2 reference images" in done.output
    files = sorted((tmp_path / "ref").iterdir())
    assert [path.name for path in files] == ["one.png", "two.png"]
    ir, vis = split_sources(list(files))
    assert torch.equal(ir[1], as_images(tmp_path / "ir" / "two.bmp", "ir")[0])
    assert torch.equal(vis[0], as_images(tmp_path / "vis" / "one.bmp", "vis")[0])


def test_a_reference_of_two_files(tmp_path):
    write(tmp_path, "a.png", "b.png")
    paths = ["--ir", tmp_path / "a.png", "--vis", tmp_path / "b.png", "--out", tmp_path / "c.png"]
    assert fuscore("reference", *paths).exit_code == 0
    assert Image.open(tmp_path / "c.png").size == (80, 32)


def test_references_need_partners(tmp_path):
    write(tmp_path / "ir", "one.png", "two.png")
    write(tmp_path / "vis", "one.png")
    (tmp_path / "empty").mkdir()

    def refused(ir: str, vis: str) -> str:
        done = fuscore(
            "reference", "--ir", tmp_path / ir, "--vis", tmp_path / vis, "--out", tmp_path / "out"
        )
        assert done.exit_code != 0
        assert not (tmp_path / "out").exists()
        if isinstance(done.exception, InputError):  # `main` makes it one line
            return str(done.exception)
        return " ".join(done.output.replace("│", " ").split())

    assert "without a partner: two" in refused("ir", "vis")
    assert "no such file or folder" in refused("ir", "nowhere")
    assert "two files or two folders" in refused("ir", "vis/one.png")
    assert "images in the folder of vis" in refused("ir", "empty")
    write(tmp_path / "vis", "one.bmp")
    assert "one image of the name 'one'" in refused("vis", "ir")


def test_sources_of_different_sizes_are_refused(tmp_path):
    write(tmp_path, "a.png")
    write(tmp_path, "b.png", size=(50, 32))
    done = fuscore(
        "reference",
        "--ir",
        tmp_path / "a.png",
        "--vis",
        tmp_path / "b.png",
        "--out",
        tmp_path / "c",
    )
    assert isinstance(done.exception, InputError)  # `main` makes it one line
    assert "of the same sizes" in str(done.exception)
