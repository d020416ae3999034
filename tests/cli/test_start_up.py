"""What a process imports before it answers, and that loading weights gives those of the file."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from fuscore_metric import CheckpointError, FuScore
from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.compute.openmp import SET_BY_USERS, TURNS
from tests.helpers.tiny_model import tiny_fuscore

HEAVY = ("torch", "transformers", "numpy", "PIL", "tokenizers", "huggingface_hub")
TABLES = {"matplotlib", "pandas", "pyarrow", "ray"}
"""What only tables and reports need; transformers imports their scipy and jinja2 where it can."""

# Runs the command line with the arguments that follow, then prints which modules it imported.
PROBE = """
import json, sys
from fuscore_metric.cli import main
sys.argv[0] = "fuscore"
try:
    main()
    status = 0
except SystemExit as leave:
    status = leave.code
print("\\n" + json.dumps([status, list(sys.modules)]))
"""


def imported_by(*arguments: object, **environment: str) -> tuple[int, set[str], str]:
    """Exit status and modules of one run of the command line, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    status, modules = json.loads(last)
    return status, set(modules), "\n".join(said) + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start_up")
    tiny_fuscore(folder).save_pretrained(folder / "weights")
    for name in ("ir", "vis", "fused"):
        Image.new("RGB", (64, 64), (90, 120, 150)).save(folder / f"{name}.png")
    return folder


def images(folder: Path, **changed: object) -> list[object]:
    chosen = {name: folder / f"{name}.png" for name in ("ir", "vis", "fused")} | changed
    return [part for name, value in chosen.items() for part in (f"--{name}", value)]


@pytest.mark.parametrize(
    ("arguments", "expected_status", "word"),
    [
        (["--help"], 0, "score"),
        (["--version"], 0, "fuscore-metric"),
        (["-h"], 0, "score"),
        (["score", "-h"], 0, "--fused"),
        (["pyiqa", "reference", "-h"], 0, "--vis"),
        (["explain", "--help"], 0, "--out"),
        (["score", "--ir", "ir.png"], 2, "--vis"),
        (["score", "--beauty"], 2, "--beauty"),
        (["guess"], 2, "guess"),
        (["score", *images(Path()), "--aspect", "beauty"], 2, "--aspect"),
        (["score", *images(Path()), "--dtype", "int8"], 2, "--dtype"),
        (["info"], 0, "fuscore-lite"),
        (["rank", "--help"], 0, "--methods-root"),
        (["rank", "--ir", "ir"], 2, "--vis"),
        (["measures", "--help"], 0, "MEASURE"),
        (["report", "--help"], 0, "--figures"),
        (["compare", "--help"], 0, "--results"),
        (["scor"], 2, "Did you mean 'score'?"),
        (["score-manifest", "m.csv", "--engine", "abacus"], 2, "--engine"),
        (["score-manifest"], 2, "TABLE"),
        (["info", "--model", "nothing_here"], 2, "nothing_here"),
        (["info", "--weights=nothing_here"], 2, "is called --model now"),
        (["merge", "--model", "a/b", "--out", "."], 2, "`out`"),
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(arguments, expected_status, word):
    status, modules, said = imported_by(*arguments)
    assert status == expected_status, said
    assert word in said
    assert not modules & set(HEAVY)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ra", {"rank"}),
        ("score --f", {"--fused", "--format"}),
        ("score --aspect s", {"sharpness"}),
        ("rank --aspect o", {"overall"}),
        ("explain --device c", {"cpu", "cuda", "cuda:0"}),
        ("score --dtype b", {"bfloat16"}),
        ("score-manifest --engine ", {"local", "ray"}),
        ("measures --format m", {"markdown"}),
        ("rank --format ", {"text", "csv", "json", "latex", "markdown"}),
        ("merge --model e", {"embedded"}),
        ("rank --measures p", {"paper"}),
        ("score --measures-convention c", {"cddfuse"}),
    ],
)
def test_shell_completion_imports_nothing_heavy(typed, expected):
    words = f"fuscore {typed}"
    status, modules, said = imported_by(
        _FUSCORE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
    )
    assert status == 0, said
    assert set(said.split()) == expected
    assert not modules & set(HEAVY)


