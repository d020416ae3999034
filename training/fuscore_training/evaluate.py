"""Predicted and target scores -> how well they agree, with intervals over scenes."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import sparse, stats

from fuscore_metric.model import FuScore
from fuscore_metric.prompts import build_prompt
from fuscore_metric.scoring import predict
from fuscore_training.ratings import RatingsError, RatingsTable

Array = NDArray[Any]
MIN_POINTS, MIN_SCENES = 3, 2  # two points always correlate to +-1; one scene is no mean
SPECIAL_SCENES = ("scenes_too_small", "scenes_constant_targets", "scenes_constant_predictions")
ROWS_AT_ONCE = 64
"""Rows whose images are held in memory at a time."""
_GAP_TOLERANCE = 1e-9  # so that 3.3 - 2.8 counts as a gap of 0.5


@dataclass(frozen=True)
class Statistic:
    """One number with its bootstrap interval.

    Attributes:
        value: In [-1, 1] ([0, 1] for pairwise accuracy), higher is better; NaN if undefined.
        low, high: Ends of the interval; NaN if undefined.
        count: What `value` is taken over, in `unit`.
        unit: "rows", "scenes", "methods" or "pairs".
        reason: Why the value or the interval is undefined; empty if both are defined.
    """

    value: float
    low: float
    high: float
    count: int
    unit: str
    reason: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Agreement of predictions with targets, as `evaluate` finds it.

    Correlations of fewer than 3 points or of a constant are undefined. Intervals are percentiles
    over resamples of whole scenes with replacement, without those that leave a value undefined.

    Attributes:
        srcc: Spearman's rank correlation over all rows.
        plcc: Pearson's, plain: no logistic curve is fitted first, as papers often do.
        krcc: Kendall's tau-b.
        within_srcc: Mean over scenes of the correlation inside each. Left out are scenes of fewer
            than 3 rows (`scenes_too_small`) and those with `scenes_constant_targets`. Those with
            `scenes_constant_predictions` count as 0: not telling methods apart must not pay.
        within_krcc: Likewise with tau-b.
        method_srcc: Spearman between mean predictions and mean targets of the methods that are in
            at least 2 scenes; it is fair as far as those methods are in the same scenes.
        pairwise_accuracy: Share of pairs within a scene (targets different, `min_gap` or more
            apart) that predictions order rightly, ties half; pooled, so large scenes weigh more.
        counts: Of rows, scenes, methods and `SPECIAL_SCENES`; `settings` are the options given.
    """

    srcc: Statistic
    plcc: Statistic
    krcc: Statistic
    within_srcc: Statistic
    within_krcc: Statistic
    method_srcc: Statistic
    pairwise_accuracy: Statistic
    counts: dict[str, int]
    settings: dict[str, float]

    def statistics(self) -> dict[str, Statistic]:
        """Return the statistics by name, in the order of the fields."""
        return {name: one for name, one in vars(self).items() if isinstance(one, Statistic)}

    def to_json(self) -> str:
        """Return every field as JSON; an undefined number is null and its `reason` tells why."""
        content = asdict(self)
        for one in (content[name] for name in self.statistics()):
            one.update({key: None for key in ("value", "low", "high") if math.isnan(one[key])})
        return json.dumps(content, indent=2, allow_nan=False)

    def to_table(self) -> str:
        """Return a Markdown table that also reads well as plain text, and a line of counts."""
        ends = f"{100 * self.settings['confidence']:g} % interval"
        table = Table("statistic", "value", ends, "over", "note", box=box.MARKDOWN)
        for name, one in self.statistics().items():
            value = "-" if math.isnan(one.value) else f"{one.value:.3f}"
            interval = "-" if math.isnan(one.low) else f"{one.low:.3f} to {one.high:.3f}"
            table.add_row(name, value, interval, f"{one.count} {one.unit}", one.reason)
        text = io.StringIO()
        Console(file=text, width=200, color_system=None, force_jupyter=False).print(table)
        counts = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"{text.getvalue().strip()}\n\n{counts.replace('_', ' ')}"


