"""Rows of every scene -> what each trick gains, what its labels say of it, what the guard leaves.

Means are over scenes, intervals 95 % percentiles over resampled scenes. "Best strength" is what a
cheat would do: try all strengths on every picture, keep the best, and keep the original if none
helps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fuscore_metric.leaderboard.markup import markdown_table
from fuscore_metric.prompts import ASPECTS

MEASURES = ("Qabf", "VIF", "SSIM", "Nabf")
IMAGE = ["scene", "method"]
NOTICED = 0.05
"""Rises of less are not counted."""
RESAMPLES = 2000
GUARDS = {"charge": "trust region", "charge_ref": "trust region with a reference"}

Summary = dict[str, Any]


def read_rows(folder: Path) -> pd.DataFrame:
    """All rows of one part."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        return pd.DataFrame()
    rows = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    return rows.fillna({"trick": "", "variant": ""})


def guard_table(rows: pd.DataFrame) -> str:
    """Gains of attackers who know the guard, by how near it holds them to the reference."""
    cells = [
        [f"{radius:g}", str(ball), *(_with_interval(interval(part, c)) for c in ("score", "left"))]
        for (radius, ball), part in rows.groupby(["reference_radius", "ball"])
    ]
    head = ["reference_radius", "ball", "score", "score less what is charged more"]
    return f"{rows['scene'].nunique()} scenes\n\n{markdown_table(head, cells)}"


def changes(rows: pd.DataFrame, pool: pd.DataFrame) -> pd.DataFrame:
    """Tricked rows, every number as its change from the untouched fusion.

    Args:
        rows: Of one part.
        pool: Rows of all untouched fusions, for the places gained.
    """
    numbers = [c for c in rows.columns if c not in (*IMAGE, "trick", "variant", "moved")]
    untouched = rows[rows["trick"] == ""].set_index(IMAGE)[numbers]
    tricked = rows[rows["trick"] != ""].reset_index(drop=True)
    before = untouched.loc[pd.MultiIndex.from_frame(tricked[IMAGE])].reset_index(drop=True)
    found = tricked.copy()
    found[numbers] = tricked[numbers].to_numpy() - before.to_numpy()
    if "overall" in numbers:
        for charge in GUARDS:
            # A charge that the untouched fusion paid and the trick saves is no gain of the trick.
            found[f"reward_{charge}"] = found["overall"] - found[charge].clip(lower=0)
        found["places"] = places(tricked, before["overall"], pool)
    return found


def places(tricked: pd.DataFrame, before: pd.Series, pool: pd.DataFrame) -> list[int]:
    """How many of its scene's other methods a picture overtakes; negative if it falls."""
    others = {scene: part.set_index("method")["overall"] for scene, part in pool.groupby("scene")}
    gained = []
    for number, row in enumerate(tricked.to_dict("records")):
        scores = others[row["scene"]].drop(row["method"])
        gained.append(int((scores >= before[number]).sum() - (scores >= row["overall"]).sum()))
    return gained


def chosen(found: pd.DataFrame, by: str = "overall") -> pd.DataFrame:
    """For every picture the strength with the highest `by`, all changes 0 if none helps."""
    best = found.loc[found.groupby(IMAGE)[by].idxmax()].copy()
    numbers = best.columns.difference([*IMAGE, "trick", "trick_of", "variant"])
    best.loc[best[by] <= 0, numbers] = 0
    return best


def interval(found: pd.DataFrame, column: str) -> dict[str, float]:
    """Mean over scenes and its 95 % interval."""
    means = found.groupby("scene")[column].mean().to_numpy()
    draws = np.random.default_rng(0).integers(len(means), size=(RESAMPLES, len(means)))
    low, high = np.percentile(means[draws].mean(1), [2.5, 97.5])
    return {"mean": float(means.mean()), "low": float(low), "high": float(high)}


def mean(found: pd.DataFrame, column: str) -> float:
    """Mean over scenes."""
    return float(found.groupby("scene")[column].mean().mean())


