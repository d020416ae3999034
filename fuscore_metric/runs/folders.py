"""`ir/`, `vis/` and one folder per method -> the triples of a leaderboard, matched by name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from fuscore_metric.errors import InputError
from fuscore_metric.images.files import FORMATS
from fuscore_metric.results.rows import Entry

SHOWN = 5

_JUNK = frozenset(("@eadir", "__macosx", "#recycle", "$recycle.bin", "thumbs.db", "desktop.ini"))
"""What file servers, archives and desktops leave in folders, in lower case."""

_RULES = (r"^([^_-]+)", r"([^_-]+)$", r"0*(\d+)\D*$", r"^\D*0*(\d+)")
"""Rules that are tried where names do not match: the first part, the last, the last number, the
first."""


@dataclass(frozen=True)
class Matched:
    """What the folders hold.

    Attributes:
        entries: Whole triples, scene by scene, so that each source pair is read once.
        unmatched: Sentences on what has no partner, such as "ours: no fused image of 3 scenes: a,
            b, c"; empty if everything has.
        skipped: Files and folders that are not images of a scene, such as "ir/Thumbs.db".
        hints: Sentences on how more would match.
    """

    entries: tuple[Entry, ...]
    unmatched: tuple[str, ...]
    skipped: tuple[str, ...]
    hints: tuple[str, ...]

    def notes(self, others: Sequence[str] = ()) -> list[str]:
        """List the images without a partner, what may help, and what is left alone.

        Args:
            others: Paths of what is not a folder of a method.
        """
        notes = [f"without a partner: {sentence}" for sentence in self.unmatched]
        notes += [f"hint: {hint}" for hint in self.hints]
        if skipped := [*others, *self.skipped]:
            more = ", ..." if len(skipped) > SHOWN else ""
            shown = ", ".join(skipped[:SHOWN])
            notes.append(f"skipped {len(skipped)} that are no images or methods: {shown}{more}")
        return notes


def match_folders(
    ir: str | os.PathLike[str],
    vis: str | os.PathLike[str],
    methods: Mapping[str, str | os.PathLike[str]],
    *,
    pair: str | None = None,
) -> Matched:
    r"""Match the images of folders by name without extension.

    Of a folder without an image, the images of its subfolders count; then the scene "train/1" is
    the image "1" of the subfolder "train".

    Args:
        ir: Folder of infrared images.
        vis: Folder of visible images of the same names.
        methods: Folder of fused images of the same names, by name of the method.
        pair: Regular expression that is searched in each name without extension. Where it is
            found, its first group is the name of the scene, as in r"0*(\d+)"; else the whole
            name is.

    Raises:
        InputError: A folder is not there, is empty, or has two images of one scene; no scene is
            whole; or `pair` is not such an expression.
    """
    rule = _rule(pair)
    skipped: list[str] = []

    def read(folder: str | os.PathLike[str], role: str) -> dict[str, str]:
        found, others = images_by_scene(Path(os.path.expanduser(folder)), role, rule)
        skipped.extend(others)
        return found

    sources = {"ir": read(ir, "ir"), "vis": read(vis, "vis")}
    fused = {name: read(folder, name) for name, folder in methods.items()}
    scenes = sources["ir"].keys() & sources["vis"].keys()
    unmatched = [
        f"{one}: no {other} image of {_listed(alone)}"
        for one, other in (("ir", "vis"), ("vis", "ir"))
        if (alone := sources[one].keys() - sources[other].keys())
    ]
    for name, files in fused.items():
        if missing := scenes - files.keys():
            unmatched.append(f"{name}: no fused image of {_listed(missing)}")
        if alone := files.keys() - scenes:
            unmatched.append(f"{name}: no source pair of {_listed(alone)}")
    entries = tuple(
        Entry(scene, name, sources["ir"][scene], sources["vis"][scene], files[scene])
        for scene in sorted(scenes)
        for name, files in fused.items()
        if scene in files
    )
    hints = _layouts(scenes, fused, methods)
    if unmatched and pair is None and not hints:
        hints = _pairings([*sources.values(), *fused.values()], len(entries))
    if not entries:
        raise InputError(
            f"Expected images of one name in {str(ir)!r}, {str(vis)!r} and a method's folder, "
            f"none there. {'; '.join((*unmatched, *hints))}"
        )
    return Matched(entries, tuple(unmatched), tuple(skipped), hints)


def method_folders(
    given: Sequence[str], root: Path | None, *, others: Collection[Path] = ()
) -> tuple[dict[str, Path], list[str]]:
    """Name the folders of methods.

    Args:
        given: Folders, or "NAME=FOLDER"; a folder's own name is the method's.
        root: A folder whose subfolders with images are methods, besides.
        others: Subfolders of `root` that are not methods, such as those of the sources.

    Returns:
        The folders by name, and what else there is in `root`.

    Raises:
        InputError: No folder, or two of one name.
    """
    named = [_named(text) for text in given]
    root = None if root is None else Path(os.path.expanduser(root))
    below, skipped = ([], []) if root is None else _below(root, others)
    named += [(path.name, path) for path in below]
    if not named:
        hint = ""
        if root is not None and any(is_image_name(name) for name in os.listdir(root)):
            hint = f"; {str(root)!r} has images itself, as one method's folder has: use --methods"
        raise InputError(f"Expected at least one folder of fused images, got none{hint}")
    methods: dict[str, Path] = {}
    for name, path in named:
        if name in methods and methods[name] != path:
            raise InputError(
                f"Expected methods of different names, got {str(methods[name])!r} and "
                f"{str(path)!r}: name one as NAME=FOLDER"
            )
        methods[name] = path
    return methods, skipped


def images_by_scene(
    folder: Path, role: str, rule: re.Pattern[str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """List the images of a folder by the name of their scene.

    Args:
        folder: Which one; without an image of its own, those of its subfolders count.
        role: What it is of, for errors.
        rule: Finds the scene in a name, see `match_folders`.

    Returns:
        Paths of the images by scene, and of all else that is there.

    Raises:
        InputError: It cannot be read, has no image, or two of one scene.
    """
    try:
        names, others = _listing(folder)
    except OSError as error:
        raise InputError(
            f"Cannot read the folder of {role}, {str(folder)!r}: {error.strerror}"
        ) from error
    if not names:
        raise InputError(f"Expected images in the folder of {role}, {str(folder)!r}, none there")
    found: dict[str, str] = {}
    for name in names:
        scene = _scene(os.path.splitext(name)[0], rule)
        if scene in found:
            raise InputError(
                f"Expected one image of the name {scene!r} in {str(folder)!r}, got "
                f"{os.path.relpath(found[scene], folder)!r} and {name!r}"
            )
        found[scene] = str(folder / name)
    return found, [str(folder / name) for name in others]


def is_image_name(name: str) -> bool:
    """Whether a file of this name is read as an image where folders are searched for them."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _suffixes()