def evaluate(
    predictions: ArrayLike,
    targets: ArrayLike,
    scenes: Iterable[Hashable],
    methods: Iterable[Hashable],
    *,
    n_boot: int = 1000,
    confidence: float = 0.95,
    min_gap: float = 0.0,
    seed: int = 0,
) -> Evaluation:
    """Compare predicted with target scores (any scale, higher is better in both).

    Args:
        predictions: (N,) finite.
        targets: (N,) finite.
        scenes: (N,) scene id of each row.
        methods: (N,) method name of each row.
        n_boot: Number of resamples; 0 for no intervals.
        confidence: Coverage of the intervals, in (0, 1).
        min_gap: Least target difference of a pair, in target units, >= 0.
        seed: Seed of the resampling, >= 0.

    Raises:
        ValueError: Sizes differ or are 0, a score is not finite, an id is missing, or an option is
            out of range.
    """
    if n_boot < 0 or not 0 < confidence < 1 or not 0 <= min_gap < math.inf:
        got = f"{n_boot}, {confidence} and {min_gap}"
        raise ValueError(f"Expected n_boot >= 0, confidence in (0, 1), min_gap >= 0, got {got}")
    ids = {"scenes": scenes, "methods": methods}
    data = _checked({"predictions": predictions, "targets": targets}, ids)
    inside = _inside_scenes(data, min_gap)
    measures = _overall_measures(data) | _scene_measures(inside) | _method_measures(data)
    n = len(inside)
    # A resample is how often it holds each scene, (n_boot, S): no rows are copied.
    draws = np.random.default_rng(seed).multinomial(n, [1 / n] * n, n_boot).astype(float)
    found = {name: _statistic(measure, draws, confidence) for name, measure in measures.items()}
    counts = {"rows": len(data["scenes"]), "scenes": n, "methods": len(set(data["methods"]))}
    counts |= {name: int(inside[name].sum()) for name in SPECIAL_SCENES}
    settings = {"n_boot": n_boot, "confidence": confidence, "min_gap": min_gap, "seed": seed}
    return Evaluation(**found, counts=counts, settings=settings)


class _Measure(NamedTuple):
    value_for: Callable[[Array], float]  # copies of each scene (S,) -> the statistic, or NaN
    total: int  # what it is taken over, in `unit`
    unit: str
    undefined: str  # why, if the value for one copy of each scene is NaN


def _checked(scores: dict[str, ArrayLike], ids: dict[str, Iterable[Hashable]]) -> dict[str, Array]:
    """Return all by name as arrays (N,), ids as numbers from 0."""
    columns = {name: pd.Series(np.asarray(values, float)) for name, values in scores.items()}
    columns |= {name: pd.Series(list(values)) for name, values in ids.items()}
    sizes = [len(column) for column in columns.values()]
    if len(set(sizes)) > 1 or not sizes[0]:
        raise ValueError(f"Expected as many {', '.join(columns)}, at least 1, got {sizes}")
    for name, column in columns.items():
        bad = np.flatnonzero(column.isna() | column.isin([math.inf, -math.inf]))
        if bad.size:
            got = f"{column[bad[0]]} at index {bad[0]} ({bad.size} such values)"
            raise ValueError(f"Expected {name} without NaN, inf and gaps, got {got}")
    codes = {name: pd.factorize(columns[name])[0] for name in ids}
    return codes | {name: columns[name].to_numpy() for name in scores}


def _statistic(measure: _Measure, draws: Array, confidence: float) -> Statistic:
    """Take the value, and the interval over `draws` (n_boot, S), copies of each scene."""
    n_boot, n_scenes = draws.shape
    value, low, high, reason = measure.value_for(np.ones(n_scenes)), math.nan, math.nan, ""
    if math.isnan(value):
        return Statistic(value, low, high, measure.total, measure.unit, measure.undefined)
    values = [drawn for drawn in map(measure.value_for, draws) if not math.isnan(drawn)]
    if n_scenes == 1 or 2 * len(values) < max(n_boot, 1):
        reason = f"no interval: {n_scenes} scenes, defined in {len(values)}/{n_boot} resamples"
    else:
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Statistic(value, low, high, measure.total, measure.unit, reason)


