"""What a run was made with: all that must be the same for its rows to belong to one table."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from importlib.metadata import version
from typing import Any

from typing_extensions import Self

from fuscore_metric import __version__
from fuscore_metric.checkpoints.locate import Checkpoint, fingerprint
from fuscore_metric.checkpoints.spec import FuScoreSpec
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
        source: The weights as they were asked for: "embedded", a directory, a hub id; empty for a
            model that was in memory.
        weights: Name of the weights.
        weights_hash: "sha256:..." over their files, and over the adapter's, if there is one;
            "state:..." over the tensors of a model that was in memory.
        family: Model family.
        label_kind: What they were trained on; only people's ratings are "human".
        labels: The same in words.
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
        label_history: How the labels came to be.
        measures: Classic measures that rows have, or those of them that were asked for.
        measures_convention: Whose formulas they are; empty where there are none.
        measures_colour: How colour images were measured; empty where there are none.
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
    label_history: str = ""
    measures: list[str] = field(default_factory=list)
    measures_convention: str = ""
    measures_colour: str = ""
    format_version: int = FORMAT_VERSION

    def differences(self, other: RunSettings) -> list[str]:
        """List the settings that make numbers of two runs differ: "aspect overall, was sharpness".

        Not among them are device, batch size and library versions: they move scores by rounding.
        """
        names = (*DEFINING, *(MEASURING if self.measures and other.measures else ()))
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return [f"{name} {ours}, was {theirs}" for name, ours, theirs in pairs if ours != theirs]

    def with_measures_of(self, other: RunSettings) -> Self:
        """The same with the measures of another run, which has no `differences`, behind its own."""
        if not other.measures:
            return self
        both = list(dict.fromkeys([*self.measures, *other.measures]))
        return replace(self, measures=both, **{name: getattr(other, name) for name in MEASURING})

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is something else.
        """
        content = json.loads(text)
        if isinstance(content, dict):
            content = BEFORE | content  # older runs do not have them
        known = {f.name for f in fields(cls)}
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            raise ValueError("Expected the settings of a run")
        if set(content) != known:
            raise ValueError(f"Expected settings {sorted(known)}, got {sorted(content)}")
        names = content["measures"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"Expected names of measures, got {names!r}")
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
MEASURING = ("measures_convention", "measures_colour")
"""The same for classic measures."""
BEFORE: dict[str, Any] = {
    "thermal_range": None,
    "label_history": "",
    "measures": [],
    "measures_convention": "",
    "measures_colour": "",
}
"""Settings that older runs do not have, and what they stand for there."""


def weights_hash(found: Checkpoint) -> str:
    """Identify weights, and their adapter if there is one, by content."""
    directories = [found.weights] if found.adapter is None else [found.weights, found.adapter]
    return "+".join(fingerprint(directory) for directory in directories)


def describe(spec: FuScoreSpec, **given: Any) -> RunSettings:
    """Record what scores are made with.

    Args:
        spec: The description of the weights.
        **given: The other fields of `RunSettings`.
    """
    return RunSettings(
        weights=spec.name,
        family=spec.family,
        label_kind=spec.label_kind,
        labels=spec.label_statement(),
        label_history=spec.label_description.rstrip("."),
        temperature=spec.temperature,
        **given,
    )