@cache
def _suffixes() -> frozenset[str]:
    """Suffixes of the formats that are read. An MPO is a JPEG with previews behind it."""
    kinds = {*FORMATS, "MPO"}
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in kinds)


def _rule(pair: str | None) -> re.Pattern[str] | None:
    if pair is None:
        return None
    try:
        rule = re.compile(pair)
    except re.error as error:
        raise InputError(
            f"Expected a regular expression as `pair`, got {pair!r}: {error}"
        ) from None
    if not rule.groups:
        raise InputError(f"Expected a group for the scene's name in `pair`, got {pair!r}")
    return rule


def _scene(name: str, rule: re.Pattern[str] | None) -> str:
    """The scene of an image by its path without extension, such as "train/1"."""
    # "é" is one character on one system, and two on another whose files were copied.
    folder, stem = os.path.split(unicodedata.normalize("NFC", name))
    found = rule.search(stem) if rule else None
    return os.path.join(folder, (found and found[1]) or stem)


def _named(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    path = Path(os.path.expanduser(text))
    if sign and name and not os.path.exists(path):
        return name, Path(os.path.expanduser(folder))
    # Of "." or "..", too, the name of the folder is that of the method.
    return os.path.basename(os.path.realpath(path)), path


def _below(root: Path, others: Collection[Path]) -> tuple[list[Path], list[str]]:
    """Folders with images in `root`, and paths of all else."""
    try:
        found = sorted(root.iterdir())
    except OSError as error:
        raise InputError(
            f"Cannot read the methods' root {str(root)!r}: {error.strerror}"
        ) from error
    no_methods = {os.path.realpath(path) for path in others}  # Path.resolve raises on a loop
    found = [path for path in found if os.path.realpath(path) not in no_methods]
    methods = [path for path in found if path.is_dir() and _may_be_method(path)]
    return methods, [str(path) for path in found if path not in set(methods)]


def _may_be_method(folder: Path) -> bool:
    if _is_junk(folder.name):
        return False
    try:
        return bool(_listing(folder)[0])
    except OSError:
        return True  # to be refused by name when it is read


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """Images of a folder, or if it has none of its subfolders, and all else, by relative path."""
    images, folders, others = _level(folder)
    if images:
        return images, sorted(folders + others)
    for name in folders:
        inside, *rest = _level(folder / name)
        images += [os.path.join(name, one) for one in inside]
        others += [os.path.join(name, one) for some in rest for one in some]
    return images, sorted(others)


def _level(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of the images, of the folders that may have some, and of all else in a folder."""
    images: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as items:
        for item in sorted(items, key=lambda item: item.name):
            if _is_junk(item.name):
                others.append(item.name)
            # Not `item.is_dir()`, which raises on a link to itself: that is a broken image.
            elif os.path.isdir(item):
                folders.append(item.name)
            else:
                (images if is_image_name(item.name) else others).append(item.name)
    return images, folders, others


def _layouts(
    scenes: Collection[str],
    fused: Mapping[str, Mapping[str, str]],
    folders: Mapping[str, str | os.PathLike[str]],
) -> tuple[str, ...]:
    """What folders of methods without any scene seem to be instead."""
    strangers = [name for name, files in fused.items() if files.keys().isdisjoint(scenes)]
    if named := [name for name in strangers if name in scenes]:
        return (
            f"the folder {named[0]!r} has the name of a scene: folders are METHOD/SCENE.png here, "
            "not SCENE/METHOD.png; of those make a table of triples for `fuscore score-manifest`",
        )
    if strangers and (below := sorted(filter(os.path.dirname, scenes))):
        return (
            f"the sources are in subfolders such as {os.path.dirname(below[0])!r}, and images of "
            f"{strangers[0]} are not: rank one subfolder at a time",
        )
    return tuple(
        f"the folders in {str(folders[name])!r} seem to be methods: give it as --methods-root"
        for name in strangers
        if any(os.path.basename(scene) in scenes for scene in fused[name])
    )


def _pairings(folders: Sequence[Mapping[str, str]], now: int) -> tuple[str, ...]:
    """A rule by which more triples would match, if one is known."""
    for pair in _RULES:
        named = [_renamed(scenes, re.compile(pair)) for scenes in folders]
        ir, vis, *fused = named
        if all(named) and sum(len(ir & vis & files) for files in fused) > now:
            return (f"perhaps their names match with --pair '{pair}'",)
    return ()


def _renamed(scenes: Iterable[str], rule: re.Pattern[str]) -> set[str]:
    """Names by another rule; none if two images would have one."""
    found = [_scene(scene, rule) for scene in scenes]
    return set(found) if len(set(found)) == len(found) else set()


def _listed(scenes: Collection[str]) -> str:
    count = f"{len(scenes)} scene{'s' if len(scenes) > 1 else ''}"
    shown = ", ".join(sorted(scenes)[:SHOWN])
    return f"{count}: {shown}{', ...' if len(scenes) > SHOWN else ''}"