def _overall_measures(data: dict[str, Array]) -> dict[str, _Measure]:
    x, y, scene = data["predictions"], data["targets"], data["scenes"]
    x_codes, y_codes, x_unit, y_unit = _codes(x), _codes(y), _unit(x), _unit(y)
    over = (len(x), "rows", _flaw(x, y, "rows"))
    return {
        "srcc": _Measure(lambda copies: _spearman(x_codes, y_codes, copies[scene]), *over),
        "plcc": _Measure(lambda copies: _pearson(x_unit, y_unit, copies[scene]), *over),
        "krcc": _Measure(lambda copies: _kendall(x_codes, y_codes, copies[scene]), *over),
    }


def _inside_scenes(data: dict[str, Array], min_gap: float) -> pd.DataFrame:
    """Measure inside each scene: one line per scene, NaN for an undefined correlation."""
    lines = []
    ends = np.cumsum(np.bincount(data["scenes"]))
    for rows in np.split(np.argsort(data["scenes"], kind="stable"), ends[:-1]):
        x, y, copies = _codes(data["predictions"][rows]), data["targets"][rows], np.ones(len(rows))
        gap = y[:, None] - y  # (n, n)
        counted = (gap > 0) & (gap >= min_gap - _GAP_TOLERANCE)  # each pair once
        enough, varied = len(rows) >= MIN_POINTS, gap.any()
        line = {
            "within_srcc": _spearman(x, _codes(y), copies),
            "within_krcc": _kendall(x, _codes(y), copies),
            "right": (0.5 + 0.5 * np.sign(x[:, None] - x))[counted].sum(),
            "pairs": counted.sum(),
            "scenes_too_small": not enough,
            "scenes_constant_targets": enough and not varied,
            "scenes_constant_predictions": enough and varied and not x.any(),
        }
        lines.append(line)
    return pd.DataFrame(lines)


def _scene_measures(inside: pd.DataFrame) -> dict[str, _Measure]:
    columns = {name: column.to_numpy(float) for name, column in inside.items()}
    usable = 1 - columns["scenes_too_small"] - columns["scenes_constant_targets"]
    flat = columns["scenes_constant_predictions"]
    undefined = "constant predictions" if flat.any() else "no scene of 3 rows with varied targets"
    over = (int(usable.sum()), "scenes", undefined)
    weights = usable * (usable > flat).any()
    measures = {
        # A correlation that is undefined for constant predictions counts as 0.
        name: _Measure(partial(_ratio, np.nan_to_num(columns[name]), weights), *over)
        for name in ("within_srcc", "within_krcc")
    }
    accuracy, pairs = partial(_ratio, columns["right"], columns["pairs"]), columns["pairs"].sum()
    no_pair = "no pair within a scene with targets far enough apart"
    return measures | {"pairwise_accuracy": _Measure(accuracy, int(pairs), "pairs", no_pair)}


def _method_measures(data: dict[str, Array]) -> dict[str, _Measure]:
    places = (data["methods"], data["scenes"])
    columns = (np.ones(len(places[0])), _unit(data["predictions"]), _unit(data["targets"]))
    rows, *sums = (sparse.coo_array((x, places)).tocsr() for x in columns)  # each (M, S)

    present = rows > 0

    def means(copies: Array) -> list[Array]:
        kept = present @ copies >= MIN_SCENES
        # Rounded, since sums in another order differ in the last bit and equal means must tie.
        return [((part @ copies)[kept] / (rows @ copies)[kept]).round(12) for part in sums]

    def value_for(copies: Array) -> float:
        x, y = map(_codes, means(copies))
        return _spearman(x, y, np.ones(len(x)))

    x, y = means(np.ones(rows.shape[1]))
    undefined = _flaw(x, y, f"methods in {MIN_SCENES} scenes")
    return {"method_srcc": _Measure(value_for, len(x), "methods", undefined)}


