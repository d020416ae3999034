"""The upload to the hub sends the card, the checkpoint and the Space, and nothing else."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi, SpaceCard
from PIL import Image

from tests.helpers import EXAMPLE
from tests.helpers.hub_server import checkpoint_fixture, hub_fixture  # noqa: F401
from tests.hub_card.conftest import EMBEDDED, HUB_CARD, ID, evaluation

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra [demo])")


def upload(*arguments):
    return subprocess.run(
        [sys.executable, HUB_CARD / "upload.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
    )


def test_a_dry_run_writes_what_would_go(tmp_path, make_card):
    weights, staging = tmp_path / "weights", tmp_path / "staging"
    shutil.copytree(EMBEDDED, weights)
    for name in ("trainer_state.bin", "notes.py", "README.md"):
        (weights / name).write_text("not for the hub")
    (weights / "logs").mkdir()
    (tmp_path / "study.json").write_text(json.dumps(evaluation()))
    extra = ("--space", "someone/demo", "--evaluation", f"human:{tmp_path / 'study.json'}")
    options = (*extra, "--staging", staging, "--dry-run")
    for _ in range(2):  # a second run takes the place of the first
        done = upload(weights, ID, *options)
        assert done.returncode == 0, done.stderr
    model = {path.name for path in (staging / "model").iterdir()}
    checkpoint = {"config.json", "fuscore.json", "model.safetensors", "tokenizer.json"}
    assert model == checkpoint | {"README.md"}
    assert (staging / "model/model.safetensors").read_bytes() == (
        EMBEDDED / "model.safetensors"
    ).read_bytes()
    card = (staging / "model/README.md").read_text()
    assert "study (human ratings)" in card.lower()
    assert "https://huggingface.co/spaces/someone/demo" in card
    assert (weights / "README.md").read_text() == "not for the hub"  # the original is left alone
    for name in model:
        assert name in done.stdout
    assert "Would upload" in done.stdout
    space = {path.name for path in (staging / "space").iterdir()}
    assert space == {
        *(path.name for path in (HUB_CARD / "space").glob("*.py")),
        *("style.css", "requirements.txt", "README.md"),
    }


def test_the_space_is_pinned(modules, tmp_path):
    commit = "c" * 40
    files = ["config.json", "model.safetensors"]
    where = modules["upload"].stage_space(
        tmp_path / "s", ID, commit, "fuscore-metric==9", files=files
    )
    front = SpaceCard((where / "README.md").read_text()).data
    assert front.sdk == "gradio"
    assert front.app_file == "app.py"
    assert front.models == [ID]
    assert front.preload_from_hub == [f"{ID} config.json,model.safetensors {commit}"]
    assert len(front.short_description) <= 60  # the hub's limit
    assert (where / "requirements.txt").read_text() == "fuscore-metric==9\n"


def test_the_space_names_the_gradio_that_it_was_tested_with():
    gradio = pytest.importorskip("gradio")
    tested = SpaceCard((HUB_CARD / "space/README.md").read_text()).data.sdk_version
    assert tested.split(".")[0] == gradio.__version__.split(".")[0]


def test_an_upload_against_a_hub_on_loopback(
    hub, checkpoint, modules, monkeypatch, tmp_path, capsys
):
    asked = {}
    for name in ("add_space_variable", "upload_folder", "create_repo"):
        real = getattr(HfApi, name)

        def recorded(self, *args, name=name, real=real, **kwargs):
            if name == "add_space_variable" or kwargs.get("repo_type") == "space":
                asked.setdefault(name, []).append((args, kwargs))
                return None
            return real(self, *args, **kwargs)

        monkeypatch.setattr(HfApi, name, recorded)
    options = ["--space", "someone/demo", "--staging", str(tmp_path / "staging"), "--private"]
    modules["upload"].app([str(checkpoint), "someone/tiny", *options], standalone_mode=False)
    commit = hub.repos["someone/tiny"].refs["main"]
    assert hub.asked("validate-yaml")
    assert hub.repos["someone/tiny"].private
    files = hub.files("someone/tiny")
    assert b"trained on no ratings" in files["README.md"]
    assert files["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert commit in capsys.readouterr().out
    variables = dict(args[1:] for args, _ in asked["add_space_variable"])
    assert variables == {"FUSCORE_MODEL": "someone/tiny", "FUSCORE_REVISION": commit}
    ((_, made),) = asked["create_repo"]
    assert made["space_sdk"] == "gradio"
    assert made["private"]
    ((_, sent),) = asked["upload_folder"]
    assert commit in (sent["folder_path"] / "README.md").read_text()


def test_the_code_of_a_card_runs(hub, checkpoint, modules, monkeypatch, tmp_path):
    options = ["--staging", str(tmp_path / "staging"), "--revision", "dev"]
    modules["upload"].app([str(checkpoint), "someone/tiny", *options], standalone_mode=False)
    commit = hub.repos["someone/tiny"].refs["dev"]
    card = hub.files("someone/tiny", "dev")["README.md"].decode()
    load, _, reward = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    for name, source in (("ir", "ir"), ("vis", "vis"), ("fused", "fused_good")):
        picture = Image.open(EXAMPLE / f"{source}.png")
        picture.resize((64, 48)).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    names = {name: torch.rand(2, 3, 48, 64) for name in ("ir", "vis", "fused")}
    names["usual_loss"] = torch.tensor(1.0)
    for code in (load, reward):
        exec(code.replace('revision="..."', f"revision={commit!r}"), names)
    assert names["rewards"].shape == (2,)
    assert names["model"].spec.name == "tiny"


def test_a_card_that_the_hub_refuses_stops_the_upload(hub, checkpoint, modules, tmp_path):
    hub.fail("status", "validate-yaml", status=400)
    arguments = [str(checkpoint), "someone/tiny", "--staging", str(tmp_path / "staging")]
    with pytest.raises(ValueError):
        modules["upload"].app(arguments, standalone_mode=False)
    assert not hub.repos


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing", ID], ["missing", "checkpoint directory"]),
        (["embedded", "fuscore"], ["owner/name", "'fuscore'"]),
        (["embedded", ID, "--space", "a/b/c"], ["owner/name", "'a/b/c'"]),
        (["embedded", ID, "--evaluation", "none.json"], ["none.json"]),
        (["embedded", ID, "--staging", str(EMBEDDED.parent)], ["--staging"]),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(arguments, words, tmp_path):
    staging = [] if "--staging" in arguments else ["--staging", tmp_path / "staging"]
    if "--staging" in arguments:  # whose `model` would be a folder that is not ours to empty
        (tmp_path / "model" / "precious").mkdir(parents=True)
        arguments = [*arguments[:-1], tmp_path]
    done = upload(*arguments, *staging, "--dry-run")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
