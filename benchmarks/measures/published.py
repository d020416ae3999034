"""Published values of the classic measures, computed again.

    python -m benchmarks.measures.published

For each measure of VIFB's and TNO's tables: how many values the matching convention gives again,
and how far the definition that `fuscore_metric.measure` has by default orders fusions as the
published values do. Writes `published.json` and `published.md`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from fuscore_metric import measure
from fuscore_metric.measures.catalogue import CONVENTIONS, STANDARD

KEYS = ["scene", "method", "measure"]
VIFB_NAMES = {
    "Avg_gradient": "AG",
    "Cross_entropy": "CE",
    "Edge_intensity": "EI",
    "Entropy": "EN",
    "Mutinf": "MI",
    "Psnr": "PSNR",
    "Rmse": "RMSE",
    "Spatial_frequency": "SF",
    "Ssim": "SSIM",
    "Variance": "SD",
}


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        convention: What gives its numbers.
        names: Its names of measures that are called otherwise here.
    """

    convention: str
    names: Mapping[str, str] = field(default_factory=dict)


TABLES = MappingProxyType({"VIFB": Table("vifb", VIFB_NAMES), "TNO": Table("tang2022")})


@dataclass(frozen=True)
class Agreement:
    """How far published values of a measure are met.

    Attributes:
        table: Where they were published.
        measure: By its name here.
        values: How many there are for files that we have.
        reproduced: How many the convention gives to 3 decimals, or to 5 digits if these are fewer.
        median: The median difference between the convention and them.
        largest: The largest.
        others: Methods of which not all values are reproduced.
        srcc: Spearman's correlation of the definition with them, over all scenes and methods.
    """

    table: str
    measure: str
    values: int
    reproduced: int
    median: float
    largest: float
    others: Sequence[str]
    srcc: float


def published(folder: Path, table: Table) -> pd.DataFrame:
    """Read published values: columns of `KEYS`, and value."""
    found = pd.read_csv(folder / "published_metrics" / "per_image.csv", dtype={0: str})
    found.columns = pd.Index([*KEYS, "value"])
    return found.assign(measure=found["measure"].replace(dict(table.names)))


def computed(
    folder: Path, scene: str, methods: Sequence[str], names: Sequence[str], convention: str
) -> pd.DataFrame:
    """Measure fusions of a scene: columns of `KEYS`, and value."""
    ir, vis, *fused = (
        _only(folder.glob(f"{place}/{scene}.*"))
        for place in ("ir", "vis", *(f"fused/{method}" for method in methods))
    )
    values = measure(ir, vis, fused, names=names, convention=convention)
    rows = [
        (scene, method, name, float(value))
        for name, column in values.items()
        for method, value in zip(methods, column, strict=True)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "value"])


def _only(paths: Iterable[Path]) -> Path:
    (path,) = paths
    return path


def compare(folder: Path, table: Table, scene: str, methods: Sequence[str]) -> pd.DataFrame:
    """Put published and computed values of a scene side by side.

    Returns:
        Columns of `KEYS`, and value, convention and definition, of the measures that the convention
        has.
    """
    found = published(folder, table)
    names = [one for one in CONVENTIONS[table.convention].computes if one in set(found["measure"])]
    for column, convention in (("convention", table.convention), ("definition", STANDARD.name)):
        ours = computed(folder, scene, methods, names, convention)
        found = found.merge(ours.rename(columns={"value": column}), on=KEYS)
    return found


def compare_all(folder: Path, table: Table) -> pd.DataFrame:
    """Do so for all scenes and methods that we have."""
    known = set(published(folder, table)["method"])
    fused = [path for path in folder.glob("fused/*/*") if path.parent.name in known]
    methods: dict[str, list[str]] = defaultdict(list)
    for path in sorted(fused):
        methods[path.stem].append(path.parent.name)
    parts = [compare(folder, table, *one) for one in sorted(methods.items())]
    return pd.concat(parts, ignore_index=True)


def agreement(name: str, compared: pd.DataFrame) -> list[Agreement]:
    """Sum up by measure what `compare` found."""
    found = []
    by_measure = dict(iter(compared.groupby("measure")))
    for measured in CONVENTIONS[TABLES[name].convention].computes:
        if measured not in by_measure:
            continue
        rows = by_measure[measured]
        value = rows["value"].to_numpy()
        apart = np.abs(value - rows["convention"].to_numpy())
        # Half a unit of the fifth digit, which is the last that VIFB prints.
        printed = 0.5 * 10.0 ** (np.floor(np.log10(np.abs(value) + 1e-300)) - 4)
        reproduced = apart <= np.maximum(0.0005, printed) * (1 + 1e-6)
        found.append(
            Agreement(
                table=name,
                measure=measured,
                values=len(rows),
                reproduced=int(reproduced.sum()),
                median=float(np.median(apart)),
                largest=float(apart.max()),
                others=sorted(set(rows["method"][~reproduced])),
                srcc=float(spearmanr(rows["definition"], value).statistic),
            )
        )
    return found


def page(found: Sequence[Agreement]) -> str:
    """Markdown."""
    lines = [
        "# Published values, computed again",
        "",
        "`python -m benchmarks.measures.published` wrote this page, from all fused images that we",
        "have and that values were published for. Reproduced: to 3 decimals, or to the 5 digits",
        "that VIFB prints if these are fewer. The last column compares the definition, which",
        "`fuscore_metric.measure` has by default, with the published values.",
        "",
        "| table | convention | measure | values | reproduced | not those of | median difference | "
        "largest difference | SRCC of the definition |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.table} | {TABLES[one.table].convention} | {one.measure} | {one.values} | "
        f"{one.reproduced} | {_few(one.others)} | {one.median:.1e} | {one.largest:.1e} | "
        f"{one.srcc:.3f} |"
        for one in found
    ]
    return "\n".join(lines) + "\n"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} methods"


def main() -> None:
    """Compare all tables, and write the page and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/measures"))
    given = parser.parse_args()
    found = [
        one
        for name, table in TABLES.items()
        for one in agreement(name, compare_all(given.data / name, table))
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps([asdict(one) for one in found], indent=1)
    (given.out / "published.json").write_text(numbers + "\n")
    (given.out / "published.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
