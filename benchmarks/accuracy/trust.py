r"""Which measures to trust: agreement with viewers and with people -> agreement.json.

    python -m benchmarks.accuracy.trust --data ../shared/data --model embedded --out runs/viewers

The file is part of the package, `fuscore_metric/measures/agreement.json`; `trust.py` beside it
reads it.

Viewers: undamaged fusions. The classic measures learned from no rating, so all scenes of the tables
in `WHOLE` count for them; FuScore is compared on validation scenes only. Values are kept in
OUT/values, where `benchmarks.accuracy.viewers` finds them, too.

People: 27 people rated classic fusions of noisy, striped, blurred and clean sources. Their
pictures are not public; the same fusions of the same damage are made of validation scenes, and the
order of the conditions is compared: people's mean opinion, and the mean of a measure over scenes.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fuscore_training.embedded.measure_fine_tuning import SETS, study_pictures
from fuscore_training.labels.proxy_ratings import find_scenes
from fuscore_training.split import Split, read_split
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks import REPOSITORY
from benchmarks.accuracy.panel import read_panel
from benchmarks.accuracy.protocol import SPLIT, digest
from benchmarks.accuracy.results import Number, Row
from benchmarks.accuracy.triples import evenly
from benchmarks.accuracy.viewer_results import (
    DRAWS,
    MEASURES,
    UNDAMAGED,
    VIEWERS,
    agree,
    between_viewings,
    turned,
    undamaged,
)
from benchmarks.accuracy.viewers import RATINGS, classic, fuscore, measured
from fuscore_metric import FuScore
from fuscore_metric.checkpoints.locate import locate
from fuscore_metric.prompts import DEFAULT_ASPECT

WHOLE = ("fusions", "modern")
"""Tables of which all scenes count: outputs of published methods. Of the others, fusions made by
our own scripts, only validation scenes do."""
PEOPLES_SCENES = 12
"""So many validation scenes are damaged and fused as in the study of people."""
AGREEMENT = REPOSITORY / "fuscore_metric" / "measures" / "agreement.json"


def with_viewers(frame: pd.DataFrame) -> dict[str, Row]:
    """Compare the measures with viewers over all rows, FuScore and the viewings where it is known.

    Args:
        frame: What `undamaged` returns, with a column of values a measure; FuScore's is NaN where
            the weights may have seen the ratings.
    """
    tested = frame.dropna(subset="FuScore")
    rows = {VIEWERS: between_viewings(tested, DEFAULT_ASPECT)}
    return rows | {
        name: agree(frame.dropna(subset=name), name, DEFAULT_ASPECT) for name in MEASURES
    }


def with_people(frame: pd.DataFrame) -> dict[str, Number]:
    """Compare the order of the conditions, scenes drawn for the interval.

    Args:
        frame: Rows of `study_pictures`, with a column of values a measure.
    """
    opinions = frame.groupby("method")["overall"].first().to_numpy(np.float64)  # (C,)
    tables = {name: frame.pivot_table(name, "scene", "method") for name in MEASURES}
    return {name: order_srcc(one.to_numpy(np.float64), opinions) for name, one in tables.items()}


def order_srcc(values: NDArray[np.float64], opinions: NDArray[np.float64]) -> Number:
    """SRCC of the means over scenes of (S, C) values with (C,) opinions."""
    n = len(values)
    draws = np.random.default_rng(0).multinomial(n, [1 / n] * n, DRAWS)  # (DRAWS, S)
    found = [
        float(spearmanr(copies @ values, opinions).statistic) for copies in (np.ones(n), *draws)
    ]
    return Number(found[0], *map(float, np.quantile(found[1:], [0.025, 0.975])))


def peoples_pictures(data: Path, split: Split, out: Path) -> pd.DataFrame:
    """Make the study's pictures of validation scenes: rows of `study_pictures`."""
    study = pd.read_csv(data / "human_severity.csv", keep_default_na=False)
    scenes = [
        scene
        for scene in find_scenes(data)
        if scene.name in split.val and scene.name.split("/")[0] in SETS
    ]
    rows: list[dict[str, Any]] = []
    for scene in evenly(sorted(scenes, key=lambda one: one.name), PEOPLES_SCENES):
        rows += study_pictures(scene, study, out / scene.name.replace("/", "_"))
    return pd.DataFrame(rows).assign(table="people", picture=lambda frame: frame["method"])


def content(viewed: pd.DataFrame, people: pd.DataFrame, weights: dict[str, str]) -> dict[str, Any]:
    """What agreement.json holds."""
    rows, order = with_viewers(viewed), with_people(people)
    tested = viewed.dropna(subset="FuScore")
    return {
        "date": date.today().isoformat(),
        "viewers": {
            "label_kind": "model",
            "pictures": len(viewed),
            "scenes": viewed["scene"].nunique(),
            "two_viewings": {key: _rounded(rows[VIEWERS][key]) for key in ("within", "pooled")},
        },
        "people": {
            "label_kind": "human",
            "conditions": people["method"].nunique(),
            "scenes": people["scene"].nunique(),
        },
        "fuscore": weights | {"pictures": len(tested), "scenes": tested["scene"].nunique()},
        "measures": {
            name: {
                "within": _rounded(rows[name]["within"]),
                "pooled": _rounded(rows[name]["pooled"]),
                "people": _rounded(order[name]),
            }
            for name in MEASURES
        },
    }


def as_text(found: dict[str, Any]) -> str:
    """JSON with a line for each measure."""
    rows = found["measures"].items()
    measures = ",\n".join(f'"{name}": {json.dumps(row, allow_nan=False)}' for name, row in rows)
    rest = [f'"{key}": {json.dumps(value)},' for key, value in found.items() if key != "measures"]
    return "\n".join(["{", *rest, '"measures": {', measures, "}", "}"]) + "\n"


def _rounded(number: Number) -> list[float]:
    return [round(value, 4) for value in number]


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not there yet, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of real source pairs, fusions and panel")
    add("--ratings", type=Path, default=RATINGS, help="default: training/ratings")
    add("--model", default="embedded", help="embedded, a directory or a hub id")
    add("--split", type=Path, default=SPLIT, help="default: training/recipes/split.yaml")
    add("--out", type=Path, required=True, help="folder of pictures and values")
    add("--agreement", type=Path, default=AGREEMENT, help="default: the package's own file")
    options = parser.parse_args(arguments)
    split, made = read_split(options.split), options.out / "pictures"
    pictures = read_panel(options.ratings, options.data, made, split, whole=WHOLE)
    pictures = pictures[pictures["table"].isin(UNDAMAGED)]
    people = peoples_pictures(options.data, split, options.out / "people")
    weights = locate(options.model)
    checksum = digest(weights / "model.safetensors")
    model, values = FuScore.from_pretrained(weights), options.out / "values"
    learned, plain = fuscore(model), values / "classic"
    own = values / checksum[:12]
    tested = pictures[pictures["validation"]]
    frame = undamaged(
        turned(
            pictures.join(measured(pictures, classic, plain)).join(
                measured(tested, learned, own)["FuScore"]
            )
        )
    )
    shown = turned(
        people.join(measured(people, classic, plain)).join(measured(people, learned, own))
    )
    facts = {"weights": model.spec.name, "sha256": checksum}
    text = as_text(content(frame, shown, facts))
    options.agreement.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