def gains(found: pd.DataFrame) -> Summary:
    """What one set of tricked pictures, one of each fusion, gained."""
    return {
        "score": interval(found, "overall"),
        "rise": float((found["overall"] > NOTICED).mean()),
        "largest": float(found["overall"].max()),
        "places": mean(found, "places"),
        "std": mean(found, "std"),
        "aspects": {name: mean(found, name) for name in ASPECTS},
    }


def label_gains(found: pd.DataFrame, labels: pd.DataFrame) -> Summary:
    """What the labels and other measures say of the same pictures, where they were measured.

    Pictures that are left as they are change nothing.
    """
    keys = [*IMAGE, "variant"]
    there = found[[*keys, "overall"]].merge(labels[IMAGE].drop_duplicates(), on=IMAGE)
    columns = ["rating", *MEASURES]
    both = there.merge(labels[keys + columns], on=keys, how="left")
    both.loc[both["overall"] <= 0, columns] = 0
    alone = (both["overall"] > NOTICED) & (both["rating"] <= 0)
    return {
        "score of these": mean(both, "overall"),
        "rating": interval(both, "rating"),
        "rises alone": float(alone.mean()),
        **{name: mean(both, name) for name in MEASURES},
    }


def trick_results(found: pd.DataFrame, labels: pd.DataFrame) -> dict[str, Summary]:
    """By trick: the best strength for each picture, every strength for all, and the guards."""
    found = pd.concat([found, found.assign(trick="any of these")], ignore_index=True)
    found["variant"] = found["trick_of"] + ": " + found["variant"]
    labels = labels.assign(variant=labels["trick"] + ": " + labels["variant"])
    results = {}
    for trick, part in found.groupby("trick", sort=False):
        best = chosen(part)
        one: Summary = {"best": gains(best) | label_gains(best, labels)}
        for charge in GUARDS:
            by = f"reward_{charge}"
            one[f"best {by}"] = interval(chosen(part, by), by)
        if trick != "any of these":
            one["strengths"] = {
                str(variant).split(": ", 1)[1]: gains(rows) | _label_means(str(variant), labels)
                for variant, rows in part.groupby("variant", sort=False)
            }
        results[str(trick)] = one
    return results


def _label_means(variant: str, labels: pd.DataFrame) -> Summary:
    rows = labels[labels["variant"] == variant]
    return {name: mean(rows, name) for name in ("rating", *MEASURES)}


def attack_results(rows: pd.DataFrame, found: pd.DataFrame) -> dict[str, Summary]:
    """By climb: gains, and what JPEG, a shift and a mean over shifts leave of them."""
    results = {}
    for variant, part in found.groupby("variant", sort=False):
        one = gains(part)
        for name in ("rating", *MEASURES, "after JPEG", "after a shift", "mean of shifts"):
            one[name] = interval(part, name) if name == "rating" else mean(part, name)
        one["rises alone"] = float(((part["overall"] > NOTICED) & (part["rating"] <= 0)).mean())
        for charge in GUARDS:
            one[f"reward_{charge}"] = interval(part, f"reward_{charge}")
        one["moved"] = mean(rows[rows["variant"] == variant], "moved")
        results[str(variant)] = one
    return results


def summarise(folder: Path) -> Summary:
    """All that a run's folder holds."""
    tricks, attacks, labels = (
        read_rows(folder / part) for part in ("tricks", "adversarial", "labels")
    )
    pool = tricks[tricks["trick"] == ""]
    found = changes(tricks, pool)
    found = found.assign(trick_of=found["trick"])
    summary: Summary = {
        "scenes": int(tricks["scene"].nunique()),
        "fusions": int(found[IMAGE].drop_duplicates().shape[0]),
        "fusions a scene": float(pool.groupby("scene").size().mean()),
        "rated scenes": int(labels["scene"].nunique()),
        "tricks": trick_results(found, changes(labels, pool)),
    }
    attacks = attacks[attacks["scene"].isin(pool["scene"])] if len(attacks) else attacks
    if len(attacks):
        summary["attacked scenes"] = int(attacks["scene"].nunique())
        attacked = pool[pool["scene"].isin(attacks["scene"])]
        summary["fusions an attacked scene"] = float(attacked.groupby("scene").size().mean())
        summary["attacked score"] = mean(attacks[attacks["trick"] == ""], "overall")
        summary["adversarial"] = attack_results(attacks, changes(attacks, pool))
    return summary


