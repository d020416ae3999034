"""What a run was made with: all that must be the same for its rows to belong to one table."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from importlib.metadata import version
from typing import Any

from typing_extensions import Self

from fuscore_metric import __version__
from fuscore_metric.locate import Checkpoint, fingerprint
from fuscore_metric.prompts import PROMPT_VERSION

FORMAT_VERSION = 1
PACKAGES = ("torch", "transformers", "safetensors", "pillow", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a score depends on."""
    ours = {"python": platform.python_version(), "fuscore-metric": __version__}
    return ours | {name: version(name) for name in PACKAGES}


@dataclass(frozen=True)
class RunSettings:
    """What a table's scores were made with.

    Attributes:
        source: The weights as they were asked for: "embedded", a directory, a hub id.
        weights: Name of the weights.
        weights_hash: "sha256:..." over their files, and over the adapter's, if there is one.
        family: Model family.
        label_kind: What they were trained on; only people's ratings are "human".
        labels: The same in words, and how the labels came to be.
        temperature: Of P(a better than b).
        aspect: What was asked for; "all" for every aspect.
        dtype: Floating dtype of the weights.
        ir: Folder of the infrared images, or the manifest.
        vis: Folder of the visible images, or the manifest.
        device: Where it was computed.
        batch_size: Triples computed at once.
        revision: Hub revision, if one was given.
        thermal_range: What is black and white of `ir`, if it was given, in counts or degrees.
        prompt_version: Version of the question's text.
        package: Version of this package.
        versions: Of what the scores depend on.
        command: The command line.
        started: ISO time with its zone.
        format_version: Of this record.
    """

    source: str
    weights: str
    weights_hash: str
    family: str
    label_kind: str
    labels: str
    temperature: float
    aspect: str
    dtype: str
    ir: str
    vis: str
    device: str
    batch_size: int
    revision: str | None = None
    thermal_range: list[float] | None = None
    prompt_version: int = PROMPT_VERSION
    package: str = __version__
    versions: dict[str, str] = field(default_factory=versions)
    command: str = field(default_factory=lambda: shlex.join(["fuscore", *sys.argv[1:]]))
    started: str = field(
        default_factory=lambda: datetime.now().astimezone().isoformat("T", "seconds")
    )
    format_version: int = FORMAT_VERSION

    def differences(self, other: RunSettings) -> list[str]:
        """Say what makes scores of another run other scores: "aspect overall, was sharpness".

        Not among them are device, batch size and library versions: they move scores by rounding.
        """
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in DEFINING)
        return [f"{name} {ours}, was {theirs}" for name, ours, theirs in pairs if ours != theirs]

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is not that.
        """
        content = json.loads(text)
        if isinstance(content, dict):
            content.setdefault("thermal_range", None)  # runs of before it was there
        known = {f.name for f in fields(cls)}
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            raise ValueError("Expected the settings of a run")
        if set(content) != known:
            raise ValueError(f"Expected settings {sorted(known)}, got {sorted(content)}")
        return cls(**content)


DEFINING = (
    "weights",
    "weights_hash",
    "temperature",
    "prompt_version",
    "package",
    "aspect",
    "dtype",
    "ir",
    "vis",
    "thermal_range",
)
"""The settings that define a table's scores; a run goes on only where all of them are the same."""


def weights_hash(found: Checkpoint) -> str:
    """Identify weights, and their adapter if there is one, by content."""
    directories = [found.weights] if found.adapter is None else [found.weights, found.adapter]
    return "+".join(fingerprint(directory) for directory in directories)


def describe(found: Checkpoint, *, dtype: str, device: str, **given: Any) -> RunSettings:
    """Record what a checkpoint scores with.

    Args:
        found: Where its weights were found.
        dtype: Floating dtype of the weights.
        device: Where it is computed.
        **given: `source`, `aspect`, `ir`, `vis`, `batch_size`, `revision`, `thermal_range` of
            `RunSettings`.
    """
    spec = found.spec
    return RunSettings(
        weights=spec.name,
        weights_hash=weights_hash(found),
        family=spec.family,
        label_kind=spec.label_kind,
        labels=spec.full_label_statement(),
        temperature=spec.temperature,
        dtype=dtype,
        device=device,
        **given,
    )
