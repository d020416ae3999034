"""Bad inputs: each row says which part of the one-line message a user must get to see."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from fuscore_metric.errors import InputError
from fuscore_metric.images.checks import check_batch, check_triples, to_batch
from fuscore_metric.images.convert import as_images
from fuscore_metric.images.lazy import load_triples
from tests.helpers.image_files import NOISE, encoded, message_of, png_header, tiff

GOOD = NOISE[:32, :32]
GREY = NOISE[:40, :48, 0]


def frames(format):
    others = [Image.fromarray(NOISE[:, ::-1])]
    return encoded(format, save_all=True, append_images=others)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 64 64
%%EndComments
showpage
"""

# content of the file, its name, part of the message
FILES = {
    "missing": (None, "none.png", "No such file or directory"),
    "directory": ("directory", "folder.png", "Is a directory"),
    "empty": (b"", "empty.png", "the file is empty"),
    "text": (b"not an image\n" * 50, "text.png", "not in an image format that is read (BMP, GIF"),
    "newline in path": (b"x", "two\nlines.png", r"two\nlines.png"),
    "line separator in path": (None, "two\u2028lines.png", r"two\u2028lines.png"),
    "truncated PNG": (encoded("PNG")[:60_000], "half.png", "truncated"),
    "truncated JPEG": (encoded("JPEG")[:10_000], "half.jpg", "truncated"),
    "truncated BMP": (encoded("BMP")[:60_000], "half.bmp", "truncated"),
    "truncated TIFF": (encoded("TIFF")[:60_000], "half.tiff", "readable image"),
    "truncated GIF": (encoded("GIF")[:20_000], "half.gif", "readable image"),
    "truncated WebP": (encoded("WEBP")[:10_000], "half.webp", "readable image"),
    "truncated in the header": (encoded("PNG")[:20], "head.png", "readable image"),
    "no pixels behind the header": (png_header(64, 64), "hollow.png", "readable image"),
    "broken checksum": (encoded("PNG")[:29] + b"0000" + encoded("PNG")[33:], "c.png", "readable"),
    "animated GIF": (frames("GIF"), "moving.gif", "with several frames"),
    "animated PNG": (frames("PNG"), "moving.png", "with several frames"),
    "animated WebP": (frames("WEBP"), "moving.webp", "with several frames"),
    "multi-page TIFF": (frames("TIFF"), "pages.tiff", "with several frames"),
    "EPS": (EPS, "drawing.eps", "not in an image format"),
    "too many pixels": (png_header(8000, 8001), "a.png", "8001x8000 = 64008000"),
    "bomb, Pillow warns": (png_header(10_000, 10_000), "b.png", "at most 64000000 pixels"),
    "bomb, Pillow raises": (png_header(60_000, 60_000), "c.png", "decompression bomb"),
    "too small": (
        encoded("PNG", Image.new("L", (40, 31))),
        "s.png",
        "at least 32 pixels, got 31x40",
    ),
    "negative 16 bits": (
        encoded("TIFF", Image.new("I", (40, 40), -5)),
        "negative.tiff",
        "16-bit values from 0 to 65535, got -5 to -5",
    ),
    "over 16 bits": (
        encoded("TIFF", Image.new("I", (40, 40), 65536)),
        "wide.tiff",
        "16-bit values from 0 to 65535, got 65536 to 65536",
    ),
    "float TIFF": (encoded("TIFF", Image.new("F", (40, 40), 9)), "f.tiff", "divide by 255"),
    "float TIFF with NaN": (
        encoded("TIFF", Image.new("F", (40, 40), float("nan"))),
        "nan.tiff",
        "finite values, got NaN",
    ),
}


def write(folder: Path, content, name):
    path = folder / name
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("case", FILES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_files(case, lenient, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    content, name, part = FILES[case]
    path = write(tmp_path, content, name)
    message = message_of(as_images, path, "fused")
    assert part in message
    assert message == message_of(as_images, str(path), "fused")
    in_list = message_of(as_images, [GOOD, path], "fused", name="fused[1]")
    assert in_list == message.replace("`fused`", "`fused[1]`")


# These errors are about numbers and say the same for every door; all others name the path.
ABOUT_NUMBERS = {
    "too many pixels",
    "bomb, Pillow warns",
    "too small",
    "negative 16 bits",
    "over 16 bits",
    "float TIFF",
    "float TIFF with NaN",
}


@pytest.mark.parametrize("case", sorted(FILES.keys() - ABOUT_NUMBERS))
def test_file_errors_name_the_path(case, tmp_path):
    content, name, _ = FILES[case]
    path = write(tmp_path, content, name)
    assert f"got {str(path)!r}" in message_of(as_images, path, "fused")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "GIF"])
