"""`fuscore.json` -> `FuScoreSpec`, or a `CheckpointError`."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.harness import Havoc, folder, instrumented, run
from tests.fuzz.values import mutate_json

with instrumented(
    __name__, "json", "fuscore_metric.checkpoints.spec", "fuscore_metric.checkpoints.strict_json",
    "fuscore_metric.checkpoints.fields",
):  # fmt: skip
    import fuscore_metric
    from fuscore_metric.checkpoints.spec import SPEC_FILE, read_spec
    from fuscore_metric.errors import CheckpointError

EMBEDDED = Path(fuscore_metric.__file__).parent / "assets"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def one(data: bytes) -> None:
    """Read a file; what is accepted must be the same after it was saved and read again.

    Raises:
        AssertionError: It is not, or the message is not one short line.
    """
    place = folder()
    (place / SPEC_FILE).write_bytes(data)
    try:
        spec = read_spec(place)
    except CheckpointError as error:
        message = str(error)
        assert len(message.splitlines()) == 1, message
        assert message.isprintable(), message
        assert len(message) < 1500, message[:1500]
        return
    spec.label_statement()
    spec.short_card("owner/name")
    spec.save(place)
    assert read_spec(place) == spec


def seeds() -> Iterator[bytes]:
    """The embedded weights' own, without its long parts; small ones of every family and kind."""
    for path in EMBEDDED.rglob(SPEC_FILE):
        content = json.loads(path.read_text())
        yield json.dumps(content | {"metrics": {"srcc": 0.9}, "base": [], "data": ["a"]}).encode()
    options = {"min_pixels": 3136, "max_pixels": 100352, "patch_size": 14, "image_mean": [0.5] * 3}
    small = {"name": "a", "preprocessing": options, "label_kind": "proxy", "temperature": 0.8}
    for family in ("qwen2_5_vl", "qwen3_vl", "lite_llama"):
        yield json.dumps(small | {"family": family}).encode()
    adapter = {"weights": "adapter", "base_model": "owner/name", "base_revision": COMMIT}
    yield json.dumps(small | {"family": "qwen3_vl", "format_version": 1} | adapter).encode()


def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change a value, a key or bytes."""
    return mutate_json(data, rng, havoc)


if __name__ == "__main__":
    run(sys.modules[__name__])
