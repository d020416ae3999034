"""Benchmarks, run in the repository's root: `python -m benchmarks.NAME`.

A regular package, so that no other one of this name comes before it.
"""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
EXAMPLE = REPOSITORY / "fuscore_metric" / "assets" / "example"
