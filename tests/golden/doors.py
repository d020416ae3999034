"""Every door to a score, for triples of `record.py`, and what is held to the golden scores."""

import numpy as np
import pytest
import torch
from PIL import Image

from fuscore_metric import FuScoreReward, rank, score
from fuscore_metric.images.convert import as_images
from fuscore_metric.prompts import ASPECTS
from fuscore_metric.results.rows import Entry
from fuscore_metric.runs.local import score_entries
from tests.golden import record

TOLERANCE = 1e-4
GOLDEN = record.load()


def check(door, triples, found, aspect="overall"):
    """Compare scores (N,) or, of all aspects, (N, A)."""
    for triple, scores in zip(triples, torch.as_tensor(found).tolist(), strict=True):
        golden = GOLDEN["triples"][triple.name]["score"]
        pairs = zip(ASPECTS, scores, strict=True) if aspect == "all" else [(aspect, scores)]
        for name, value in pairs:
            assert value == pytest.approx(golden[name], abs=TOLERANCE), (
                f"{door}: {name} of {triple.name} is {value:.6f}, golden {golden[name]:.6f}. "
                f"If it may move: {record.COMMAND}"
            )


def files(triples):
    return [[str(getattr(one, name)) for one in triples] for name in ("ir", "vis", "fused")]


def tensors(triples):
    """Batches (N, 3, H, W); the triples have one size."""
    columns = zip(*files(triples), strict=True)
    loaded = [[as_images(path, "fused")[0] for path in paths] for paths in columns]
    return [torch.stack(images) for images in zip(*loaded, strict=True)]


def of_pil(model, triples):
    return score(*([Image.open(path) for path in paths] for paths in files(triples)), model=model)


def of_arrays(model, triples):
    opened = ([np.asarray(Image.open(path)) for path in paths] for paths in files(triples))
    return score(*opened, model=model)


def of_rank(model, triples):
    ir, vis, fused = files(triples)
    return rank(ir[0], vis[0], fused, model=model).score


def of_rows(model, triples):
    entries = [Entry("s", one.name, str(one.ir), str(one.vis), str(one.fused)) for one in triples]
    rows = [r for some in score_entries(entries, model, aspects=("overall",)) for r in some]
    found = {row["method"]: row["score"] for row in rows}
    return [found[one.name] for one in triples]


def of_torchmetrics(model, triples):
    from fuscore_metric.integrations.torchmetrics import FuScoreMetric

    ir, vis, fused = tensors(triples)
    metric = FuScoreMetric(model=model, reduction="none")
    metric.update(fused, target={"ir": ir, "vis": vis})
    return metric.compute()


def of_pyiqa(model, triples):
    import pyiqa

    ir, vis, fused = tensors(triples)
    return pyiqa.create_metric("fuscore", device="cpu")(fused, ir=ir, vis=vis)


DOORS = {
    "paths": lambda model, triples: score(*files(triples), model=model),
    "PIL": of_pil,
    "numpy": of_arrays,
    "tensors": lambda model, triples: score(*tensors(triples), model=model),
    "forward": lambda model, triples: model(*tensors(triples)).score.detach(),
    "reward": lambda model, triples: FuScoreReward(model)(*tensors(triples)).detach(),
    "rank": of_rank,
    "rows": of_rows,
    "torchmetrics": of_torchmetrics,
    "pyiqa": of_pyiqa,
}
