"""All measures by name, and the evaluators whose numbers they can be made to equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from fuscore_metric.measures.formulas import (
    correlation,
    edges,
    errors,
    features,
    fidelity,
    information,
    perception,
    piella_yang,
    ssim,
    statistics,
)
from fuscore_metric.measures.kinds import Compute, Measure

FAMILIES = (
    information,
    statistics,
    correlation,
    errors,
    fidelity,
    edges,
    ssim,
    piella_yang,
    perception,
    features,
)

MEASURES: Mapping[str, Measure] = {
    measure.name: measure for family in FAMILIES for measure in family.MEASURES
}
"""In the order in which tables print them."""

PAPER = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM", "Nabf")
"""What the table of a fusion paper usually has."""

SETS: Mapping[str, tuple[str, ...]] = {"paper": PAPER, "all": tuple(MEASURES)}


@dataclass(frozen=True)
class Convention:
    """An evaluator whose numbers differ from the definitions.

    Attributes:
        name: Of the evaluator.
        computes: Its formula of each measure that it has.
        colour: "luma", or "channels" for the mean over red, green and blue.
        side_by_side: Measures that it takes of the three channels as one image, thrice as wide.
    """

    name: str
    computes: Mapping[str, Compute] = field(repr=False)
    colour: str = "luma"
    side_by_side: Set[str] = frozenset()


def _convention(
    name: str, has: str, colour: str = "luma", side_by_side: Set[str] = frozenset()
) -> Convention:
    """What the families say of an evaluator, and the definition where they say nothing.

    Args:
        name: Of the evaluator.
        has: Its measures, of which those that are not in `MEASURES` are left out.
        colour: As in `Convention`.
        side_by_side: As in `Convention`.
    """
    own = {key: one for family in FAMILIES for key, one in family.PUBLISHED.get(name, {}).items()}
    computes = {one: own.get(one, MEASURES[one].compute) for one in has.split() if one in MEASURES}
    return Convention(name, computes, colour, side_by_side)


STANDARD = _convention("standard", " ".join(MEASURES))
VIFB = _convention(
    "vifb",
    "AG CE EI EN MI PSNR Qabf Qcb Qcv RMSE SF SSIM SD",
    colour="channels",
    side_by_side={"SF"},
)
TANG = _convention(
    "tang",
    "EN SF SD PSNR MSE MI VIF AG CC SCD Qabf Nabf SSIM FMI_wavelet",
)
TANG2022 = _convention("tang2022", "EN SF SD PSNR MSE MI VIF AG CC SCD Qabf")
CDDFUSE = _convention("cddfuse", "EN SD SF AG MI MSE CC PSNR SCD VIF Qabf SSIM")

CONVENTIONS: Mapping[str, Convention] = {
    one.name: one for one in (STANDARD, VIFB, TANG, TANG2022, CDDFUSE)
}
"""The definitions, VIFB's toolbox, Linfeng Tang's MATLAB code of today and that of his survey's
table of TNO, and the evaluator of CDDFuse, which other networks come with."""


def chosen(names: str | Sequence[str], convention: str = STANDARD.name) -> tuple[str, ...]:
    """Names of measures, in the order asked for.

    Args:
        names: "paper", "all", one name, several with commas between them, or a sequence of names.
        convention: One of `CONVENTIONS`; of "paper" and "all" those that it has are meant.

    Raises:
        ValueError: There is no such measure, or no such convention, or it lacks the measure.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"Expected `convention` of {', '.join(CONVENTIONS)}, got {convention!r}")
    known = CONVENTIONS[convention].computes
    if isinstance(names, str) and names in SETS:
        return tuple(name for name in SETS[names] if name in known)
    asked = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    by_lower = {name.lower(): name for name in known}
    for name in asked:
        if name.lower() not in by_lower:
            raise ValueError(
                f"Expected measures of {', '.join((*SETS, *known))}, got {name!r}"
                + ("" if convention == STANDARD.name else f" (convention {convention!r})")
            )
    return tuple(dict.fromkeys(by_lower[name.lower()] for name in asked))