def _ratio(numerators: Array, denominators: Array, copies: Array) -> float:
    total = float(copies @ denominators)
    return float(copies @ numerators) / total if total > 0 else math.nan


def _flaw(x: Array, y: Array, unit: str = "points") -> str:
    """The reason why x and y (N,) have no correlation; empty if they have one."""
    if len(x) < MIN_POINTS:
        return f"fewer than {MIN_POINTS} {unit}"
    flat = [name for name, z in (("predictions", x), ("targets", y)) if z.min() == z.max()]
    return f"constant {' and '.join(flat)}" if flat else ""


def _codes(x: Array) -> Array:
    """Return the place of each value among the distinct ones: same order and ties, from 0."""
    return np.unique(x, return_inverse=True)[1]


def _unit(x: Array) -> Array:
    """Scale by a power of two, which is exact, into [-1, 1], so that no square overflows."""
    return np.ldexp(x, -int(np.frexp(np.abs(x).max())[1]))


def _pearson(x: Array, y: Array, copies: Array) -> float:
    """Correlate x and y (N,), each point taken `copies` (N,) times."""
    if _flaw(x[copies > 0], y[copies > 0]):
        return math.nan
    dx, dy = (z - copies @ z / copies.sum() for z in (x, y))
    spread = math.sqrt(copies @ dx**2) * math.sqrt(copies @ dy**2)
    return min(1.0, max(-1.0, float(copies @ (dx * dy)) / spread)) if spread > 0 else math.nan


def _spearman(x: Array, y: Array, copies: Array) -> float:
    """Correlate the mean ranks of codes x and y (N,) in the sample of `copies` (N,) of each."""
    ranks = [np.cumsum(n) - (n - 1) / 2 for n in (np.bincount(z, copies) for z in (x, y))]
    return _pearson(ranks[0][x], ranks[1][y], copies)


def _kendall(x: Array, y: Array, copies: Array) -> float:
    if _flaw(x[copies > 0], y[copies > 0]):
        return math.nan
    rows = np.repeat(np.arange(len(x)), copies.astype(int))
    return float(stats.kendalltau(x[rows], y[rows], method="asymptotic").statistic)


def evaluate_model(
    table: RatingsTable,
    weights: str = "embedded",
    *,
    held_out: bool = False,
    aspect: str = "overall",
    batch_size: int = 8,
) -> Evaluation:
    """Score every triple of a table and compare with its ratings.

    Args:
        table: Ratings.
        weights: "embedded", a checkpoint directory, or a hub id.
        held_out: Keep only the scenes that the weights' `fuscore.json` lists as held out.
        aspect: What to ask for, and the column to compare with.
        batch_size: Triples computed at once.

    Raises:
        RatingsError: The table has no ratings of the aspect, or no scene is left.
    """
    build_prompt(aspect)
    if aspect not in table.frame:
        raise RatingsError(f"Expected ratings with a column {aspect!r}, got none")
    model = FuScore.from_pretrained(weights)
    frame = table.frame
    if held_out:
        frame = frame[frame["scene"].isin(model.spec.metrics.get("held_out_scenes", []))]
    if frame.empty:
        raise RatingsError(
            f"Expected a row of a scene that is held out from {model.spec.name}, got none"
        )
    scores: list[float] = []
    for start in range(0, len(frame), ROWS_AT_ONCE):
        part = frame.iloc[start : start + ROWS_AT_ONCE]
        triples = (part[name].tolist() for name in ("ir", "vis", "fused"))
        scores += predict(
            *triples, model=model, aspect=aspect, batch_size=batch_size
        ).score.tolist()
    return evaluate(scores, frame[aspect], frame["scene"], frame["method"])
