"""Evaluation JSON, of `fuscore.json` or of `fuscore-train evaluate --out` -> named results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from fuscore_metric.prompts import ASPECTS

RATINGS = {
    "proxy": "proxy ratings",
    "human": "human ratings",
    "model": "ratings by a multimodal LLM",
    "": "ratings of unstated kind",
}
"""What the agreement is with, by label kind. In every title, so that none is taken for another."""

STATISTICS = {
    "srcc": ("SRCC", "spearmanr"),
    "plcc": ("PLCC", "pearsonr"),
    "krcc": ("KRCC", "kendalltau"),
    "within_srcc": ("mean SRCC within a scene", "spearmanr"),
    "within_krcc": ("mean KRCC within a scene", "kendalltau"),
    "method_srcc": ("SRCC of method means", "spearmanr"),
    "pairwise_accuracy": ("pairs of a scene ordered rightly", "accuracy"),
}
"""Fields of `fuscore_training.evaluate.Evaluation`: title, and id of the metric on the hub."""

TASK = "image-text-to-text"
_PREFIX = "held_out_"
_SUBSETS = {
    "": "held-out scenes",
    "undamaged": "held-out scenes, undamaged fusions",
    "held_out_methods": "held-out scenes, unseen methods",
    "undamaged_held_out_methods": "held-out scenes, undamaged fusions of unseen methods",
}


@dataclass(frozen=True)
class Results:
    """Agreement of one set of scores with one set of ratings.

    Attributes:
        name: What was rated, in words.
        kind: Label kind of the ratings, a key of `RATINGS`.
        key: Tells this set from others in the model index.
        content: The evaluation as JSON holds it: statistics by name, `counts`, `settings`.
    """

    name: str
    kind: str
    key: str
    content: Mapping[str, Any]

    @property
    def ratings(self) -> str:
        """What the scores agree with, in words."""
        return RATINGS[self.kind]

    def cell(self, statistic: str) -> str:
        """Value and interval to three digits; "-" if undefined."""
        one = self.content.get(statistic) or {}
        value, low, high = (_defined(one.get(key)) for key in ("value", "low", "high"))
        if value is None:
            return "-"
        return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")

    def aspect_cell(self, aspect: str) -> str:
        """SRCC of an aspect's scores with the ratings of that aspect; "-" if undefined."""
        value = _defined((self.content.get("aspect_srcc") or {}).get(aspect))
        return "-" if value is None else f"{value:.3f}"

    def size(self) -> str:
        """Rows and scenes, in words."""
        counts = self.content.get("counts") or {}
        return ", ".join(
            f"{counts[name]:,} {name}" for name in ("rows", "scenes") if name in counts
        )

    def interval(self) -> str:
        """What the brackets are, in words."""
        settings = self.content.get("settings") or {}
        if not settings.get("n_boot"):
            return ""
        share = f"{100 * settings['confidence']:g} %"
        return f"{share} of {settings['n_boot']:g} resamples of whole scenes"

    def eval_results(self) -> list[EvalResult]:
        """The defined statistics as entries of the model index, unrounded."""
        found = []
        for name, (title, metric) in STATISTICS.items():
            value = _defined((self.content.get(name) or {}).get("value"))
            if value is None:
                continue
            found.append(
                EvalResult(
                    task_type=TASK,
                    task_name=f"Infrared-visible fusion quality: agreement with {self.ratings}",
                    dataset_type=f"fuscore-{self.kind or 'unstated'}-ratings",
                    dataset_name=f"{self.name[:1].upper()}{self.name[1:]} ({self.ratings})",
                    dataset_config=self.key,
                    metric_type=metric,
                    metric_value=value,
                    metric_name=f"{title}, against {self.ratings}",
                )
            )
        return found


def _defined(number: float | None) -> float | None:
    """JSON has null or NaN for what is undefined."""
    return None if number is None or math.isnan(number) else number


def recorded(metrics: Mapping[str, Any]) -> list[Results]:
    """Find the evaluations in `metrics` of `fuscore.json`, in the order of the file."""
    found = []
    for key, content in metrics.items():
        if isinstance(content, Mapping) and isinstance(content.get("srcc"), Mapping):
            kind, name = _meaning(key)
            found.append(Results(name, kind, key, content))
    return found


def _meaning(key: str) -> tuple[str, str]:
    """`held_out_proxy_undamaged` -> its label kind, and the set in words."""
    rest = key.removeprefix(_PREFIX)
    kind, _, subset = rest.partition("_")
    if rest == key or kind not in RATINGS:
        return "", key.replace("_", " ")
    return kind, _SUBSETS.get(subset, f"held-out scenes, {subset.replace('_', ' ')}")


def read_evaluations(entries: Iterable[str | Path]) -> list[Results]:
    """Read files of `fuscore-train evaluate --out`.

    Args:
        entries: Paths, each as `KIND:PATH`, where KIND says whose ratings they were: proxy, human
            or model. A plain path will do if the JSON has a key `label_kind`.

    Raises:
        ValueError: A file is no evaluation, or nothing says whose ratings it was compared with.
    """
    return [_read(str(entry)) for entry in entries]


def _read(entry: str) -> Results:
    kind, separator, rest = entry.partition(":")
    path = Path(rest if separator and kind in RATINGS else entry)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected evaluation JSON in {str(path)!r}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("srcc"), dict):
        raise ValueError(f"Expected an evaluation of `fuscore-train evaluate` in {str(path)!r}")
    if not (separator and kind in RATINGS):
        kind = content.get("label_kind", "")
    if not kind or kind not in RATINGS:
        raise ValueError(
            f"Expected whose ratings {str(path)!r} was compared with: write it as proxy:{path}, "
            f"human:{path} or model:{path}"
        )
    return Results(path.stem.replace("_", " "), kind, path.stem, content)


def table(results: list[Results]) -> str:
    """Write a Markdown table: a column for each set, a row for each statistic."""
    if not results:
        return ""
    rows = [
        ["", *(one.name for one in results)],
        ["---"] * (len(results) + 1),
        ["compared with", *(f"**{one.ratings}**" for one in results)],
        ["over", *(one.size() for one in results)],
    ]
    for name, (title, _) in STATISTICS.items():
        rows.append([title, *(one.cell(name) for one in results)])
    for aspect in ASPECTS:
        rows.append([f"SRCC, {aspect} alone", *(one.aspect_cell(aspect) for one in results)])
    rows = [row for row in rows if set(row[1:]) != {"-"}]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
