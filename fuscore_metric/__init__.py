"""FuScore: how good would a person find this infrared-visible fusion?

    import fuscore_metric
    fuscore_metric.score("ir.png", "vis.png", "fused.png")  # tensor([3.9])

Importing this package loads neither torch nor transformers; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fuscore_metric.integrations import _pyiqa_hook

if TYPE_CHECKING:
    from fuscore_metric.checkpoint import CheckpointError, FuScoreSpec
    from fuscore_metric.images import InputError
    from fuscore_metric.levels import preference
    from fuscore_metric.model import FuScore, FuScoreOutput
    from fuscore_metric.ranking import Ranking, rank
    from fuscore_metric.reward import FuScoreLoss, FuScoreReward
    from fuscore_metric.scoring import predict, score
    from fuscore_metric.trust_region import TrustRegion

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "FuScore",
    "FuScoreLoss",
    "FuScoreOutput",
    "FuScoreReward",
    "FuScoreSpec",
    "InputError",
    "Ranking",
    "TrustRegion",
    "predict",
    "preference",
    "rank",
    "score",
]

_HOMES = {
    "CheckpointError": "checkpoint",
    "FuScore": "model",
    "FuScoreLoss": "reward",
    "FuScoreOutput": "model",
    "FuScoreReward": "reward",
    "FuScoreSpec": "checkpoint",
    "InputError": "images",
    "Ranking": "ranking",
    "TrustRegion": "trust_region",
    "preference": "levels",
    "predict": "scoring",
    "rank": "ranking",
    "score": "scoring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


_pyiqa_hook.install()