@pytest.mark.skipif(not Path(sys.executable).with_name("fuscore").exists(), reason="not installed")
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_with_the_script_that_is_shown(tmp_path):
    script = """
        eval "$(fuscore --show-completion)"
        COMP_WORDS=(fuscore score --aspect sh) COMP_CWORD=3
        _fuscore_completion fuscore
        echo "${COMPREPLY[@]}"
        fuscore --install-completion > /dev/null && cat ~/.bashrc
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shutil.which("bash"), "--norc", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": path, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    completed, *installed = done.stdout.splitlines()
    assert completed == "sharpness"
    assert any("fuscore" in line for line in installed)


def test_a_bad_image_is_refused_before_the_model_is_imported(folder):
    (folder / "text.png").write_text("not an image")
    status, modules, said = imported_by("score", *images(folder, vis=folder / "text.png"))
    assert status == 2
    assert "text.png" in said
    assert "torch" in modules  # images are read into tensors
    assert not modules & {"transformers", "tokenizers", "fuscore_metric.model"}


def test_a_score_imports_only_what_it_uses(folder):
    options = ["--model", folder / "weights", "--json"]
    status, modules, said = imported_by("score", *images(folder), *options)
    assert status == 0, said
    assert {"torch", "fuscore_metric.backbones.lite.lite_llama"} <= modules
    unused = ("qwen_vl", "qwen2_5_vl", "qwen3_vl", "pretrained")
    assert not modules & {f"fuscore_metric.backbones.{name}" for name in unused}
    assert not modules & {f"fuscore_metric.{name}" for name in ("checkpoints.hub", "reward")}
    assert not modules & {"fuscore_metric.integrations.pyiqa", "fuscore_training"}
    assert not modules & TABLES
    if Version(transformers.__version__) < Version("5.24"):
        return  # some older ones import every tokenizer, some every family
    # Of transformers: no processor and no tokenizer classes, no family but the Llama.
    unused = (
        "tokenization_utils_tokenizers",
        "image_processing_utils",
        "models.llama.tokenization_llama",
    )
    assert not modules & {f"transformers.{name}" for name in unused}
    families = {name.split(".")[2] for name in modules if name.startswith("transformers.models.")}
    assert families <= {"llama", "auto"}


@pytest.fixture
def frozen_objects(monkeypatch):
    """Forget what a test froze: this process is not the command line's."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    yield gc.get_freeze_count
    gc.unfreeze()


def test_garbage_is_not_collected_during_start_up_and_is_after_it(frozen_objects):
    assert gc.isenabled()
    with start_up():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen_objects() > 0


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_wait_briefly_unless_the_user_says_how(own):
    code = (
        "import os, sys\nfrom fuscore_metric.cli.shared.start_up import start_up\n"
        "assert 'torch' not in sys.modules\n"
        "with start_up(): print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    env = {name: value for name, value in os.environ.items() if name not in SET_BY_USERS} | own
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    expected = own.get("GOMP_SPINCOUNT", "None") if own else TURNS
    assert done.stdout.strip() == expected, done.stderr


def test_ctrl_c_is_again_what_it_was_after_the_start_up(frozen_objects):
    before = signal.getsignal(signal.SIGINT)
    with start_up():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_start_up_in_a_thread_leaves_signals_alone(frozen_objects):
    def work():
        with start_up():
            pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_garbage_is_collected_after_a_start_up_that_fails(frozen_objects):
    with pytest.raises(ValueError, match="a bad image"), start_up():
        raise ValueError("a bad image")
    assert gc.isenabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loaded_weights_are_those_of_the_file(folder, dtype):
    model = FuScore.from_pretrained(folder / "weights", dtype=dtype)
    stored = load_file(folder / "weights" / "model.safetensors")
    loaded = model.backbone.state_dict()
    assert loaded.keys() == stored.keys()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype)), name
        assert not name.startswith("llama.") or tensor.dtype == dtype
        assert not name.startswith("vision.") or tensor.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_left_unmade_and_buffers_outside_the_file_are_right(folder, dtype):
    backbone = FuScore.from_pretrained(folder / "weights", dtype=dtype).backbone
    tensors = dict(backbone.named_parameters()) | dict(backbone.named_buffers())
    assert not [name for name, tensor in tensors.items() if tensor.is_meta]
    shape = json.loads((folder / "weights" / "config.json").read_text())["llama"]
    fresh = LlamaForCausalLM(LlamaConfig(vocab_size=8, **shape))
    assert dict(fresh.named_buffers())  # the frequencies of the rotary embedding
    for name, buffer in fresh.named_buffers():
        assert torch.equal(tensors[f"llama.{name}"], buffer), name  # float32 in every dtype


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_weights_that_do_not_fit_are_refused_by_name(folder, tmp_path, change):
    for path in (folder / "weights").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = "llama.lm_head.weight"
    if change == "missing":
        del weights[name]
    elif change == "extra":
        name = "llama.surprise"
        weights[name] = torch.zeros(3)
    else:
        weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="Expected llama") as caught:
        FuScore.from_pretrained(tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
