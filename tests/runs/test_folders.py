"""Folders of images -> triples, and what is said of images without a partner."""

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from fuscore_metric import InputError
from fuscore_metric.images.convert import as_images
from fuscore_metric.images.files import FORMATS
from fuscore_metric.runs.folders import match_folders, method_folders

SUFFIXES = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}


@pytest.fixture
def folders(tmp_path) -> Path:
    """Files whose content is never looked at."""
    names = {
        "ir": ["a.png", "b.png", "c.png", "lonely.png", "notes.txt", ".hidden.png"],
        "vis": ["a.jpg", "b.JPG", "c.png"],
        "ours": ["a.png", "b.tif", "c.bmp", "Thumbs.db"],
        "theirs": ["a.png", "stranger.png"],
    }
    for folder, files in names.items():
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / file).touch()
    (tmp_path / "ours" / "b.png").mkdir()
    return tmp_path


def matched(folders, *methods):
    methods = methods or ("ours", "theirs")
    return match_folders(folders / "ir", folders / "vis", {m: folders / m for m in methods})


def test_images_of_one_stem_belong_together(folders):
    found = matched(folders)
    assert [(e.scene, e.method) for e in found.entries] == [
        ("a", "ours"),
        ("a", "theirs"),
        ("b", "ours"),
        ("c", "ours"),
    ]
    entry = found.entries[2]
    assert [Path(path).name for path in (entry.ir, entry.vis, entry.fused)] == [
        "b.png",
        "b.JPG",
        "b.tif",
    ]


def test_what_has_no_partner_is_said(folders):
    assert matched(folders).unmatched == (
        "ir: no vis image of 1 scene: lonely",
        "theirs: no fused image of 2 scenes: b, c",
        "theirs: no source pair of 1 scene: stranger",
    )
    (folders / "ir" / "lonely.png").unlink()
    assert not matched(folders, "ours").unmatched


def test_long_lists_are_cut(folders):
    for number in range(9):
        (folders / "vis" / f"x{number}.png").touch()
    assert "9 scenes: x0, x1, x2, x3, x4, ..." in matched(folders).unmatched[1]


def test_two_images_of_one_stem_are_refused(folders):
    (folders / "ours" / "a.jpg").touch()
    with pytest.raises(InputError, match=r"one image of the name 'a' .* got 'a.jpg' and 'a.png'"):
        matched(folders)


def test_folders_without_a_whole_scene_are_refused(folders):
    (folders / "theirs" / "a.png").unlink()
    with pytest.raises(InputError, match=r"none there.*no fused image of 3 scenes"):
        matched(folders, "theirs")
    (folders / "theirs" / "stranger.png").unlink()
    with pytest.raises(InputError, match="images in the folder of theirs"):
        matched(folders, "theirs")
    with pytest.raises(InputError, match="Cannot read the folder of missing"):
        matched(folders, "missing")


def test_methods_are_named_by_their_folders_or_by_the_user(folders, monkeypatch):
    def methods(*given, **options):
        return method_folders(*given, **options)[0]

    assert methods([f"{folders}/ours", f"new={folders}/theirs/"], None) == {
        "ours": folders / "ours",
        "new": folders / "theirs",
    }
    sources = (folders / "ir", folders / "ours" / ".." / "vis")
    assert list(methods([], folders, others=sources)) == ["ours", "theirs"]
    monkeypatch.chdir(folders / "ours")
    assert list(methods(["."], None)) == ["ours"]
    (folders / "ours" / "a=b").mkdir()
    assert methods(["a=b"], None) == {"a=b": Path("a=b")}  # a folder's own name


def test_methods_of_one_name_are_refused(folders):
    (folders / "other" / "ours").mkdir(parents=True)
    with pytest.raises(InputError, match=r"different names.*NAME=FOLDER"):
        method_folders([f"{folders}/ours", f"{folders}/other/ours"], None)
    with pytest.raises(InputError, match="at least one folder"):
        method_folders([], None)
    with pytest.raises(InputError, match="methods' root"):
        method_folders([], folders / "missing")