def tables(summary: Summary) -> str:
    """The best strengths and the attack, as Markdown."""
    parts = [_best_table(summary["tricks"])]
    if "adversarial" in summary:
        parts.append(_attack_table(summary["adversarial"]))
    head = (
        f"{summary['scenes']} scenes, {summary['fusions']} fusions; "
        f"{summary['fusions a scene']:.1f} fusions a scene to be ranked among; "
        f"one fusion rated in {summary['rated scenes']} scenes; "
        f"{summary.get('attacked scenes', 0)} scenes attacked by gradient, among "
        f"{summary.get('fusions an attacked scene', 0):.1f} fusions, from a score of "
        f"{summary.get('attacked score', 0):.2f}.\n"
    )
    return "\n\n".join([head, *parts]) + "\n"


def _best_table(tricks: dict[str, Summary]) -> str:
    rows = []
    for name, one in tricks.items():
        best = one["best"]
        rows.append(
            [
                name,
                _with_interval(best["score"]),
                f"{best['rise']:.0%}",
                f"{best['largest']:+.2f}",
                f"{best['places']:+.1f}",
                f"{best['score of these']:+.3f}",
                _with_interval(best["rating"]),
                f"{best['rises alone']:.0%}",
                *(f"{best[m]:+.3f}" for m in MEASURES),
                f"{best['std']:+.3f}",
                *(f"{one[f'best reward_{charge}']['mean']:+.3f}" for charge in GUARDS),
            ]
        )
    head = ["trick, best strength for each picture", "score", "rise > 0.05", "largest", "places"]
    head += [
        "score, where rated",
        "proxy rating",
        "score alone rises",
        *MEASURES,
        "std",
        *GUARDS.values(),
    ]
    return markdown_table(head, rows)


def _attack_table(attacks: dict[str, Summary]) -> str:
    rows = [
        [
            name,
            _with_interval(one["score"]),
            f"{one['rise']:.0%}",
            f"{one['largest']:+.2f}",
            f"{one['places']:+.1f}",
            _with_interval(one["rating"]),
            *(f"{one[m]:+.3f}" for m in MEASURES),
            f"{one['std']:+.3f}",
            *(f"{one[k]:+.3f}" for k in ("after JPEG", "after a shift", "mean of shifts")),
            *(f"{one[f'reward_{charge}']['mean']:+.3f}" for charge in GUARDS),
        ]
        for name, one in attacks.items()
    ]
    head = ["attack by gradient", "score", "rise > 0.05", "largest", "places", "proxy rating"]
    head += [*MEASURES, "std", "after JPEG 90", "after a shift", "mean of 4 shifts"]
    return markdown_table([*head, *GUARDS.values()], rows)


def strength_table(tricks: dict[str, Summary]) -> str:
    """Every strength of every trick, on all pictures, as Markdown."""
    rows = [
        [
            name,
            strength,
            _with_interval(one["score"]),
            f"{one['rise']:.0%}",
            f"{one['largest']:+.2f}",
            f"{one['places']:+.1f}",
            *(f"{one['aspects'][aspect]:+.2f}" for aspect in ASPECTS[1:]),
            f"{one['std']:+.2f}",
            f"{one['rating']:+.2f}",
            *(f"{one[m]:+.3f}" for m in MEASURES),
        ]
        for name, trick in tricks.items()
        for strength, one in trick.get("strengths", {}).items()
    ]
    head = ["trick", "strength", "score", "rise > 0.05", "largest", "places", *ASPECTS[1:], "std"]
    return markdown_table([*head, "proxy rating", *MEASURES], rows)


def _with_interval(one: dict[str, float]) -> str:
    return f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
