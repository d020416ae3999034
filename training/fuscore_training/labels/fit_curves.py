r"""Viewers' and people's opinions of damage -> `training/ratings/visible_change.csv`, made once.

    python -m fuscore_training.labels.fit_curves \
        training/ratings ../shared/data training/recipes/split.yaml

writes it anew, from training scenes alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fuscore_training.fusions.classic import luma
from fuscore_training.labels.change_curves import CURVES_FILE, LEAST, Curve, fit_curve, fit_hits
from fuscore_training.labels.degradations import Sources, degrade
from fuscore_training.labels.panel import read_panel
from fuscore_training.labels.proxy_ratings import read_image
from fuscore_training.labels.severity import HUMAN_KINDS
from fuscore_training.labels.visible_change import visible_change
from fuscore_training.ratings import SUB_SCORE_COLUMNS
from fuscore_training.split import read_split

BASES = 16
"""Undamaged pictures on which people's strengths are tried."""
TOGETHER = 8
"""Pictures of alike visible change whose opinions are averaged."""
TOP = 4.65
"""KADID-10k's opinion, of 5, of invisible damage: the mean of its weakest distortions."""
JPEG_STRENGTHS = (57, 64, 76, 93, 96)
"""100 - quality at KADID-10k's five levels."""
JPEG_LIKE = "kadid10k_severity.csv"
PEOPLE, VIEWERS = "people", "viewers"
Group = tuple[NDArray[np.float64], float]
"""Visible changes of some pictures, and the mean share kept."""


def fit_all(panel: pd.DataFrame, data: Path) -> dict[str, Curve]:
    """Fit every kind; people's opinions count where they were asked."""
    rated = viewers_falls(panel)
    people = dict(people_falls(panel, data))
    curves = {}
    for kind, rows in rated.groupby("kind"):
        asked = people.get(str(kind), [])
        reach = max((float(change.mean()) for change, _ in asked), default=0.0)
        place = rows["change"].rank(method="first") - 1
        alike = rows.groupby(place // TOGETHER)
        # Beyond the strengths that people rated, viewers' opinions count.
        groups = asked + [
            (part["change"].to_numpy(), float(part["kept"].mean()))
            for _, part in alike
            if part["change"].mean() > reach
        ]
        means = alike[["kept", *SUB_SCORE_COLUMNS]].mean()
        hits = fit_hits(means["kept"], means[[*SUB_SCORE_COLUMNS]].to_numpy())
        scale, power = fit_curve(*zip(*groups, strict=True))
        source = PEOPLE if kind in people else VIEWERS
        curves[str(kind)] = Curve(scale, power, hits, source)  # type: ignore[arg-type]
    return curves


def viewers_falls(panel: pd.DataFrame) -> pd.DataFrame:
    """Each damaged picture that viewers rated: kind, visible change, share kept of each score."""
    frame = panel[panel["panel"].isin(["damaged", "colour", "colour_and_targets"])]
    rows = []
    for _, group in frame.groupby(["source_pair", "base"]):
        base = group[group["kind"] == "method"].iloc[0]
        picture = read_image(Path(base["fused"]))
        for row in group[group["kind"] != "method"].to_dict("records"):
            kept = {
                name: (row[name] - 1) / max(base[name] - 1, 0.25)
                for name in ("overall", *SUB_SCORE_COLUMNS)
            }
            change = visible_change(read_image(Path(row["fused"])), picture)
            rows.append({"kind": row["kind"], "change": change, **kept})
    return pd.DataFrame(rows).rename(columns={"overall": "kept"})


def people_falls(panel: pd.DataFrame, data: Path) -> Iterator[tuple[str, list[Group]]]:
    """What people kept at published strengths, with the change that these make on our pictures."""
    bases = panel[(panel["panel"] == "damaged") & (panel["kind"] == "method")].iloc[:BASES]
    study = pd.read_csv(data / "human_severity.csv", keep_default_na=False)
    clean = study[study["distortion"] == "none"].set_index("fusion_method")["mean_opinion_0_100"]
    for kind, name in HUMAN_KINDS.items():
        told = study[study["distortion"] == name]
        groups = []
        for strength, rows in told.groupby(told["parameter"].astype(float)):
            opinions = rows["mean_opinion_0_100"].astype(float).to_numpy()
            kept = opinions / clean[rows["fusion_method"]].to_numpy(dtype=float)
            groups.append((_changes(bases, kind, strength), float(kept.mean())))
        yield kind, groups
    kadid = pd.read_csv(data / "human" / JPEG_LIKE)
    means = kadid[kadid["dis_type"] == "JPEG"].sort_values("level")["mean"]
    kept = np.clip((means.to_numpy() - 1) / (TOP - 1), LEAST, 1.0)
    yield (
        "jpeg",
        [(_changes(bases, "jpeg", s), float(k)) for s, k in zip(JPEG_STRENGTHS, kept, strict=True)],
    )


def _changes(bases: pd.DataFrame, kind: str, strength: float) -> NDArray[np.float64]:
    found = []
    for number, row in enumerate(bases.to_dict("records")):
        ir, vis, base = (read_image(Path(row[name]), name) for name in ("ir", "vis", "fused"))
        sources, rng = Sources(luma(ir), luma(vis)), np.random.default_rng(number)
        damaged = degrade(base, kind, strength, sources, rng) / 255.0
        found.append(visible_change(damaged, base))
    return np.asarray(found)


def main(ratings: Path, data: Path, split: Path) -> None:
    """Write the curves."""
    with TemporaryDirectory() as made:
        panel = read_panel(ratings, data, Path(made)).frame
        parts = read_split(split)
        training = ~panel["scene"].isin([*parts.val, *parts.test])
        curves = fit_all(panel[training], data)
    rows = []
    for kind, curve in curves.items():
        values = asdict(curve)
        hits = dict(zip(SUB_SCORE_COLUMNS, values.pop("hits"), strict=True))
        rows.append({"kind": kind, **values, **hits})
    pd.DataFrame(rows).round(4).to_csv(ratings / CURVES_FILE, index=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
