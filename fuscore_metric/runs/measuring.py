"""Which classic measures a run has beside its scores, and their numbers triple by triple.

Imports little, so that a command without measures does not import their formulas.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from typing_extensions import Self

if TYPE_CHECKING:
    import torch

    from fuscore_metric.images.doubts import Doubts
    from fuscore_metric.images.lazy import Picture

    Measured: TypeAlias = dict[str, float] | Exception
    """The measures of a triple by name, or what kept it from being measured."""


@dataclass(frozen=True)
class Measuring:
    """Which classic measures are computed, and how.

    Attributes:
        names: Of measures, each once; none where none are asked for.
        convention: Whose formulas, one of `fuscore_metric.measures.catalogue.CONVENTIONS`; empty
            where there are no names.
        colour: "luma" or "channels", as in `fuscore_metric.measure`; empty likewise.
    """

    names: tuple[str, ...] = ()
    convention: str = ""
    colour: str = ""

    @classmethod
    def of(
        cls,
        measures: str | Sequence[str] | None,
        convention: str | None = None,
        colour: str | None = None,
    ) -> Self:
        """Check what was asked for.

        Args:
            measures: As `names` of `fuscore_metric.measure`; None for none.
            convention: As in `fuscore_metric.measure`; None for the definitions.
            colour: As in `fuscore_metric.measure`.

        Raises:
            ValueError: There is no such measure, convention or colour, or no measure to apply the
                last two to.
        """
        if measures is None:
            if convention is not None or colour is not None:
                raise ValueError("Expected measures beside their convention or colour, got none")
            return cls()
        from fuscore_metric.measures.catalogue import CONVENTIONS, STANDARD, chosen
        from fuscore_metric.measures.measure import check_colour

        convention = STANDARD.name if convention is None else convention
        names = chosen(measures, convention)
        check_colour(colour)
        return cls(names, convention, colour or CONVENTIONS[convention].colour)

    def each(
        self,
        triples: Sequence[tuple[Picture, Picture, Picture]],
        *,
        device: torch.device,
        batch_size: int,
        doubts: Doubts | None = None,
    ) -> Generator[dict[int, Measured]]:
        """Measure triples batch after batch; for the arguments see `measure_each`.

        Yields:
            The measures of some triples, by their places in `triples`; nothing without names.
        """
        if not self.names:
            return
        from fuscore_metric.measures.catalogue import CONVENTIONS
        from fuscore_metric.measures.measure import measure_each

        batches = measure_each(
            triples,
            self.names,
            CONVENTIONS[self.convention],
            self.colour,
            device=device,
            batch_size=batch_size,
            doubts=doubts,
        )
        with closing(batches) as measured:
            for batch, values in measured:
                if isinstance(values, Exception):
                    yield dict.fromkeys(batch.rows, values)
                    continue
                numbers = [value.tolist() for value in values.values()]
                by_triple = zip(batch.rows, zip(*numbers, strict=True), strict=True)
                yield {row: dict(zip(values, found, strict=True)) for row, found in by_triple}


NO_MEASURES = Measuring()
