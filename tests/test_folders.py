"""Folders of images -> triples, and what is said of images without a partner."""

from pathlib import Path

import pytest

from fuscore_metric import InputError
from fuscore_metric.folders import match_folders, method_folders


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
    assert method_folders([f"{folders}/ours", f"new={folders}/theirs/"], None) == {
        "ours": folders / "ours",
        "new": folders / "theirs",
    }
    sources = (folders / "ir", folders / "ours" / ".." / "vis")
    assert list(method_folders([], folders, others=sources)) == ["ours", "theirs"]
    monkeypatch.chdir(folders / "ours")
    assert list(method_folders(["."], None)) == ["ours"]
    (folders / "ours" / "a=b").mkdir()
    assert method_folders(["a=b"], None) == {"a=b": Path("a=b")}  # a folder's own name


def test_methods_of_one_name_are_refused(folders):
    (folders / "other" / "ours").mkdir(parents=True)
    with pytest.raises(InputError, match=r"different names.*NAME=FOLDER"):
        method_folders([f"{folders}/ours", f"{folders}/other/ours"], None)
    with pytest.raises(InputError, match="at least one folder"):
        method_folders([], None)
    with pytest.raises(InputError, match="methods' root"):
        method_folders([], folders / "missing")
