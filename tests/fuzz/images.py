"""The image door: bytes of a file -> its size by the header -> pixels, or an `InputError`."""

from __future__ import annotations

import io
import random
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

from tests.fuzz.harness import Havoc, folder, instrumented, run

with instrumented(__name__, "PIL", "fuscore_metric.images"):
    import numpy as np
    import torch
    from PIL import Image

    Image.init()  # imports the readers of all formats, where most of the code is

    from fuscore_metric.errors import InputError
    from fuscore_metric.images.convert import as_images
    from fuscore_metric.images.files import file_header
    from fuscore_metric.images.lazy import load_triples

PIXEL_LIMIT = 200_000  # of Pillow's own, which the reader obeys: most inputs take milliseconds then
MAX_WARNINGS = 200
SIDE = 32
PNG = b"\x89PNG\r\n\x1a\n"


def one(data: bytes) -> None:
    """Read a file; anything but pixels of the size that the header says, or InputError, is wrong.

    Raises:
        AssertionError: Header and pixels, or two doors, contradict each other.
    """
    path = folder() / "image"
    path.write_bytes(data)
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for argument in ("ir", "vis"):
                _compare(path, argument)
            _read(lambda: load_triples(path, path, path))
        assert len(caught) <= MAX_WARNINGS, f"{len(caught)} warnings"
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _compare(path, argument) -> None:
    header = _read(lambda: file_header(path, argument, argument))
    images = _read(lambda: as_images(path, argument))
    if images is None:
        return
    (image,) = images
    assert header is not None, "pixels of a file whose header is refused"
    size = header[:2]
    assert tuple(image.shape) == (3, *size), f"{tuple(image.shape)} behind a header of {size}"
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    low, high = torch.aminmax(image)
    assert low >= 0
    assert high <= 1


def _read(call):
    """What a call returns, or None if it says in one line what is wrong."""
    try:
        return call()
    except InputError as error:
        message = str(error)
        assert len(message.splitlines()) == 1, message
        assert message.isprintable(), message
        assert len(message) < 1000, message[:1000]
        return None


def seeds() -> Iterator[bytes]:
    """Small images of every format and mode that Pillow writes, with orientations and frames."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE + 8, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels // 64 * 64)
    ramp = np.arange(SIDE * (SIDE + 8), dtype=np.uint16).reshape(SIDE, SIDE + 8)
    images = {mode: colour.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")}
    images |= {mode: colour.convert(mode) for mode in ("YCbCr", "LAB")}
    images |= {
        "I;16": Image.fromarray(ramp),
        "I": Image.fromarray(ramp.astype(np.int32)),
        "F": Image.fromarray((ramp / 65535).astype(np.float32)),
    }
    turned = Image.Exif()
    turned[0x0112] = 6
    options = {
        "PNG": ({}, {"exif": turned}, {"bits": 4}, {"transparency": 0}),
        "JPEG": ({}, {"exif": turned}, {"progressive": True}),
        "TIFF": ({}, {"exif": turned}, *({"compression": c} for c in _TIFF_COMPRESSIONS)),
        "WEBP": ({}, {"exif": turned, "lossless": True}),
        "GIF": ({}, {"transparency": 0}),
        "BMP": ({},),
        "PPM": ({},),
        "JPEG2000": ({},),
        "ICO": ({},),
        "TGA": ({},),
        "DDS": ({},),
        "PCX": ({},),
        "SGI": ({},),
        "IM": ({},),
        "ICNS": ({},),
    }
    for format, variants in options.items():
        for image in images.values():
            for variant in variants:
                if not _can_write(format, image.mode, variant):
                    continue
                try:
                    buffer = io.BytesIO()
                    image.save(buffer, format, **variant)
                except (OSError, ValueError, KeyError, TypeError, struct.error):
                    continue  # a mode that the format does not have
                if buffer.tell() <= 12_000:
                    yield buffer.getvalue()
    for format in ("PNG", "GIF", "TIFF", "WEBP", "MPO"):
        buffer = io.BytesIO()
        others = [colour.rotate(180)]
        colour.save(buffer, format, save_all=True, append_images=others)
        yield buffer.getvalue()
    yield b"P2 40 32 255 " + b"7 " * 1280
    yield b"Pf 40 32 -1.0\n" + bytes(4 * 1280)
    yield from _bitmaps_in_runs()


_TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4")


def _can_write(format: str, mode: str, options: dict[str, Any]) -> bool:
    """Whether libtiff has a compression for a mode: of others it dies (Pillow 12.3)."""
    only = {"jpeg": ("L", "RGB", "CMYK"), "group4": ("1",)}
    return format != "TIFF" or mode in only.get(options.get("compression", ""), (mode,))


def _bitmaps_in_runs() -> Iterator[bytes]:
    """BMP with run lengths, which Pillow reads and does not write."""
    runs = b"\x28\x01\x00\x00" * SIDE + b"\x00\x01"
    palette = bytes(4 * 256)
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, 40, SIDE, 1, 8, 1, len(runs), 0, 0, 256, 0)
    file = struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start)
    yield file + header + palette + runs


def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change a file; of a PNG a chunk, of TIFF and JPEG often a field of the header."""
    if data.startswith(PNG) and rng.random() < 0.9:
        return _mutate_png(data, rng, havoc)
    if data[:4] in (b"II*\0", b"MM\0*") and rng.random() < 0.7:
        return _mutate_tiff(data, rng)
    if rng.random() < 0.5:  # formats keep what matters at their beginning
        cut = rng.randint(1, 200)
        return havoc(data[:cut]) + data[cut:]
    return havoc(data)


