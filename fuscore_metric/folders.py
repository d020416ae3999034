"""`ir/`, `vis/` and one folder a method -> the triples of a leaderboard, matched by stem."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuscore_metric.images import InputError
from fuscore_metric.results.rows import Entry

SUFFIXES = frozenset(
    (".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What counts as an image in a folder; other files are nobody's partner."""

SHOWN = 5


@dataclass(frozen=True)
class Matched:
    """What the folders hold.

    Attributes:
        entries: Whole triples, scene by scene, so that each source pair is read once.
        unmatched: Sentences on what has no partner, such as "ours: no fused image of 3 scenes: a,
            b, c"; empty if everything has.
    """

    entries: tuple[Entry, ...]
    unmatched: tuple[str, ...]


def match_folders(ir: Path, vis: Path, methods: Mapping[str, Path]) -> Matched:
    """Match the images of folders by name without extension.

    Args:
        ir: Folder of infrared images.
        vis: Folder of visible images of the same stems.
        methods: Folder of fused images of the same stems, by name of the method.

    Raises:
        InputError: A folder is not there, is empty, has two images of one stem, or no scene is
            whole.
    """
    sources = {"ir": _by_stem(ir, "ir"), "vis": _by_stem(vis, "vis")}
    fused = {name: _by_stem(folder, name) for name, folder in methods.items()}
    scenes = sorted(sources["ir"].keys() & sources["vis"].keys())
    unmatched = [
        f"{one}: no {other} image of {_listed(alone)}"
        for one, other in (("ir", "vis"), ("vis", "ir"))
        if (alone := sorted(sources[one].keys() - sources[other].keys()))
    ]
    for name, files in fused.items():
        if missing := [scene for scene in scenes if scene not in files]:
            unmatched.append(f"{name}: no fused image of {_listed(missing)}")
        if alone := sorted(files.keys() - set(scenes)):
            unmatched.append(f"{name}: no source pair of {_listed(alone)}")
    entries = tuple(
        Entry(scene, name, sources["ir"][scene], sources["vis"][scene], files[scene])
        for scene in scenes
        for name, files in fused.items()
        if scene in files
    )
    if not entries:
        raise InputError(
            f"Expected images of one name in {str(ir)!r}, {str(vis)!r} and a method's folder, "
            f"none there. {'; '.join(unmatched)}"
        )
    return Matched(entries, tuple(unmatched))


def method_folders(
    given: Sequence[str], root: Path | None, *, others: Collection[Path] = ()
) -> dict[str, Path]:
    """Name the folders of methods.

    Args:
        given: Folders, or "NAME=FOLDER"; a folder's own name is the method's.
        root: A folder whose subfolders are methods, besides.
        others: Subfolders of `root` that are none, such as those of the sources.

    Raises:
        InputError: No folder, or two of one name.
    """
    named = [_named(text) for text in given]
    if root is not None:
        try:
            found = sorted(path for path in root.iterdir() if path.is_dir())
        except OSError as error:
            raise InputError(
                f"Cannot read the methods' root {str(root)!r}: {error.strerror}"
            ) from error
        no_methods = {os.path.realpath(path) for path in others}  # Path.resolve raises on a loop
        named += [
            (path.name, path)
            for path in found
            if not path.name.startswith(".") and os.path.realpath(path) not in no_methods
        ]
    if not named:
        raise InputError("Expected at least one folder of fused images, got none")
    methods: dict[str, Path] = {}
    for name, path in named:
        if name in methods and methods[name] != path:
            raise InputError(
                f"Expected methods of different names, got {str(methods[name])!r} and "
                f"{str(path)!r}: name one as NAME=FOLDER"
            )
        methods[name] = path
    return methods


def _named(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    if sign and name and not os.path.exists(text):
        return name, Path(folder)
    # Of "." or "..", too, the name of the folder is that of the method.
    return os.path.basename(os.path.realpath(text)), Path(text)


def _by_stem(folder: Path, role: str) -> dict[str, str]:
    try:
        names = sorted(_images(folder))
    except OSError as error:
        raise InputError(
            f"Cannot read the folder of {role}, {str(folder)!r}: {error.strerror}"
        ) from error
    if not names:
        raise InputError(f"Expected images in the folder of {role}, {str(folder)!r}, none there")
    found: dict[str, str] = {}
    for name in names:
        # "é" is one character on one system, and two on another whose files were copied.
        stem = unicodedata.normalize("NFC", Path(name).stem)
        if stem in found:
            raise InputError(
                f"Expected one image of the name {stem!r} in {str(folder)!r}, got "
                f"{Path(found[stem]).name!r} and {name!r}"
            )
        found[stem] = str(folder / name)
    return found


def _images(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as items:
        for item in items:
            is_image = os.path.splitext(item.name)[1].lower() in SUFFIXES
            # Not `item.is_dir()`, which raises on a link to itself: that is a broken image.
            if is_image and not item.name.startswith(".") and not os.path.isdir(item):
                yield item.name


def _listed(scenes: Sequence[str]) -> str:
    count = f"{len(scenes)} scene{'s' if len(scenes) > 1 else ''}"
    return f"{count}: {', '.join(scenes[:SHOWN])}{', ...' if len(scenes) > SHOWN else ''}"
