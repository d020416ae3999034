"""How good would a person find this infrared-visible fusion? From 1 (bad) to 5 (excellent).

    import fuscore_metric
    fuscore_metric.score("ir.png", "vis.png", "fused.png")  # tensor([3.9])

Call first:

- `score(ir, vis, fused)`: the scores. `predict`: with standard deviations and level probabilities.
- `rank(ir, vis, candidates)`: many fused images of one scene, in order.
- `show(ir, vis, fused)`: a figure, with the places where the score was lost.
- `measure(ir, vis, fused)`: the classic measures of fusion, such as EN, MI, Qabf and SSIM.
- `preference(a, b)`: how probably a person prefers one to another, of what `predict` returned.

Images are files, PIL images, arrays, tensors, or lists of them. For more:

- `FuScore.from_pretrained(...)` loads other weights; `model=` of all of the above takes it.
- `FuScoreReward`, `FuScoreLoss`, `TrustRegion` train fusion networks.
- `InputError` and `CheckpointError` are raised for images and weights that cannot be used.

`help(fuscore_metric.score)` describes all options; the command `fuscore` does the same for files.
"""

# Importing this package loads neither torch nor transformers; the first use of a name does.

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fuscore_metric.integrations import _pyiqa_hook

if TYPE_CHECKING:
    from fuscore_metric.checkpoints.spec import FuScoreSpec
    from fuscore_metric.drawing.plots import show
    from fuscore_metric.errors import CheckpointError, InputError
    from fuscore_metric.images.convert import as_images
    from fuscore_metric.measures.measure import measure
    from fuscore_metric.model import FuScore
    from fuscore_metric.outputs import FuScoreOutput
    from fuscore_metric.ranking import Ranking, preference, rank
    from fuscore_metric.reward import FuScoreLoss, FuScoreReward
    from fuscore_metric.runs.evaluation import Evaluation, evaluate
    from fuscore_metric.scoring import predict, score
    from fuscore_metric.trust_region import TrustRegion

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Evaluation",
    "FuScore",
    "FuScoreLoss",
    "FuScoreOutput",
    "FuScoreReward",
    "FuScoreSpec",
    "InputError",
    "Ranking",
    "TrustRegion",
    "as_images",
    "evaluate",
    "measure",
    "predict",
    "preference",
    "rank",
    "score",
    "show",
]

_HOMES = {
    "CheckpointError": "errors",
    "Evaluation": "runs.evaluation",
    "FuScore": "model",
    "FuScoreLoss": "reward",
    "FuScoreOutput": "outputs",
    "FuScoreReward": "reward",
    "FuScoreSpec": "checkpoints.spec",
    "InputError": "errors",
    "Ranking": "ranking",
    "TrustRegion": "trust_region",
    "as_images": "images.convert",
    "evaluate": "runs.evaluation",
    "measure": "measures.measure",
    "predict": "scoring",
    "preference": "ranking",
    "rank": "ranking",
    "score": "scoring",
    "show": "drawing.plots",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


_pyiqa_hook.install()
