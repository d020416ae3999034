"""Settings of a run -> the model that gave its scores, or a reason why it cannot be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fuscore_metric.errors import CheckpointError

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore


class OtherWeightsError(ValueError):
    """The weights that gave the scores cannot be had; the message says why, in one line."""


def load_scorer(settings: Mapping[str, Any], device: str | int | None = None) -> FuScore:
    """Load the weights that the settings name, if they are still those that gave the scores.

    Never another model: a map by other weights would explain scores that are not in the table.
    Never from the network: what is not in the hub's cache is not downloaded for a report.

    Args:
        settings: Of the run; `source`, `revision`, `weights_hash`, `dtype` are used.
        device: Where to compute, as in `FuScore.from_pretrained`.

    Raises:
        OtherWeightsError: The settings do not name them, they cannot be loaded, or have changed.
        ValueError: The device cannot be used here.
    """
    from fuscore_metric.checkpoints.locate import find_checkpoint
    from fuscore_metric.model import FuScore
    from fuscore_metric.results.settings import weights_hash

    source, wanted = settings.get("source"), settings.get("weights_hash")
    if not (source and wanted):
        raise OtherWeightsError("the table does not say which weights gave its scores")
    revision = settings.get("revision") or None
    try:
        found = find_checkpoint(str(source), revision=revision, local_files_only=True)
        there = weights_hash(found)
        if there != wanted:
            raise OtherWeightsError(
                f"the weights in {str(source)!r} are not those that gave the scores "
                f"({there} there, {wanted} in the table)"
            )
        return FuScore.from_pretrained(
            str(source),
            revision=revision,
            device=device,
            dtype=settings.get("dtype") or None,
            local_files_only=True,
        )
    except (CheckpointError, ImportError) as error:
        raise OtherWeightsError(f"cannot load the weights {str(source)!r}: {error}") from error