def _mutate_png(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    chunks = _chunks(data)
    if not chunks:
        return havoc(data)
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    move = rng.random()
    if move < 0.1:
        chunks.append(chunks.pop(place))
    elif move < 0.2:
        chunks.insert(rng.randrange(len(chunks)), (kind, content))
    elif move < 0.35:
        chunks.insert(rng.randrange(len(chunks) + 1), _some_chunk(rng, havoc))
    elif kind == b"IDAT" and move < 0.8:
        chunks[place] = kind, _mutate_zlib(content, havoc)
    else:
        chunks[place] = kind, havoc(content)
    return PNG + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _some_chunk(rng: random.Random, havoc: Havoc) -> tuple[bytes, bytes]:
    exif = Image.Exif()
    exif[0x0112] = rng.randint(0, 9)
    xmp = b'<x tiff:Orientation="%d"/>' % rng.randint(0, 9)
    kinds = {
        b"eXIf": exif.tobytes(),
        b"tEXt": b"Comment\0" + bytes(rng.randint(0, 20)),
        b"zTXt": b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 4\n45786966\n"),
        b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + xmp,
        b"iCCP": b"name\0\0" + zlib.compress(bytes(rng.randint(0, 2000))),
        b"acTL": struct.pack(">II", rng.randint(0, 3), 0),
        b"fcTL": struct.pack(">IIIIIHHBB", 0, 40, SIDE, 0, 0, 1, 10, 0, 0),
        b"tRNS": bytes(rng.randint(0, 300)),
        b"PLTE": bytes(3 * rng.randint(0, 300)),
        b"gAMA": b"\0\0\0\0",
        b"cHRM": bytes(32),
        b"pHYs": bytes(9),
    }
    kind = rng.choice(sorted(kinds))
    return kind, havoc(kinds[kind]) if rng.random() < 0.3 else kinds[kind]


def _mutate_zlib(content: bytes, havoc: Havoc) -> bytes:
    try:
        return zlib.compress(havoc(zlib.decompress(content)), 1)
    except zlib.error:
        return havoc(content)


_NUMBERS = (0, 1, 2, 3, 6, 8, 32, 40, 255, 256, 32773, 34676, 65535, 2**31 - 1, 2**31, 2**32 - 1)
_TAGS = (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 338, 339)


def _mutate_tiff(data: bytes, rng: random.Random) -> bytes:
    """Change an entry of the first directory: tag, type, count or value."""
    order = "<" if data[:2] == b"II" else ">"
    found = bytearray(data)
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entry = start + 2 + 12 * rng.randrange(count + 1)  # the last is the next directory's place
        part = rng.randrange(4)
        if part == 0:
            struct.pack_into(f"{order}H", found, entry, rng.choice(_TAGS))
        elif part == 1:
            struct.pack_into(f"{order}H", found, entry + 2, rng.randint(0, 18))
        else:
            number = rng.choice((*_NUMBERS, start, len(data), rng.randrange(100)))
            struct.pack_into(f"{order}I", found, entry + 4 * (part - 1), number)
    except (struct.error, ValueError):
        place = rng.randrange(len(found))
        found[place] = rng.randrange(256)
    return bytes(found)


if __name__ == "__main__":
    run(sys.modules[__name__])