def test_truncated_pil_image(format, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(format)
    half = Image.open(io.BytesIO(data[: len(data) // 2]))
    assert "a readable image, got a PIL image" in message_of(as_images, half, "fused")


def at_every_length(data, step):
    return [data[:length] for length in range(1, len(data) - 200, step)]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000", "PPM"])
def test_truncated_anywhere(format, tmp_path, monkeypatch):
    """Half a file never becomes half a picture."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(format)
    for part in at_every_length(data, len(data) // 25):
        message_of(as_images, write(tmp_path, part, "part"), "vis", name="vis")


def test_16_bit_colour_of_which_pillow_reads_8(tmp_path):
    for levels, accepted in ((256, ["vis"]), (16, [])):
        planes = np.random.default_rng(0).integers(0, levels * 256, (3, 40, 48)).astype(np.uint16)
        path = write(tmp_path, tiff(planes, PhotometricInterpretation=2, Compression=8), "p.tif")
        for argument in ("ir", "vis"):
            if argument in accepted:
                assert len(as_images(path, argument)) == 1
            else:
                message = message_of(as_images, path, argument, name=argument)
                assert "16-bit colour" in message
                assert "save it as 16-bit grey" in message


def test_deep_tiff_that_is_not_read(tmp_path):
    for pixels, part in ((np.zeros((40, 48)), "float64"), (GREY.astype(np.int8), "signed bytes")):
        assert part in message_of(as_images, write(tmp_path, tiff(pixels), "a.tif"), "fused")


def test_masked_pixels():
    masked = np.ma.masked_less(GREY, 100)
    assert "without masked pixels" in message_of(as_images, masked, "fused")
    masked.mask = True
    assert "not masked" in message_of(as_images, masked, "ir", name="ir")


def test_unreadable_permissions(tmp_path, monkeypatch):
    path = write(tmp_path, encoded("PNG"), "a.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)  # root may read everything, so chmod would not do
    assert message_of(as_images, path, "fused").endswith(f"{str(path)!r}: Permission denied")


def test_lower_pixel_limit_of_the_user(tmp_path, monkeypatch):
    path = write(tmp_path, encoded("PNG"), "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 39_999)
    with pytest.warns(Image.DecompressionBombWarning):
        assert "at most 39999 pixels" in message_of(as_images, path, "fused")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert len(as_images(path, "fused")) == 1
    huge = write(tmp_path, png_header(60_000, 60_000), "b.png")
    assert "at most 64000000 pixels" in message_of(as_images, huge, "fused")


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_bomb_warning_as_error(tmp_path):
    path = write(tmp_path, png_header(10_000, 10_000), "a.png")
    assert "decompression bomb" in message_of(as_images, path, "fused")


def closed_image():
    image = Image.open(io.BytesIO(encoded("PNG")))
    image.close()
    return image


def tensor(*shape, value=0.5, dtype=torch.float32):
    return torch.full(shape, value).to(dtype)


def array(*shape, value=0.5, dtype=np.float32):
    return np.full(shape, value).astype(dtype)


def spiked(value):
    image = tensor(3, 32, 32)
    image[1, 2, 3] = value
    return image


HWC_HINT = "numpy arrays are HWC; use a torch tensor for CHW"
CHW_HINT = "torch tensors are CHW; use a numpy array for HWC"
INT_HINT = "use uint8 for values from 0 to 255, uint16 for more"
TYPES = "a path, PIL image, numpy array, torch tensor or list of these, got "

# input, part of the message, name in the message (`fused` where not given)
IN_MEMORY = {
    "None": (None, TYPES + "NoneType"),
    "dict": ({"a": GOOD}, TYPES + "dict"),
    "number": (3.0, TYPES + "float"),
    "bytes": (b"abc", "got 3 bytes: not in an image format"),
    "no bytes": (b"", "got 0 bytes: the file is empty"),
    "open as text": (io.StringIO("abc"), "got StringIO: opened as text"),
    "URL": ("https://example.org/a.png", "'https://example.org/a.png': URLs are not read"),
    "URL as a path": (Path("s3://bucket/a.png"), "URLs are not read"),
    "directory": (".", "`fuscore rank` scores folders"),
    "set": ({1}, TYPES + "set"),
    "empty generator": ((GOOD for _ in range(0)), "at least one image, got none"),
    "objects": (np.array([GOOD, None], dtype=object), TYPES + "NoneType", "fused[1]"),
    "empty list": ([], "at least one image, got none"),
    "empty tuple": ((), "at least one image, got none"),
    "empty string": ("", "got '': No such file or directory"),
    "NUL in path": ("a\0b", "null"),
    "list of None": ([None], TYPES + "NoneType", "fused[0]"),
    "list of dict": ([GOOD, {}], TYPES + "dict", "fused[1]"),
    "nested list": ([[GOOD]], TYPES + "list", "fused[0]"),
    "numbers": ([[0.1, 0.2], [0.3, 0.4]], TYPES + "list", "fused[0]"),
    "batch in list": ([GOOD, NOISE[None].repeat(2, 0)], "got a batch of 2", "fused[1]"),
    "tensor batch in list": ([tensor(3, 3, 32, 32)], "got a batch of 3", "fused[0]"),
    # PIL
    "closed PIL image": (closed_image(), "closed"),
    "PIL mode La": (Image.new("La", (40, 40)), "La"),
    "PIL too small": (Image.new("RGB", (31, 40)), "got 40x31"),
    "PIL negative I": (Image.new("I", (40, 40), -1), "got -1 to -1"),
    "PIL float": (Image.new("F", (40, 40), 9), "divide by 255"),
    "PIL EPS": (Image.open(io.BytesIO(EPS)), "an EPS drawing"),
    "PIL frames": (Image.open(io.BytesIO(frames("GIF"))), "with several frames"),
    # numpy
    "0-d": (array(), "got ()"),
    "1-d": (array(64), "got (64,)"),
    "5-d": (array(1, 1, 32, 32, 3), "got (1, 1, 32, 32, 3)"),
    "2 channels": (array(32, 32, 2), "got (32, 32, 2)"),
    "5 channels": (array(2, 32, 32, 5), "got (2, 32, 32, 5)"),
    "no channels": (array(32, 32, 0), "got (32, 32, 0)"),
    "no images": (array(0, 32, 32, 3), "got (0, 32, 32, 3)"),
    "CHW": (array(3, 32, 48), HWC_HINT),
    "grey CHW": (array(1, 32, 48), HWC_HINT),
    "NCHW": (array(2, 3, 32, 48), HWC_HINT),
    "no pixels": (array(0, 0, 3), "got (0, 0, 3)"),
    "no columns": (array(40, 0), "got 40x0"),
    "small": (array(31, 400, 3), "sides of at least 32 pixels, got 31x400"),
    "small in batch": (array(2, 32, 8, 3), "got 32x8", "fused[0]"),
    "too large": (np.broadcast_to(np.uint8(0), (8001, 8000)), "at most 64000000 pixels"),
    "object": (np.array([[None]]), "got object"),
    "only 0 and 1": (GREY // 128, "got 0 and 1 only: multiply"),
    "int64": (array(32, 32, dtype=np.int64), f"got int64: {INT_HINT}"),
    "int32": (array(32, 32, dtype=np.int32), f"got int32: {INT_HINT}"),
    "uint32": (array(32, 32, dtype=np.uint32), f"got uint32: {INT_HINT}"),
    "bool": (array(32, 32, dtype=bool), "got bool: use uint8 with 0 and 255"),
    "complex": (array(32, 32, dtype=np.complex64), "got complex64"),
    "string": (np.full((32, 32), "a"), "dtype uint8, uint16, float16, float32, float64, got str"),
    "NaN": (array(32, 32, value=np.nan), "finite values, got NaN or infinity"),
    "8 bits as float": (NOISE.astype(np.float32), "got 0 to 255: divide by 255"),
    "[-1, 1]": (NOISE / 127.5 - 1, "got -1 to 1: use (x + 1) / 2"),
    "a little too much": (array(32, 32, value=1.01), "got 1.01 to 1.01: clamp or rescale"),
    # torch
    "tensor HW": (tensor(32, 32), "got (32, 32): add the channel axis with .unsqueeze(0)"),
    "tensor of features": (tensor(3, 64), "got (3, 64)"),
    "tensor HWC": (tensor(32, 48, 3), CHW_HINT),
    "tensor NHWC": (tensor(2, 32, 48, 3), CHW_HINT),
    "tensor 2 channels": (tensor(2, 32, 48), "got (2, 32, 48)"),
    "tensor 5 channels": (tensor(5, 32, 48), "got (5, 32, 48)"),
    "tensor without images": (tensor(0, 3, 32, 32), "got (0, 3, 32, 32)"),
    "tensor small": (tensor(3, 32, 31), "got 32x31"),
    "tensor too large": (torch.zeros(()).expand(3, 8001, 8000), "at most 64000000 pixels"),
    "tensor only 0 and 1": (tensor(3, 32, 32, value=1, dtype=torch.uint8), "got 0 and 1 only"),
    "tensor int64": (tensor(3, 32, 32, dtype=torch.int64), f"got int64: {INT_HINT}"),
    "tensor bool": (tensor(3, 32, 32, dtype=torch.bool), "got bool: use uint8"),
    "tensor complex": (tensor(3, 32, 32, dtype=torch.complex64), "got complex64"),
    "tensor sparse": (tensor(3, 32, 32).to_sparse(), "dense tensor, got layout torch.sparse_coo"),
    "tensor NaN": (spiked(torch.nan), "finite values"),
    "tensor inf": (spiked(torch.inf), "finite values"),
    "tensor -inf": (spiked(-torch.inf), "finite values"),
    "tensor 255": (spiked(255.0), "values in [0, 1], got 0.5 to 255: divide by 255"),
    "tensor below": (spiked(-2e-4), "got -0.0002 to 0.5: use (x + 1) / 2"),
    "tensor far below": (spiked(-2.5), "got -2.5 to 0.5: clamp or rescale"),
    "tensor above": (spiked(1.0002), "got 0.5 to 1.0002: clamp or rescale"),
    "one bad in batch": (
        torch.stack([spiked(0.1), spiked(7.0)]),
        "got 0.5 to 7: divide by 255",
        "fused[1]",
    ),
}


@pytest.mark.parametrize("case", IN_MEMORY)
def test_in_memory(case):
    images, part, *name = IN_MEMORY[case]
    message = message_of(as_images, images, "fused", name=name[0] if name else "fused")
    assert part in message


@pytest.mark.parametrize("argument", ["ir", "vis", "fused"])
def test_every_argument_is_named(argument):
    good = dict.fromkeys(("ir", "vis", "fused"), GOOD)
    with pytest.raises(InputError, match=f"`{argument}`"):
        load_triples(**(good | {argument: None}))


@pytest.mark.parametrize(
    "images",
    [array(32, 32, value=7300.0), array(32, 32, value=-3.0), Image.new("F", (40, 40), 300.0)],
)
def test_float_infrared_out_of_range_is_refused(images):
    message_of(as_images, images, "ir", name="ir")


IMAGE, SMALL = torch.rand(3, 48, 64), torch.rand(3, 36, 48)


@pytest.mark.parametrize(
    ("triples", "expected"),
    [
        (([IMAGE], [IMAGE], [SMALL]), "`ir` is 48x64, `fused` is 36x48"),
        (([IMAGE], [SMALL], [IMAGE]), "`ir` is 48x64, `vis` is 36x48"),
        (([IMAGE, IMAGE], [IMAGE, IMAGE], [IMAGE, SMALL]), "`ir[1]` is 48x64, `fused[1]` is"),
        (([IMAGE], [IMAGE], [IMAGE, SMALL]), "`ir` is 48x64, `fused[1]` is 36x48"),
        (([IMAGE], [IMAGE, IMAGE], [IMAGE, IMAGE]), "got 1, 2 and 2"),
        (([IMAGE, IMAGE], [IMAGE, IMAGE], [IMAGE]), "got 2, 2 and 1"),
    ],
)
def test_triples(triples, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        check_triples(*triples)


def test_to_batch():
    assert message_of(to_batch, [], name="images").endswith("got none")
    message = message_of(to_batch, [IMAGE, SMALL], name="images")
    assert "48x64" in message
    assert "`images[1]`) 36x48" in message


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (tensor(3, 64), "Expected `fused` with shape (N, 3, H, W), got (3, 64)"),
        (tensor(3, 32, 32), "shape (N, 3, H, W), got (3, 32, 32)"),
        (tensor(2, 1, 32, 32), "got (2, 1, 32, 32)"),
        (tensor(0, 3, 32, 32), "got (0, 3, 32, 32)"),
        (tensor(1, 3, 32, 32, dtype=torch.uint8), "a floating dtype, got torch.uint8"),
        (tensor(1, 3, 31, 32), "sides of at least 32 pixels, got 31x32"),
        (array(1, 3, 32, 32), "a torch tensor (N, 3, H, W), got ndarray"),
        (None, "got NoneType"),
    ],
)
def test_check_batch(images, part):
    assert part in message_of(check_batch, images, "fused")


def test_black_bytes_are_scored_with_a_warning():
    with pytest.warns(UserWarning, match="black everywhere"):
        (found,) = as_images(np.zeros_like(GREY), "fused")
    assert not found.any()
