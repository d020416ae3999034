"""What several tests share; no test file imports another."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "fuscore_metric" / "assets" / "example"
