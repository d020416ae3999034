"""What is stored beside the weights: sizes, preprocessing and tokenizer, checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as TokenizersTokenizer

from fuscore_metric.checkpoints.fields import Kind, misfits, whole
from fuscore_metric.checkpoints.strict_json import read_json, short
from fuscore_metric.errors import CheckpointError

DEFAULT_PREPROCESSING: dict[str, Any] = {
    "min_pixels": 128 * 128,
    "max_pixels": 1024 * 768,
    "multiple": 1,
    "mean": 127 / 255,
    "std": 128 / 255,
    "grid": 4,
}
"""Images are resized only outside these areas: noise and blur live at the pixel scale."""
LLAMA = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
"""Shape of the language part: its cost on a CPU is small beside that of the vision part."""
_LLAMA_KINDS = {
    "hidden_size": whole(2, 4096),
    "intermediate_size": whole(1, 16384),
    "num_hidden_layers": whole(1, 64),
    "num_attention_heads": whole(1, 64),
    "num_key_value_heads": whole(1, 64),
    "max_position_embeddings": whole(1, 65536),
    "tie_word_embeddings": Kind("true or false", lambda x: isinstance(x, bool)),
}
MAX_CONFIG_BYTES = 1_000_000


class LevelTokenizer:
    """A `tokenizers` file behind the one method that the level words need."""

    def __init__(self, path: Path) -> None:
        try:
            self.tokenizer = TokenizersTokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{path.name}: {error}") from error
        ids = self.tokenizer.get_vocab().values()
        if max(ids, default=0) >= max(len(ids), 1):  # they are rows of the embedding
            raise ValueError(f"{path.name}: expected ids below {len(ids)}, got {max(ids)}")

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


def read_config(path: Path) -> tuple[dict[str, Any], bool]:
    """Options of the Llama, and whether there are relations; older files have none.

    Raises:
        CheckpointError: The file has something else.
    """
    try:
        content = read_json(path, limit=MAX_CONFIG_BYTES)
    except ValueError as error:
        raise CheckpointError(f"Expected JSON in {str(path)!r}: {error}") from error
    options = content.get("llama") if isinstance(content, dict) else None
    if not isinstance(options, dict):
        raise CheckpointError(f"Expected an object `llama` in {str(path)!r}")
    relations = content.get("relations", False)
    if not isinstance(relations, bool):
        raise CheckpointError(
            f"Expected `relations` in {str(path)!r} to be true or false, got {short(relations)}"
        )
    check_names(options, LLAMA, "llama", path)
    for wrong in misfits(options, _LLAMA_KINDS, "llama"):
        raise CheckpointError(f"{wrong} in {str(path)!r}")
    heads, groups = options["num_attention_heads"], options["num_key_value_heads"]
    if options["hidden_size"] % (2 * heads) or heads % groups:
        raise CheckpointError(
            f"Expected `llama` in {str(path)!r} with an even number of channels for each of "
            f"`num_attention_heads`, and those a multiple of `num_key_value_heads`, got {options}"
        )
    return options, relations


def check_size(llama: Mapping[str, int], words: int, weights: Path) -> None:
    """Refuse sizes of far more weights than the file holds, before memory is taken for them.

    Raises:
        CheckpointError: The file is too small.
    """
    hidden, intermediate = llama["hidden_size"], llama["intermediate_size"]
    # Query and output, and the three matrices of the perceptron; keys and values may be few.
    layers = llama["num_hidden_layers"] * hidden * (2 * hidden + 3 * intermediate)
    numbers, stored = words * hidden + layers, weights.stat().st_size
    if 2 * numbers > stored:  # two bytes each, or four
        raise CheckpointError(
            f"Expected at least {numbers} numbers in {str(weights)!r}, as the files beside it say, "
            f"got {stored} bytes"
        )


def check_names(
    given: Mapping[str, Any], expected: Mapping[str, Any], what: str, path: Path
) -> None:
    """Refuse unknown and missing names: a later version might fill in other defaults.

    Raises:
        CheckpointError: A name is unknown or missing.
    """
    if odd := sorted(given.keys() ^ expected.keys()):
        kind = "unknown" if odd[0] in given else "missing"
        raise CheckpointError(
            f"Expected `{what}` of {', '.join(expected)} in {str(path)!r}, {kind}: {short(odd[0])}"
        )