def tree(folder, *paths):
    """Make empty files, ir and vis of two scenes among them."""
    for path in ("ir/001.png", "ir/002.png", "vis/001.png", "vis/002.png", *paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def found_in(folder, **options):
    methods, skipped = method_folders([], folder / "fused")
    found = match_folders(folder / "ir", str(folder / "vis"), methods, **options)
    return found, {os.path.relpath(path, folder) for path in (*skipped, *found.skipped)}


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_what_can_be_scored_can_be_ranked(tmp_path, suffix):
    tree(tmp_path)
    path = tmp_path / "fused" / "A" / f"001{suffix.upper()}"
    path.parent.mkdir(parents=True)
    Image.new("L", (64, 64), 90).save(path, format=Image.registered_extensions()[suffix])
    assert as_images(path, "fused")
    found, _ = found_in(tmp_path)
    assert [entry.fused for entry in found.entries] == [str(path)]


def test_junk_is_no_method_and_no_image(tmp_path):
    junk = ("fused/@eaDir/001.png", "fused/__MACOSX/A/._001.png", "fused/logs/loss.txt")
    inside = ("ir/.DS_Store", "vis/Thumbs.db", "fused/A/._001.png", "fused/A/@eaDir/001.png")
    tree(tmp_path, "fused/A/001.png", "fused/A/002.png", "fused/notes.txt", *junk, *inside)
    found, skipped = found_in(tmp_path)
    assert [entry.method for entry in found.entries] == ["A", "A"]
    assert not found.unmatched
    folders = {"fused/@eaDir", "fused/__MACOSX", "fused/logs", "fused/A/@eaDir"}
    assert skipped == folders | {"fused/notes.txt", *inside[:3]}


def test_images_in_subfolders_are_scenes_of_their_own(tmp_path):
    for place in ("a/ir", "a/vis", "a/fused/A"):
        tree(tmp_path, f"{place}/train/1.png", f"{place}/test/1.png", f"{place}/@eaDir/x.png")
    found, _ = found_in(tmp_path / "a")
    assert [entry.scene for entry in found.entries] == ["test/1", "train/1"]
    assert not found.unmatched


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("{:05d}D", "{:05d}D", "{:05d}D_fused"), "(.+)_fused$"),
        (("IR{}", "VIS{}", "fused{}"), r"(\d+)"),
        (("{:03d}", "{:03d}", "{}"), r"0*(\d+)"),
        (("{:03d}_ir", "vi-{}", "A_{}-out"), r"0*(\d+)"),
    ],
)
def test_names_are_paired_by_a_rule_and_one_is_proposed(tmp_path, names, pair):
    for place, name in zip(("ir", "vis", "fused/A"), names, strict=True):
        for number in (1, 2, 10):
            path = tmp_path / place / f"{name.format(number)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    with pytest.raises(InputError, match="--pair") as caught:
        found_in(tmp_path)
    proposed = re.search("--pair '(.*)'", str(caught.value))[1]
    for rule in (pair, proposed):
        found, _ = found_in(tmp_path, pair=rule)
        assert len(found.entries) == 3
        assert not found.unmatched


@pytest.mark.parametrize("pair", ["(", "no group", r"00(\d?)"])
def test_bad_rules_are_refused(tmp_path, pair):
    tree(tmp_path, "ir/001b.png", "fused/A/001.png")
    with pytest.raises(InputError, match=r"`pair`|one image of the name '1'"):
        found_in(tmp_path, pair=pair)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (("fused/001/A.png", "fused/001/B.png", "fused/002/A.png"), "METHOD/SCENE"),
        (("fused/all/A/001.png", "fused/all/B/001.png"), "--methods-root"),
        (("fused/001.png", "fused/002.png"), "--methods"),
        (("fused/x.txt",), "at least one folder"),
    ],
)
def test_other_layouts_are_named(tmp_path, paths, words):
    tree(tmp_path, *paths)
    with pytest.raises(InputError, match=words):
        found_in(tmp_path)


def test_sources_in_subfolders_alone_are_named(tmp_path):
    tree(tmp_path, "a/ir/test/1.png", "a/vis/test/1.png", "a/fused/A/1.png")
    with pytest.raises(InputError, match="subfolders such as 'test'"):
        found_in(tmp_path / "a")
