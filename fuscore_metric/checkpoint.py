"""Where weights come from: the embedded checkpoint, a directory or a hub id; and `fuscore.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from fuscore_metric.backbones import FAMILIES
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS, PROMPT_VERSION

SPEC_FILE = "fuscore.json"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""1 had no `temperature`."""
EMBEDDED = "embedded"

LabelKind = Literal["proxy", "human", "model", "none"]
LABEL_MEANING: dict[str, str] = {
    "proxy": "PROXY ratings (classic measures and known degradations), not human ones",
    "human": "human ratings",
    "model": "ratings given by another model",
    "none": "no ratings: these weights are untrained or zero-shot",
}

HUB_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What is downloaded: never pickles, never code."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read or trusted; the message says why, in one line."""


@dataclass(frozen=True)
class FuScoreSpec:
    """All that defines a score beside the weights; stored as `fuscore.json`.

    Attributes:
        name: Name of the weights, for people.
        family: Model family, a key of `fuscore_metric.backbones.FAMILIES`.
        preprocessing: Defines the pixels-to-tokens path; its keys are the family's.
        label_kind: What the weights were trained on; only people's ratings are "human".
        label_description: How the labels came to be.
        prompt_version: Version of the question's text.
        level_words: Answer words, worst first.
        aspects: Aspects that the weights were trained to answer for.
        base: Origin of pretrained parts: id, revision, licence.
        data: Names of the data sets that the weights saw.
        temperature: T of P(a better than b) = Phi((s_a - s_b) / (T sqrt(v_a + v_b))), fitted on
            validation scenes; > 0. Changes no score and no std.
        metrics: Results on held-out data, as measured by the training code.
        code_revision: Revision of the code that made the weights.
        created: ISO date.
        format_version: Version of this file's layout.
    """

    name: str
    family: str
    preprocessing: dict[str, Any]
    label_kind: LabelKind
    label_description: str = ""
    prompt_version: int = PROMPT_VERSION
    level_words: tuple[str, ...] = LEVEL_WORDS
    aspects: tuple[str, ...] = ASPECTS
    base: list[dict[str, str]] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    temperature: float = 1.0
    metrics: dict[str, Any] = field(default_factory=dict)
    code_revision: str = "unknown"
    created: str = ""
    format_version: int = FORMAT_VERSION

    def label_statement(self) -> str:
        """What the scores of these weights stand on, in words for every user to see."""
        return f"trained on {LABEL_MEANING[self.label_kind]}"

    def save(self, directory: Path) -> None:
        """Write `fuscore.json` into a checkpoint directory."""
        (directory / SPEC_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_spec(directory: Path) -> FuScoreSpec:
    """Read and check `fuscore.json`.

    Raises:
        CheckpointError: The file is missing, malformed, of a newer format, or describes scores
            that this version of the code cannot reproduce.
    """
    path = directory / SPEC_FILE
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        where = repr(str(directory))
        raise CheckpointError(f"Expected a checkpoint with {SPEC_FILE}, none in {where}") from error
    except ValueError as error:
        raise CheckpointError(f"Expected JSON in {str(path)!r}: {error}") from error
    return _checked(content, path)


def _checked(content: Any, path: Path) -> FuScoreSpec:
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected an object in {str(path)!r}, got {type(content).__name__}")
    version = content.get("format_version", FORMAT_VERSION)
    if version not in READABLE_VERSIONS:
        raise CheckpointError(
            f"Expected format version up to {FORMAT_VERSION} in {str(path)!r}, got {version}: "
            "a newer fuscore-metric may read it"
        )
    content["format_version"] = FORMAT_VERSION
    if unknown := sorted(set(content) - {f.name for f in fields(FuScoreSpec)}):
        raise CheckpointError(f"Unknown keys in {str(path)!r}: {', '.join(unknown)}")
    if missing := sorted({"name", "family", "preprocessing", "label_kind"} - set(content)):
        raise CheckpointError(f"Missing keys in {str(path)!r}: {', '.join(missing)}")
    for name in ("level_words", "aspects"):
        content[name] = tuple(content.get(name, getattr(FuScoreSpec, name)))
    spec = FuScoreSpec(**content)
    _check_reproducible(spec, path)
    return spec


def _check_reproducible(spec: FuScoreSpec, path: Path) -> None:
    if spec.family not in FAMILIES:
        raise CheckpointError(
            f"Expected `family` in {', '.join(FAMILIES)} in {str(path)!r}, got {spec.family!r}"
        )
    if spec.label_kind not in LABEL_MEANING:
        kinds = ", ".join(LABEL_MEANING)
        raise CheckpointError(
            f"Expected `label_kind` in {kinds} in {str(path)!r}, got {spec.label_kind!r}"
        )
    number = isinstance(spec.temperature, (int, float)) and not isinstance(spec.temperature, bool)
    if not (number and 0 < spec.temperature < math.inf):
        raise CheckpointError(
            f"Expected `temperature` to be a number above 0 in {str(path)!r}, "
            f"got {spec.temperature!r}"
        )
    for name, ours in (("prompt_version", PROMPT_VERSION), ("level_words", LEVEL_WORDS)):
        theirs = getattr(spec, name)
        if theirs != ours:
            raise CheckpointError(
                f"Expected `{name}` {ours} in {str(path)!r}, got {theirs}: "
                "these weights were trained for another question"
            )


def locate(
    name_or_path: str, *, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """Find the directory of a checkpoint, downloading it from the hub if need be.

    Args:
        name_or_path: "embedded", a directory, or a hub id "owner/name".
        revision: Hub revision; a commit hash pins the score.
        local_files_only: Never download.

    Raises:
        CheckpointError: Nothing of that name can be had.
    """
    if name_or_path == EMBEDDED:
        return Path(str(files("fuscore_metric") / "assets" / EMBEDDED))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"Expected a checkpoint directory, got the file {name_or_path!r}")
    if name_or_path.count("/") != 1 or name_or_path.startswith((".", "/", "~")):
        raise CheckpointError(
            f'Expected weights to be "{EMBEDDED}", a directory or a hub id, got {name_or_path!r}'
        )
    return _download(name_or_path, revision, local_files_only)


def _download(hub_id: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=HUB_PATTERNS,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"No checkpoint {hub_id!r} here or on the hub: {reason}") from error
    return Path(folder)
