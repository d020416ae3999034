"""A results table -> which method is better, by how much, and how surely; and how to print that.

Importing this package loads neither pandas nor scipy; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuscore_metric.leaderboard.comparison import Comparison, compare
    from fuscore_metric.leaderboard.statistics import Leaderboard, MethodSummary, leaderboard

__all__ = ["Comparison", "Leaderboard", "MethodSummary", "compare", "leaderboard"]

_HOMES = {
    "Comparison": "comparison",
    "Leaderboard": "statistics",
    "MethodSummary": "statistics",
    "compare": "comparison",
    "leaderboard": "statistics",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
