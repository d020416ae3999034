"""Opinions of single raters on single triples -> who is credible -> mean opinions and their spread.

Pure functions on a table of opinions: columns `item` (a triple's number), `rater` and one column a
score, on 1 to 5; rows in any order, not every rater on every triple.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

PEAKED = (2.0, 4.0)
"""Kurtosis between which BT.500 takes a triple's opinions as normally distributed."""
FAR_NORMAL, FAR_OTHER = 2.0, 20.0**0.5
"""How many standard deviations from the mean an opinion is far: normally distributed, otherwise."""
MAX_FAR, MAX_ONE_SIDED = 0.05, 0.3


def rejected_by_bt500(opinions: pd.DataFrame) -> list[str]:
    r"""Raters whom the screening of ITU-R BT.500 (Annex on the analysis of results) rejects.

    For each triple with mean u, sample standard deviation S and kurtosis b = m4 / m2^2 of its
    opinions, an opinion is high if it is at least u + c S and low if at most u - c S, with c = 2 if
    2 <= b <= 4, else sqrt(20). A rater of N triples with P high and Q low opinions is rejected if
    (P + Q) / N > 0.05 and |P - Q| / (P + Q) < 0.3: erratic, not merely strict or kind. It is done
    once. None of n opinions is further than (n - 1) / sqrt(n) S from the mean: fewer than 6 raters
    never lose one, fewer than 22 never one who alone differs from others in close agreement.

    Args:
        opinions: Columns `item`, `rater` and `overall`, one opinion a row.

    Returns:
        Raters, sorted.
    """
    by_item = opinions.groupby("item")["overall"]
    away = opinions["overall"] - by_item.transform("mean")
    moments = (away**2).groupby(opinions["item"]).transform("mean")
    fourth = (away**4).groupby(opinions["item"]).transform("mean")
    deviation = by_item.transform("std")  # NaN for a single opinion, which is far from nothing
    normal = (fourth / moments.where(moments > 0) ** 2).between(*PEAKED)
    far = deviation * np.where(normal, FAR_NORMAL, FAR_OTHER)
    spread = deviation > 0
    high = (spread & (away >= far)).astype(int).groupby(opinions["rater"]).sum()
    low = (spread & (away <= -far)).astype(int).groupby(opinions["rater"]).sum()
    rated, both = opinions.groupby("rater").size(), high + low
    rejected = (both > MAX_FAR * rated) & ((high - low).abs() < MAX_ONE_SIDED * both)
    return sorted(rejected.index[rejected])


def standardised(opinions: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    """Give all raters one mean and one spread: z-scores, brought back to the scale.

    x' = m + s (x - m_r) / s_r, with m_r and s_r (population standard deviation) of the rater, m the
    mean of all opinions and s the root mean square of all s_r. It takes out that a rater is kind,
    or shy of the ends of the scale. It assumes that raters saw comparable triples: one who saw only
    good ones looks kind.

    Args:
        opinions: Columns `rater` and `scores`.
        scores: Columns to change. A rater without spread in one is only shifted.

    Returns:
        A copy; values may lie outside the scale.
    """
    result = opinions.copy()
    for score in scores:
        groups = opinions.groupby("rater")[score]
        spread = groups.transform("std", ddof=0)
        common = float(np.sqrt((spread.groupby(opinions["rater"]).first() ** 2).mean()))
        scale = (common / spread.where(spread > 0)).fillna(1.0)
        result[score] = opinions[score].mean() + scale * (
            opinions[score] - groups.transform("mean")
        )
    return result


def mean_opinions(opinions: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    """Average over raters.

    Args:
        opinions: Columns `item`, `rater` and `scores`; one row an item and rater.
        scores: Columns to average.

    Returns:
        Rows by `item`: means of `scores`; `spread`, the population standard deviation of the first
        of them between raters; `raters`, how many there were.
    """
    groups = opinions.groupby("item")
    result = groups[scores].mean()
    result["spread"] = groups[scores[0]].std(ddof=0)
    result["raters"] = groups["rater"].nunique()
    return result
