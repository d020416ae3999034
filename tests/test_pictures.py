"""Images that may still be files: what is seen before decoding, and which are the same."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from fuscore_metric import _decode
from fuscore_metric.images import InputError, as_images
from fuscore_metric.pictures import load_triples, open_pictures, open_triples, source_pairs

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8)


@pytest.fixture
def no_decoding(monkeypatch):
    """Fails where a picture is decoded."""

    def refuse(*_args, **_options):
        raise AssertionError("decoded")

    monkeypatch.setattr(_decode, "_read", refuse)
    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)


def saved(path, pixels=RGB, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp", ".webp"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_header_says_the_size(tmp_path, suffix, orientation):
    options = {} if orientation is None or suffix == ".bmp" else {"exif": turned(orientation)}
    path = saved(tmp_path / f"image{suffix}", **options)
    (picture,) = open_pictures(path, "fused")
    (loaded,) = as_images(path, "fused")
    assert picture.shape == tuple(loaded.shape)
    assert torch.equal(picture.pixels(picture.decode()), loaded)


def test_orientation_behind_the_pixels_of_a_png_is_found(tmp_path):
    path = saved(tmp_path / "image.png", exif=turned(6))
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    chunk, rest = data[start : start + length], data[:start] + data[start + length :]
    end = rest.index(b"IEND") - 4
    path.write_bytes(rest[:end] + chunk + rest[end:])
    (picture,) = open_pictures(path, "fused")
    assert picture.shape == tuple(as_images(path, "fused")[0].shape) == (3, 48, 40)


def test_an_ordinary_png_is_not_decoded_when_opened(tmp_path, no_decoding):
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "a camera")
    path = saved(tmp_path / "image.png", pnginfo=info)
    assert open_pictures([path], "fused")[0].shape == (3, 40, 48)
    with pytest.raises(InputError, match="decoded"):
        open_pictures([path], "fused")[0].decode()


def test_what_the_header_shows_is_refused_before_anything_is_decoded(tmp_path, no_decoding):
    good = saved(tmp_path / "good.png")
    small = saved(tmp_path / "small.png", RGB[:32, :32])
    tiny = saved(tmp_path / "tiny.png", RGB[:8, :8])
    with pytest.raises(InputError, match=r"`fused\[1\]` as a readable image.*No such file"):
        open_triples([good, good], [good, good], [good, tmp_path / "none.png"])
    with pytest.raises(InputError, match=r"`fused\[1\]` with sides of at least 32"):
        open_triples(good, good, [good, tiny])
    with pytest.raises(InputError, match=r"`ir` is 40x48, `fused\[1\]` is 32x32"):
        open_triples(good, good, [good, small])


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    path = saved(tmp_path / "image.png")
    (picture,) = open_pictures([path], "fused")
    saved(path, RGB[:32])
    with pytest.raises(InputError, match=r"`fused\[0\]` as it was"):
        picture.decode()


def test_one_source_pair_serves_all_fused_images(tmp_path):
    path = saved(tmp_path / "image.png")
    ir, vis, fused = load_triples(path, RGB, [RGB, path, Image.fromarray(RGB)])
    assert len(ir) == len(vis) == len(fused) == 3
    assert all(torch.equal(image, ir[0]) for image in (*ir, *vis, *fused))


def pairs(ir, vis):
    return source_pairs(open_triples(ir, vis, vis))


def test_the_same_sources_get_the_same_number(tmp_path):
    a, b = (
        saved(tmp_path / f"{name}.png", pixels) for name, pixels in (("a", RGB), ("b", RGB[::-1]))
    )
    assert pairs([a, b, a, str(a)], [b, a, b, b]) == [0, 1, 0, 0]
    assert pairs([a, a], [b, a]) == [0, 1]  # one source alone does not make a pair
    arrays = np.stack([RGB, RGB[::-1], RGB])
    assert pairs(arrays, arrays) == [0, 1, 0]  # by their numbers
    other = arrays.copy()
    other[2, 5, 7, 0] ^= 1  # beside the sample
    assert pairs(other, arrays) == [0, 1, 2]
    one = torch.rand(1, 3, 40, 48)
    assert pairs(one.expand(3, -1, -1, -1), one.expand(3, -1, -1, -1)) == [0, 0, 0]
    assert pairs([one[0], one[0] * 0.5], [one[0], one[0]]) == [0, 1]


def test_sources_with_a_graph_are_the_same_only_as_one_object():
    batch = torch.rand(1, 3, 40, 48).repeat(2, 1, 1, 1).requires_grad_()
    assert pairs(batch, batch) == [0, 1]
    one = torch.rand(3, 40, 48, requires_grad=True)
    assert pairs([one, one], [one, one]) == [0, 0]
    assert pairs([one, one.detach()], [one, one]) == [0, 1]
