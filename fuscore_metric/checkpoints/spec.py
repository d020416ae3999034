"""`fuscore.json`: all that defines a score beside the weights, and what they were trained on."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fuscore_metric.backbones import FAMILIES
from fuscore_metric.checkpoints.fields import complaints
from fuscore_metric.checkpoints.strict_json import read_json, readable, short
from fuscore_metric.errors import CheckpointError
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS, PROMPT_VERSION

SPEC_FILE = "fuscore.json"
FORMAT_VERSION = 4
READABLE_VERSIONS = (1, 2, 3, 4)
"""1 had no `temperature`, 2 no `weights`, `base_model` and `base_revision`, 3 no
`training_pairs`."""
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
EMBEDDED = "embedded"
FINGERPRINT = "sha256:"
"""How a revision begins that is the content of a directory's weights."""
MAX_SPEC_BYTES = 4_000_000
COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HUB_ID = re.compile(f"{_PART}/{_PART}")

LabelKind = Literal["proxy", "human", "model", "none"]
WeightsKind = Literal["full", "merged", "adapter"]
WEIGHTS_KINDS: tuple[WeightsKind, ...] = get_args(WeightsKind)
LABEL_MEANING: dict[str, str] = {
    "proxy": "PROXY ratings (classic measures and known degradations), not human ones",
    "human": "human ratings",
    "model": "MODEL ratings (a multimodal LLM looked at the pictures), not human ones",
    "none": "no ratings: these weights are untrained or zero-shot",
}


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
        weights: What the directory holds: all weights ("full"), all weights with an adapter
            merged into them ("merged"), or an adapter alone ("adapter"), which needs `base_model`.
        base_model: Hub id or directory of the model that was fine-tuned; empty if there was none.
        base_revision: Its commit on the hub, or "sha256:..." over the files of a directory.
        base: Origin of further pretrained parts: id, revision, licence.
        data: Names of the data sets that the weights were trained on.
        training_pairs: Hashes of the source pairs that the weights learned from, see
            `fuscore_metric.checkpoints.learned`; empty where that is not known.
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
    weights: WeightsKind = "full"
    base_model: str = ""
    base_revision: str = ""
    base: list[dict[str, str]] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    training_pairs: list[str] = field(default_factory=list, repr=False)
    temperature: float = 1.0
    metrics: dict[str, Any] = field(default_factory=dict)
    code_revision: str = "unknown"
    created: str = ""
    format_version: int = FORMAT_VERSION

    def __repr__(self) -> str:
        return f"FuScoreSpec({self.name}, {self.family}, label_kind={self.label_kind!r}, ...)"

    def label_statement(self) -> str:
        """What the weights were trained on, in words that every user is shown."""
        return f"trained on {LABEL_MEANING[self.label_kind]}"

    def full_label_statement(self) -> str:
        """The label statement and how the labels came to be; without the last full stop."""
        return f"{self.label_statement()}. {self.label_description}".rstrip(". ")

    def short_card(self, repo_id: str) -> str:
        """A few lines for the README.md of a hub repository (Markdown with YAML front matter)."""
        lines = ["---", "library_name: fuscore-metric", "tags: [image-fusion, image-quality]"]
        if base_is_on_hub(self):
            relation = "adapter" if self.weights == "adapter" else "finetune"
            lines += [f"base_model: {self.base_model}", f"base_model_relation: {relation}"]
        return "\n".join(
            [
                *lines,
                "---",
                f"# {self.name}",
                "Scores the fusion of an infrared and a visible image, 1 (bad) to 5 (excellent).",
                "",
                f"**These weights were {self.label_statement()}.** {self.label_description}",
                "",
                "```python",
                "from fuscore_metric import FuScore, score",
                "",
                f'model = FuScore.from_pretrained("{repo_id}")',
                'score("ir.png", "vis.png", "fused.png", model=model)',
                "```",
                "",
            ]
        )

    def save(self, directory: Path) -> None:
        """Write `fuscore.json` into a checkpoint directory."""
        (directory / SPEC_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def replace_checkpoint(new: Path, target: Path) -> None:
    """Move a finished checkpoint's files to where an earlier one may be.

    Weights of the earlier one go: an adapter left beside whole weights would be added to them.

    Args:
        new: Directory that holds the checkpoint and nothing else, on the file system of `target`.
        target: Directory; other files in it stay.
    """
    names = {path.name for path in new.iterdir()}
    earlier = {path.name for path in target.glob("*.safetensors*")} | {ADAPTER_CONFIG}
    # What describes the weights comes last: until then the old description is there.
    for name in sorted(names, key=lambda name: name == SPEC_FILE):
        os.replace(new / name, target / name)
    for name in earlier - names:
        (target / name).unlink(missing_ok=True)


def is_hub_id(name: str) -> bool:
    """Whether a name can only be a hub id "owner/name": no path leads up or to the root."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def base_is_on_hub(spec: FuScoreSpec) -> bool:
    """Whether the base model is named by a hub id."""
    # "models/qwen" may be a directory: then the revision is a fingerprint of its files.
    return is_hub_id(spec.base_model) and not spec.base_revision.startswith(FINGERPRINT)


def read_spec(directory: Path) -> FuScoreSpec:
    """Read and check `fuscore.json`.

    It may come from anybody: every value is of its kind and in its range, and no text holds
    control characters. Whether `label_kind` is true cannot be checked.

    Raises:
        CheckpointError: The file is missing, malformed, of a newer format, or describes scores
            that this version of the code cannot reproduce. One line: file, key, expected, got.
    """
    path = directory / SPEC_FILE
    try:
        content = read_json(path, limit=MAX_SPEC_BYTES)
    except OSError as error:
        where = repr(str(directory))
        raise CheckpointError(f"Expected a checkpoint with {SPEC_FILE}, none in {where}") from error
    except ValueError as error:
        raise CheckpointError(f"Expected JSON in {str(path)!r}: {error}") from error
    return _checked(content, path)


def _checked(content: Any, path: Path) -> FuScoreSpec:
    where = repr(str(path))
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected an object in {where}, got {type(content).__name__}")
    version = content.get("format_version", FORMAT_VERSION)
    if type(version) is not int or version not in READABLE_VERSIONS:
        newer = type(version) is int and version > FORMAT_VERSION
        advice = ": a newer fuscore-metric may read it, upgrade the package" if newer else ""
        raise CheckpointError(
            f"Expected format version up to {FORMAT_VERSION} in {where}, got {short(version)}"
            + advice
        )
    content["format_version"] = FORMAT_VERSION
    if unknown := sorted(set(content) - {f.name for f in fields(FuScoreSpec)}):
        shown = [*map(readable, unknown[:5]), *(["..."] if len(unknown) > 5 else [])]
        raise CheckpointError(f"Unknown keys in {where}: {', '.join(shown)}")
    if missing := sorted({"name", "family", "preprocessing", "label_kind"} - set(content)):
        raise CheckpointError(f"Missing keys in {where}: {', '.join(missing)}")
    if wrong := next(complaints(content), ""):
        raise CheckpointError(f"{wrong} in {where}")
    for name in ("level_words", "aspects"):
        content[name] = tuple(content.get(name, getattr(FuScoreSpec, name)))
    spec = FuScoreSpec(**content)
    _check_reproducible(spec, path)
    return spec


def _check_reproducible(spec: FuScoreSpec, path: Path) -> None:
    where = repr(str(path))
    for name, known in (
        ("family", FAMILIES),
        ("label_kind", LABEL_MEANING),
        ("weights", WEIGHTS_KINDS),
    ):
        if (value := getattr(spec, name)) not in known:
            raise CheckpointError(
                f"Expected `{name}` in {', '.join(known)} in {where}, got {short(value)}"
            )
    if spec.weights == "adapter":
        _check_base(spec, where)
    for name, ours in (("prompt_version", PROMPT_VERSION), ("level_words", LEVEL_WORDS)):
        theirs = getattr(spec, name)
        if theirs != ours:
            raise CheckpointError(
                f"Expected `{name}` {ours} in {where}, got {short(theirs)}: "
                "these weights were trained for another question"
            )


def _check_base(spec: FuScoreSpec, where: str) -> None:
    if not (spec.base_model and spec.base_revision):
        raise CheckpointError(
            f"Expected `base_model` and `base_revision` in {where}: an adapter alone scores nothing"
        )
    pinned = COMMIT.fullmatch(spec.base_revision) is not None
    if pinned and spec.base_model != EMBEDDED and not is_hub_id(spec.base_model):
        raise CheckpointError(
            f'Expected `base_model` as a hub id "owner/name" in {where}, as `base_revision` is a '
            f"commit, got {short(spec.base_model)}"
        )
