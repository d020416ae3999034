"""Encoded images, good, bad, or of more than 8 bits; what is read, and the error of a bad one."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffTags import TAGS_V2

from fuscore_metric.errors import InputError
from fuscore_metric.images.convert import as_images

HEIGHT, WIDTH = 40, 48
NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
_IDS = {tag.name: number for number, tag in TAGS_V2.items()}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour_type, pixels):
    """A PNG of any header, true or not."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def png_header(width, height):
    """A PNG whose header promises pixels that are not there."""
    return png(width, height, 8, 2, b"")


def encoded(format, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(NOISE)).save(buffer, format, **options)
    return buffer.getvalue()


def tiff(pixels, order="<", **tags):
    """A TIFF of one strip a plane; Pillow reads it, or reads it wrongly, but does not write it.

    Args:
        pixels: (H, W), (H, W, C), or (C, H, W) for planes.
        order: "<" or ">".
        **tags: More of them, by the names of Pillow. Compression can be 1 or 8.
    """
    planes = pixels if pixels.shape[0] in (3, 4) else pixels[None]
    height, width = planes.shape[1:3]
    bits = pixels.dtype.itemsize * 8
    strips = [plane.astype(pixels.dtype.newbyteorder(order)).tobytes() for plane in planes]
    if tags.get("Compression") == 8:
        strips = [zlib.compress(strip) for strip in strips]
    colours = pixels.size // height // width
    fields = {
        "ImageWidth": width,
        "ImageLength": height,
        "BitsPerSample": [bits] * colours,
        "Compression": 1,
        "PhotometricInterpretation": 1,
        "StripOffsets": 8 + np.cumsum([0] + [len(strip) for strip in strips[:-1]]),
        "SamplesPerPixel": colours,
        "RowsPerStrip": height,
        "StripByteCounts": [len(strip) for strip in strips],
        "PlanarConfiguration": 1 if len(planes) == 1 else 2,
        "SampleFormat": [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * colours,
    } | tags
    data = b"".join(strips)
    rows, behind = [], 8 + len(data) + 2 + 12 * len(fields) + 4
    values = b""
    for name, value in sorted(fields.items(), key=lambda field: _IDS[field[0]]):
        numbers = np.atleast_1d(value)
        packed = struct.pack(f"{order}{len(numbers)}I", *map(int, numbers))
        place = packed if len(numbers) == 1 else struct.pack(order + "I", behind + len(values))
        values += b"" if len(numbers) == 1 else packed
        rows.append(struct.pack(order + "HHI", _IDS[name], 4, len(numbers)) + place)
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    directory = struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4)
    return header + data + directory + values


def png16(pixels, significant=None):
    """A PNG of 16 bits.

    Args:
        pixels: (H, W) or (H, W, C) uint16.
        significant: Bits of each channel, for sBIT.
    """

    height, width, channels = (*pixels.shape, 1)[:3]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    found = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    if significant is not None:
        found += chunk(b"sBIT", bytes([significant] * channels))
    return b"\x89PNG\r\n\x1a\n" + found + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def message_of(call, *arguments, name="fused"):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(("Expected ", "`"))
    assert f"`{name}`" in message
    return message


def random_array(*shape, dtype=np.uint8, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def ramp16(low=7000, high=9000):
    """(H, W) uint16 whose least and greatest values are known."""
    return np.linspace(low, high, HEIGHT * WIDTH).round().astype(np.uint16).reshape(HEIGHT, WIDTH)


def one(images, argument="fused"):
    """The only image of what was given, which is as `as_images` promises."""
    (image,) = as_images(images, argument)
    assert image.shape[0] == 3
    assert image.ndim == 3
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert 0 <= image.min() <= image.max() <= 1
    return image
