"""What an importer kept, skipped and noticed -> a JSON file and a summary for the command line."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class ImportReport:
    """An importer's account of every row.

    Attributes:
        source: What was imported.
        rows: Rows that were read.
        kept: Ratings that came of them.
        skipped_rows: One entry a skipped row: where it was, why, and in words what was wrong.
        notes: Choices that the importer made.
        facts: Numbers of the importer's own, by name.
    """

    source: str
    rows: int = 0
    kept: int = 0
    skipped_rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def skip(self, reason: str, detail: str = "", **where: Any) -> None:
        """Account for a row that is left out."""
        self.skipped_rows.append({**where, "reason": reason, "detail": detail})

    @property
    def skipped(self) -> dict[str, int]:
        """Number of skipped rows by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.skipped_rows).most_common())

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        content = asdict(self)
        listed = content.pop("skipped_rows")
        content |= {"skipped": self.skipped, "skipped_rows": listed}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_report(path: Path) -> ImportReport:
    """Read what `ImportReport.write` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("skipped")
    return ImportReport(**content)


def summary(report: ImportReport) -> str:
    """A few lines for people: kept and skipped rows, facts, notes."""
    lines = [f"{report.source}: {report.rows} rows read, {report.kept} ratings kept"]
    reasons = [f"{count} {reason}" for reason, count in report.skipped.items()]
    lines.append(f"skipped: {', '.join(reasons) or 'none'}")
    for name, value in report.facts.items():
        shown = value if not isinstance(value, dict) else _inline(value)
        lines.append(f"{name.replace('_', ' ')}: {shown}")
    return "\n".join(lines + [f"note: {note}" for note in report.notes])


def _inline(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {_inline(value) if isinstance(value, dict) else value}"
        for name, value in values.items()
    )
