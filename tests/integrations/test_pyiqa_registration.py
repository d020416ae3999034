"""FuScore is found by pyiqa, whatever was imported first, and breaks nothing of it."""

import os
import subprocess
import sys

import pytest

from fuscore_metric.cli.pyiqa import HOOK_FILE, hook_path
from tests.helpers import EXAMPLE

pyiqa = pytest.importorskip("pyiqa", reason="pyiqa is not installed (extra [pyiqa])")


def run(code: str, **variables: str) -> str:
    """Run Python as a user would, in a folder of its own choice."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
        cwd=EXAMPLE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", ["import pyiqa, fuscore_metric", "import fuscore_metric, pyiqa"])
def test_either_order_of_imports_registers(order):
    code = (
        f"{order}\n"
        "assert {'fuscore', 'fuscore_fr'} <= set(pyiqa.list_models())\n"
        "metric = pyiqa.create_metric('fuscore')\n"
        "print(metric('fused_good.png', ir='ir.png', vis='vis.png').tolist())\n"
    )
    assert eval(run(code)) == pytest.approx([3.90], abs=0.01)


def test_a_part_of_pyiqa_imported_first_registers_too():
    code = (
        "import fuscore_metric\nfrom pyiqa.default_model_configs import DEFAULT_CONFIGS\n"
        "print('fuscore' in DEFAULT_CONFIGS)"
    )
    assert run(code).strip() == "True"


def test_importing_fuscore_alone_loads_neither_pyiqa_nor_torch():
    code = (
        "import sys, fuscore_metric\n"
        "print({'torch', 'pyiqa', 'torchvision', 'transformers', 'numpy'} & set(sys.modules))"
    )
    assert run(code).strip() == "set()"


def test_the_entry_point_registers_once_another_metric_was_made():
    code = (
        "import sys, pyiqa\n"
        "assert 'fuscore' not in pyiqa.list_models(), 'a hook is installed'\n"
        "pyiqa.create_metric('psnr', device='cpu')\n"
        "metric = pyiqa.create_metric('fuscore', device='cpu')\n"
        "print(metric.metric_mode)\n"
    )
    assert run(code).strip() == "NR"


def test_registering_twice_changes_nothing():
    from fuscore_metric.integrations import _pyiqa_hook
    from fuscore_metric.integrations.pyiqa import register

    before = pyiqa.list_models()
    for _ in range(2):
        register()
        _pyiqa_hook.install()
    assert pyiqa.list_models() == before
    assert before.count("fuscore") == 1


def test_lists_and_filters():
    assert "fuscore" in pyiqa.list_models("NR")
    assert "fuscore_fr" in pyiqa.list_models("FR")
    assert "fuscore" not in pyiqa.list_models("FR")
    assert pyiqa.list_models(filter="fusc*") == ["fuscore", "fuscore_fr"]
    assert "fuscore" not in pyiqa.list_models(exclude_filters="fus*")


def test_a_broken_registration_does_not_break_pyiqa():
    code = (
        "import sys, fuscore_metric\n"
        "sys.modules['fuscore_metric.integrations.pyiqa'] = None\n"  # its import fails
        "import pyiqa\nprint(len(pyiqa.list_models()) > 10)"
    )
    assert run(code).strip() == "True"


def test_enable_and_disable_from_the_command_line():
    assert not hook_path().exists(), f"{HOOK_FILE} is installed in the environment under test"
    fuscore = [sys.executable, "-m", "fuscore_metric.cli", "pyiqa"]
    listed = "import pyiqa, sys; print('fuscore' in pyiqa.list_models())"
    try:
        said = subprocess.run([*fuscore, "enable"], check=True, capture_output=True, text=True)
        assert str(hook_path()) in said.stdout
        assert run(listed).strip() == "True"
        assert run("import sys; print('torch' in sys.modules)").strip() == "False"
    finally:
        subprocess.run([*fuscore, "disable"], check=True, capture_output=True)
    assert not hook_path().exists()
    assert run(listed).strip() == "False"
    again = subprocess.run([*fuscore, "disable"], check=True, capture_output=True, text=True)
    assert "Nothing to remove" in again.stdout
