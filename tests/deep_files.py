"""Files of more than 8 bits that Pillow reads, or reads wrongly, but does not write."""

import struct
import zlib

import numpy as np
from PIL.TiffTags import TAGS_V2

_IDS = {tag.name: number for number, tag in TAGS_V2.items()}


def tiff(pixels, order="<", **tags):
    """A TIFF of one strip a plane.

    Args:
        pixels: (H, W), (H, W, 3), or (3, H, W) for planes.
        order: "<" or ">".
        **tags: More of them, by the names of Pillow. Compression can be 1 or 8.
    """
    planes = pixels if pixels.shape[0] == 3 else pixels[None]
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

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    height, width, channels = (*pixels.shape, 1)[:3]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    found = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    if significant is not None:
        found += chunk(b"sBIT", bytes([significant] * channels))
    return b"\x89PNG\r\n\x1a\n" + found + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
