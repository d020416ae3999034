"""Files and names that were made to hurt: each is refused in one line, or read as it should be.

What is merely broken is in `test_bad_images.py`; what fuzzing found in `test_fuzz_findings.py`.
"""

import csv
import json
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fuscore_metric import InputError, score
from fuscore_metric.images.convert import as_images
from fuscore_metric.images.lazy import open_pictures
from fuscore_metric.results.read import read_results
from fuscore_metric.runs.folders import match_folders, method_folders
from fuscore_metric.runs.manifest import read_manifest
from tests.helpers.image_files import chunk, encoded, message_of, png_header

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 48), dtype=np.uint8)
GIVEN_TO_A_READER = 1.0  # seconds; most need milliseconds


def png_with(*chunks):
    """A good PNG with more chunks before its pixels."""
    good = encoded("PNG", Image.fromarray(GREY))
    place = good.index(b"IDAT") - 4
    return good[:place] + b"".join(chunk(*one) for one in chunks) + good[place:]


ZEROS = zlib.compress(bytes(200_000_000), 9)  # 200 kB


def tiff(entries, *, next_directory=0, extra=b"", size=(48, 40)):
    """An uncompressed grey TIFF; entries are (tag, type, count, value)."""
    pixels = GREY.tobytes()
    usual = {
        256: (4, 1, size[0]),
        257: (4, 1, size[1]),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, size[1]),
        279: (4, 1, len(pixels)),
    } | {tag: rest for tag, *rest in entries}
    start = 8 + len(pixels)
    body = b"".join(
        struct.pack("<HHI", tag, kind, count) + struct.pack("<I", value)
        for tag, (kind, count, value) in sorted(usual.items())
    )
    directory = struct.pack("<H", len(usual)) + body + struct.pack("<I", next_directory)
    return b"II*\0" + struct.pack("<I", start) + pixels + directory + extra


def many_directories(count):
    """A TIFF of a million pages, each of 6 bytes: a directory without entries, and the next."""
    first = len(tiff([]))
    pages = b"".join(
        struct.pack("<HI", 0, first + 6 * (n + 1) if n < count - 1 else 0) for n in range(count)
    )
    return tiff([], next_directory=first, extra=pages)


def gif_of(frames):
    first = encoded("GIF", Image.fromarray(GREY))
    body = first[first.index(b"\x2c") : -1]
    return first[: first.index(b"\x2c")] + body * frames + b"\x3b"


def jpeg_header(side):
    start = encoded("JPEG", Image.fromarray(GREY))
    place = start.index(b"\xff\xc0") + 5
    return start[:place] + struct.pack(">HH", side, side) + start[place + 4 :]


def webp_moving(side):
    head = struct.pack("<I", 2)[:1] + b"\0\0\0" + struct.pack("<I", side - 1)[:3] * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + head
    return b"RIFF" + struct.pack("<I", len(body)) + body


# what a file holds, and a part of the message
REFUSED = {
    "PNG of 50k x 50k": (png_header(50_000, 50_000), "decompression bomb"),
    "JPEG of 65500 x 65500": (jpeg_header(65_500), "decompression bomb"),
    "BMP of 2 billion rows": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2, 2**31 - 1, 1, 24, *[0] * 6),
        "readable image",
    ),
    "PPM of 10^9 x 10^9": (b"P6 1000000000 1000000000 255\n", "readable image"),
    "TIFF of 4 billion columns": (tiff([], size=(2**32 - 1, 2**32 - 1)), "readable image"),
    "WebP canvas of 16383 x 16383": (webp_moving(16_383), "readable image"),
    "100k x 1": (png_header(100_000, 1), "sides of at least 32 pixels, got 1x100000"),
    "zlib bomb in zTXt": (png_with((b"zTXt", b"a\0\0" + ZEROS)), "readable image"),
    "zlib bomb in iTXt": (png_with((b"iTXt", b"a\0\1\0\0\0" + ZEROS)), "readable image"),
    "zlib bomb in iCCP": (png_with((b"iCCP", b"a\0\0" + ZEROS)), "readable image"),
    "TIFF of a million pages": (many_directories(1_000_000), "several frames"),
    "GIF of 20,000 frames": (gif_of(20_000), "several frames"),
    "TIFF whose strip is elsewhere": (tiff([(273, 4, 1, 2**32 - 1)]), "readable image"),
    "ICO": (encoded("ICO", Image.new("RGB", (48, 48))), "not in an image format that is read"),
    "ICNS": (encoded("ICNS", Image.new("RGB", (64, 64))), "not in an image format that is read"),
    "PSD": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3), "not in an image"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>', "not in an"),
    "pickle": (b"\x80\x04\x95" + bytes(500), "not in an image format that is read"),
    "float TIFF with infinity": (
        encoded("TIFF", Image.fromarray(np.where(GREY > 9, np.float32(0.5), np.float32(np.inf)))),
        "finite values",
    ),
    "float TIFF below 0": (encoded("TIFF", Image.new("F", (40, 40), -0.5)), "values in [0, 1]"),
}


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_refused_at_once_and_in_little_memory(case, tmp_path):
    content, part = REFUSED[case]
    path = tmp_path / "file"
    path.write_bytes(content)
    before, start = peak_bytes(), time.process_time()
    assert part in message_of(open_and_read, path)
    assert time.process_time() - start < GIVEN_TO_A_READER
    assert peak_bytes() - before < 300e6


