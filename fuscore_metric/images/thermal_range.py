"""The range of infrared images in counts or degrees; imports nothing, so that options are quick."""

import math
from typing import TypeAlias

ThermalRange: TypeAlias = tuple[float, float]


def check_thermal_range(thermal_range: ThermalRange | None) -> None:
    """Check the option of that name.

    Raises:
        ValueError: It is neither None nor two finite numbers, the lower one first.
    """
    if thermal_range is None:
        return
    try:
        low, high = (float(limit) for limit in thermal_range)
        sound = low < high and math.isfinite(high - low)
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(
            f"Expected `thermal_range` as (low, high) with low < high, got {thermal_range!r}"
        )
