"""A checkpoint directory -> a model repository with its card on the hub, and a Space that shows it.

    python hub_card/upload.py runs/embedded/checkpoint owner/name --dry-run

Never run against the real hub on the machines where it was written.
"""

from __future__ import annotations

import os
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer
from card import LIBRARY, is_hub_id, make_card
from huggingface_hub import HfApi, ModelCard, SpaceCard

from fuscore_metric import __version__
from fuscore_metric.checkpoints.hub import HUB_PATTERNS, upload
from fuscore_metric.checkpoints.hub_errors import HTTPError, explain
from fuscore_metric.checkpoints.spec import EMBEDDED
from fuscore_metric.errors import CheckpointError

CARD = "README.md"
SPACE = Path(__file__).parent / "space"
SPACE_PATTERNS = ["*.py", "*.css", "requirements.txt", CARD]
LATER = "COMMIT-OF-THE-UPLOAD"
"""Stands for the model's commit in a dry run, which makes none."""

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    directory: Annotated[str, typer.Argument(help='Checkpoint directory, or "embedded".')],
    repo_id: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository.")],
    evaluation: Annotated[
        list[str] | None,
        typer.Option(
            help="JSON of `fuscore-train evaluate --out`, as KIND:PATH; KIND says whose ratings: "
            "proxy, human or model. Repeat for more."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = (
        False
    ),
    revision: Annotated[str | None, typer.Option(help="Branch to upload to.")] = None,
    space: Annotated[
        str | None, typer.Option(metavar="OWNER/SPACE", help="Also upload the Space app.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Hub id of a data set that the weights learned from. Repeat for more."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Hub id of the weights' licence.")] = "apache-2.0",
    package: Annotated[
        str, typer.Option(help="What pip installs to get this package, in card and Space.")
    ] = f"{LIBRARY}=={__version__}",
    staging: Annotated[Path, typer.Option(help="Folder for what is uploaded; made anew.")] = Path(
        "runs/hub_card"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the folder, upload nothing.")
    ] = False,
) -> None:
    """Upload weights with a card that says what they are, and optionally a Space."""
    for name in (repo_id, *([space] if space else [])):
        if not is_hub_id(name):
            raise ValueError(f'Expected a hub id "owner/name", got {name!r}')
    model = stage_model(_directory(directory), staging / "model")
    card = make_card(
        model,
        evaluation or [],
        repo_id=repo_id,
        licence=licence,
        package=package,
        space=space or "",
        datasets=dataset or [],
    )
    files = sorted(path.name for path in model.iterdir())
    (model / CARD).write_text(card)
    if dry_run:
        _tell(f"Would upload to {repo_id} (branch {revision or 'main'}):", model)
        typer.echo("The card was checked offline; the hub's own validator runs before an upload.")
        if space:
            where = stage_space(staging / "space", repo_id, LATER, package, files=files)
            _tell(f"Would upload to the Space {space}, with {repo_id} pinned:", where)
        return
    try:
        ModelCard(card).validate()  # asks the hub
        commit = upload(
            model, repo_id, private=private, revision=revision, commit_message="Weights and card"
        )
        typer.echo(f'Uploaded: FuScore.from_pretrained("{repo_id}", revision="{commit}")')
        if space:
            where = stage_space(staging / "space", repo_id, commit, package, files=files)
            upload_space(where, space, weights=repo_id, commit=commit, private=private)
            typer.echo(f"Uploaded: https://huggingface.co/spaces/{space}")
    except (HTTPError, OSError) as error:
        raise CheckpointError(explain(error, repo_id, revision, upload=True)) from error


def stage_model(directory: Path, target: Path) -> Path:
    """Bring what may be uploaded of a checkpoint into a folder of its own.

    Files are linked, not copied, where the file system can: weights may be large. Pickles, code and
    subdirectories stay behind.

    Args:
        directory: The checkpoint; it is not changed.
        target: Made anew.

    Raises:
        ValueError: The target is inside the checkpoint, or the other way round.
    """
    ours, theirs = target.resolve(), directory.resolve()
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise ValueError(f"Expected --staging apart from the checkpoint, got {str(target)!r}")
    _make_anew(target)
    for path in sorted(directory.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in HUB_PATTERNS):
            _link(path.resolve(), target / path.name)
    return target


def stage_space(target: Path, repo_id: str, commit: str, package: str, *, files: list[str]) -> Path:
    """Write the Space's files, with the weights pinned to a commit.

    Args:
        target: Made anew.
        repo_id: Model repository with the weights.
        commit: Its commit.
        package: What pip installs to get this package.
        files: What the Space needs of the model repository.
    """
    _make_anew(target)
    for pattern in SPACE_PATTERNS:
        for path in sorted(SPACE.glob(pattern)):
            shutil.copy2(path, target / path.name)
    requirements = (target / "requirements.txt").read_text()
    (target / "requirements.txt").write_text(requirements.replace(LIBRARY, package, 1))
    card = SpaceCard((SPACE / CARD).read_text())
    card.data["models"] = [repo_id]
    # Fetched when the Space is built; without it the first visitor would wait for the download.
    card.data["preload_from_hub"] = [f"{repo_id} {','.join(files)} {commit}"]
    card.save(target / CARD)
    return target


def upload_space(
    folder: Path, space: str, *, weights: str, commit: str, private: bool = False
) -> None:
    """Make the Space if need be, tell it which weights to show, and upload its files.

    Args:
        folder: From `stage_space`.
        space: "owner/space".
        weights: Model repository.
        commit: Its commit.
        private: Whether a new Space is private.
    """
    api = HfApi()
    api.create_repo(space, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    # Variables first: the upload starts a build, which should find them.
    for key, value in (("FUSCORE_MODEL", weights), ("FUSCORE_REVISION", commit)):
        api.add_space_variable(space, key, value)
    api.upload_folder(
        repo_id=space,
        folder_path=folder,
        repo_type="space",
        commit_message=f"Show {weights} at {commit[:8]}",
        allow_patterns=list(SPACE_PATTERNS),
    )


def _directory(name: str) -> Path:
    if name == EMBEDDED:
        from fuscore_metric.checkpoints.locate import locate

        return locate(EMBEDDED)
    path = Path(name)
    if not path.is_dir():
        raise CheckpointError(f'Expected a checkpoint directory or "{EMBEDDED}", got {name!r}')
    return path


def _make_anew(folder: Path) -> None:
    if folder.is_dir():
        if any(path.is_dir() for path in folder.iterdir()):  # never ours, which are flat
            raise ValueError(f"Expected --staging to be ours to empty, got {str(folder)!r}")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _tell(title: str, folder: Path) -> None:
    typer.echo(title)
    for path in sorted(folder.iterdir()):
        typer.echo(f"  {path}  {path.stat().st_size:,} bytes")


def run() -> None:
    """Run the command; bad input becomes one line on stderr and exit status 2."""
    try:
        app()
    except ValueError as error:
        typer.echo(f"upload.py: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    run()