def open_and_read(path):
    (picture,) = open_pictures(path, "fused")
    return picture.pixels(picture.decode())


def test_a_directory_that_points_at_itself_is_read_once(tmp_path):
    path = tmp_path / "loop.tiff"
    start = 8 + GREY.size
    path.write_bytes(tiff([], next_directory=start))
    assert torch.equal(open_and_read(path)[0], torch.from_numpy(GREY) / 255)


@pytest.mark.parametrize(
    "long", [(100_000, 32), pytest.param((32, 100_000), marks=pytest.mark.slow)]
)
def test_very_long_images_get_a_score(long):
    image = np.broadcast_to(np.uint8(90), long)
    assert 1 <= score(image, image, image).item() <= 5


@pytest.mark.parametrize("what", ["CMYK", "P with transparency", "LA", "1"])
def test_what_modes_in_files_mean(what, tmp_path):
    """As Pillow shows them; transparent pixels have the colour that is stored."""
    colour = Image.fromarray(np.dstack([GREY // 64 * 64, GREY // 64 * 64, GREY * 0 + 9]))
    path = tmp_path / "image.tiff"
    if what == "P with transparency":
        path = tmp_path / "image.png"
        colour.quantize(8).save(path, transparency=3)
    else:
        colour.convert(what).save(path)
    with Image.open(path) as image:
        shown = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
    assert torch.equal(open_and_read(path), shown)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pixels", [GREY, GREY.astype(np.uint16) * 200, GREY / np.float32(255)])
def test_turned_tiff_of_one_channel(pixels, orientation, tmp_path):
    """Pillow (12.3, 13.0) shuffles the pixels of orientations 5 to 8 that it maps into memory."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, plain = tmp_path / "turned.tiff", tmp_path / "plain.png"
    Image.fromarray(pixels).save(path, exif=exif)
    eight_bits = (np.asarray(pixels, np.float64) / pixels.max() * 255).astype(np.uint8)
    Image.fromarray(eight_bits).save(plain, exif=exif)
    (expected,) = as_images(plain, "ir")  # a PNG is never mapped
    for image in (open_and_read(path), as_images(Image.open(path), "fused")[0]):
        scale = expected.max() / image.max()
        assert torch.allclose(image * scale, expected, atol=1.5 / 255)


# Names


NAMES = [
    "a b",
    "two\nlines",
    "tab\there",
    "-rf",
    "\N{GRINNING FACE}",
    unicodedata.normalize("NFD", "\N{LATIN SMALL LETTER E WITH ACUTE}t\u00e9"),
    os.fsdecode(b"caf\xe9"),
    '"onload=alert(1)',
    "<script>alert(1)<!--",
    "=HYPERLINK(1)",
    "\x1b[31mred\x1b]0;owned\x07",
    "\u202egnp",
    "[bold]x[[",
]


@pytest.fixture
def odd_folders(tmp_path):
    for place in ("ir", "vis", "methods/m", "methods/=1+1", "methods/<b>\x1b[31m\n"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for name in NAMES:
            Image.fromarray(GREY).save(folder / f"{name}.png")
    return tmp_path


def fuscore(*arguments, cwd):
    line = [sys.executable, "-m", "fuscore_metric.cli", *map(os.fspath, arguments)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=cwd, capture_output=True, timeout=120, env=surroundings)


def is_safe(output):
    """Whether nothing in it moves the cursor, changes colours or turns the direction."""
    text = output.decode()
    return all(c == "\n" or c.isprintable() for c in text)


@pytest.mark.slow
def test_odd_names_through_every_output(odd_folders, weights):
    methods = ("--methods-root", "methods", "--model", weights, "--out", "out")
    done = fuscore("rank", "--ir", "ir", "--vis", "vis", *methods, cwd=odd_folders)
    assert done.returncode == 0, done.stderr
    assert is_safe(done.stdout + done.stderr), done.stdout + done.stderr
    tables = [
        read_results(odd_folders / "out" / name).table
        for name in ("", "results.csv", "results.parquet")
    ]
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[-1], check_dtype=False)
    assert set(tables[0]["method"]) == {"m", "=1+1", "<b>\x1b[31m\n"}
    shown = {unicodedata.normalize("NFC", name) for name in NAMES}
    shown = {os.fsencode(name).decode("utf-8", "backslashreplace") for name in shown}
    assert set(tables[0]["scene"]) == shown
    # Text as it is, quoted: a table that is read by programs does not change names.
    with (odd_folders / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        assert {row["scene"] for row in csv.DictReader(file)} == shown


@pytest.mark.slow
def test_odd_names_of_fused_images(odd_folders, weights):
    good = sorted(os.listdir(odd_folders / "methods" / "m"))
    paths = [f"methods/m/{name}" for name in good]
    given = ("score", "--ir", "ir/a b.png", "--vis", "vis/a b.png", "--model", weights)
    done = fuscore(*given, *paths, "gone\x1b[31m.png", cwd=odd_folders)
    assert done.returncode == 1, done.stderr
    assert is_safe(done.stdout + done.stderr)
    assert done.stderr.count(b"failed: ") == 1
    done = fuscore(*given, "--json", *paths, cwd=odd_folders)
    found = [one["fused"] for one in json.loads(done.stdout)["results"]]
    assert found == paths  # JSON's own escapes bring every name back


def test_composed_and_decomposed_names_are_one_scene(tmp_path):
    """As on a Mac and elsewhere: both spell é, with one character or with two."""
    for place, form in (("ir", "NFC"), ("vis", "NFD"), ("m", "NFD")):
        (tmp_path / place).mkdir()
        (tmp_path / place / unicodedata.normalize(form, "caf\u00e9.png")).touch()
    found = match_folders(tmp_path / "ir", tmp_path / "vis", {"m": tmp_path / "m"})
    assert [entry.scene for entry in found.entries] == ["caf\u00e9"]
    assert found.entries[0].vis.endswith("cafe\u0301.png")
    assert not found.unmatched


# Links, pipes, devices


@pytest.fixture
def links(tmp_path):
    """Folders with a link to itself, one to nothing, one to the folder above, and an image."""
    for place in ("ir", "vis", "methods/m"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for name in ("a", "loop"):
            Image.fromarray(GREY).save(folder / f"{name}.png")
        (folder / "up").symlink_to("..")
        (folder / "gone.png").symlink_to("nowhere.png")
    loop = tmp_path / "methods" / "m" / "loop.png"
    loop.unlink()
    loop.symlink_to("loop.png")
    (tmp_path / "methods" / "itself").symlink_to("itself")
    return tmp_path


def test_links_in_circles_do_not_end_a_run(links):
    methods, _ = method_folders([], links / "methods", others=[links / "methods" / "itself"])
    assert list(methods) == ["m"]
    found = match_folders(links / "ir", links / "vis", methods)
    assert [entry.scene for entry in found.entries] == ["a", "gone", "loop"]
    for entry, part in zip(found.entries[1:], ("No such file", "Too many levels"), strict=True):
        assert part in message_of(as_images, entry.fused, "fused")
    with pytest.raises(InputError, match="Cannot read the folder of itself"):
        match_folders(links / "ir", links / "vis", {"itself": links / "methods/itself"})


def test_a_folder_of_parquet_files_in_circles_is_refused(tmp_path):
    frame = pd.DataFrame({"ir": ["a"], "vis": ["b"], "fused": ["m/c"]})
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "loop").symlink_to(".")
    with pytest.raises(InputError):
        read_manifest(tmp_path)
    with pytest.raises(InputError):
        read_results(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/null", "socket"])
def test_pipes_and_devices_are_refused_not_waited_for(kind, tmp_path):
    path = Path(kind)
    if kind == "pipe":
        os.mkfifo(path := tmp_path / "pipe.png")
    elif kind == "socket":
        import socket

        path = tmp_path / "s.png"
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    readers = {
        "image": lambda: message_of(as_images, path, "fused"),
        "header": lambda: message_of(open_pictures, path, "fused"),
    }
    for read in readers.values():
        assert "a pipe or device" in _in_time(read)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_from_pipes_are_refused_not_waited_for(suffix, tmp_path):
    os.mkfifo(path := tmp_path / f"table.{suffix}")
    for read in (read_manifest, read_results):
        with pytest.raises(InputError, match="a pipe"):
            _in_time(lambda read=read: read(path))


def _in_time(call):
    """What a call returns or raises; a failure if it hangs."""
    found = []

    def work():
        try:
            found.append((call(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert found, "still waiting"
    result, error = found[0]
    if error is not None:
        raise error
    return result


def test_a_huge_folder_is_matched_in_little_time(tmp_path):
    """4,000 names in each of three folders."""
    for place in ("ir", "vis", "m"):
        (tmp_path / place).mkdir()
        for number in range(4_000):
            (tmp_path / place / f"{number}.png").touch()
    start = time.process_time()
    found = match_folders(tmp_path / "ir", tmp_path / "vis", {"m": tmp_path / "m"})
    assert len(found.entries) == 4_000
    assert time.process_time() - start < 2


def test_a_file_that_shrinks_between_header_and_pixels_is_an_error(tmp_path):
    path = tmp_path / "a.tiff"
    path.write_bytes(tiff([]))
    (picture,) = open_pictures(path, "fused")
    os.truncate(path, 500)
    assert "readable image" in message_of(picture.decode)
