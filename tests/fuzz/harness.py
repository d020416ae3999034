"""What all doors share: instrumented imports, a folder in memory, findings told apart, the run."""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from types import ModuleType

Havoc = Callable[[bytes], bytes]
"""Changes bytes without knowing what they are."""

MAX_BYTES = 16_384


def instrumented(module: str, *packages: str) -> AbstractContextManager:
    """Record coverage of packages that are imported inside, where the module is the program."""
    if module != "__main__":
        return nullcontext()
    import atheris

    return atheris.instrument_imports(include=list(packages))


@lru_cache(maxsize=1)
def folder() -> Path:
    """A folder of this process, in memory where that can be, removed by nobody else."""
    root = Path("/dev/shm")
    kept = tempfile.TemporaryDirectory(prefix="fuscore-fuzz-", dir=root if root.is_dir() else None)
    _open_folders.append(kept)
    return Path(kept.name)


_open_folders: list[tempfile.TemporaryDirectory] = []


def plain_havoc(rng: random.Random) -> Havoc:
    """Random changes of bytes, for runs without libFuzzer's own."""

    def change(data: bytes) -> bytes:
        found = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(found) + 1)
            kind = rng.randrange(4)
            if kind == 0 or not found:
                found[place:place] = rng.randbytes(rng.randint(1, 8))
            elif kind == 1:
                del found[place : place + rng.randint(1, 16)]
            elif kind == 2:
                found[place : place + 1] = bytes([rng.choice((0, 1, 127, 128, 255))])
            else:
                found[place : place + 1] = bytes([rng.randrange(256)])
        return bytes(found)

    return change


def kind_of(error: BaseException) -> str:
    """Findings of one kind are raised by one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"


def run(door: ModuleType) -> None:
    """Be the program of a door."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="folder of findings")
    parser.add_argument("--replay", type=Path, help="a file to try instead")
    given, others = parser.parse_known_args()
    if given.replay:
        door.one(given.replay.read_bytes())
        return
    for name in others:
        if not name.startswith("-"):
            _plant(Path(name), door.seeds())
    _fuzz(door, given.keep, others)


def _plant(corpus: Path, seeds: Iterable[bytes]) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


def _fuzz(door: ModuleType, keep: Path | None, options: list[str]) -> None:
    import atheris

    def one(data: bytes) -> None:
        try:
            door.one(data)
        except Exception as error:
            if keep is None:
                raise
            keep.mkdir(parents=True, exist_ok=True)
            path = keep / kind_of(error)
            # The shortest input of a kind is what one wants to look at.
            if not path.exists() or path.stat().st_size > len(data):
                path.write_bytes(data)
                sys.stderr.write("".join(traceback.format_exception(error)) + "\n")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)

        def havoc(part: bytes) -> bytes:
            return bytes(atheris.Mutate(part, len(part) + 64))

        changed = door.mutate(data, rng, havoc)
        return changed[:max_size]

    options = [f"-max_len={MAX_BYTES}", *options]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()
