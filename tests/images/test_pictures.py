"""Images that may still be files: what is seen before decoding, and which are the same."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from fuscore_metric.backbones.sizes import resize
from fuscore_metric.errors import InputError
from fuscore_metric.images import files as _decode
from fuscore_metric.images.convert import as_images
from fuscore_metric.images.cropping import find_crop
from fuscore_metric.images.lazy import load_triples, open_pictures, open_triples, source_pairs
from tests.helpers.image_files import tiff

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


class Loader(Sequence):
    """Makes its images when asked for them, each time anew or in one piece of memory."""

    def __init__(self, images, made):
        self.images, self.made = images, made

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        return self.made(self.images[number])


def as_tensor(image):
    return torch.from_numpy(image.copy()).movedim(-1, 0)


def filled(image):
    np.copyto(BYTES, image)
    return BYTES


BYTES, FLOATS = np.empty_like(RGB), torch.empty(3, 40, 48)
MADE = {
    "new arrays": np.copy,
    "new tensors": as_tensor,
    "new PIL images": Image.fromarray,
    "one array": filled,
    "one tensor": lambda image: FLOATS.copy_(as_tensor(image) / 255),
    "views of one tensor": lambda image: FLOATS.copy_(as_tensor(image) / 255)[:],
}


@pytest.mark.parametrize("kind", [Loader, lambda images, made: map(made, images)])
@pytest.mark.parametrize("made", MADE)
def test_what_a_loader_frees_or_fills_again_is_told_apart(made, kind):
    scenes = [np.roll(RGB, n, 0) for n in (0, 1, 2, 0, 3, 4, 5, 1)]
    opened = open_pictures(kind(scenes, MADE[made]), "ir")
    for picture, scene in zip(opened, scenes, strict=True):
        assert torch.equal(picture.pixels(picture.decode()), as_images(scene, "ir")[0])
    assert pairs(kind(scenes, MADE[made]), [RGB] * 8) == [0, 1, 2, 0, 3, 4, 5, 1]


def test_files_in_memory_are_the_same_by_their_content(tmp_path):
    files = [saved(tmp_path / f"{n}.png", np.roll(RGB, n, 0)) for n in range(2)]
    opened = [io.BytesIO(files[n].read_bytes()) for n in (0, 1, 0)]
    assert pairs(opened, [*files, files[0].read_bytes()]) == [0, 1, 2]
    assert pairs(opened, opened) == [0, 1, 0]


def test_sources_with_a_graph_are_the_same_only_as_one_object():
    batch = torch.rand(1, 3, 40, 48).repeat(2, 1, 1, 1).requires_grad_()
    assert pairs(batch, batch) == [0, 1]
    one = torch.rand(3, 40, 48, requires_grad=True)
    assert pairs([one, one], [one, one]) == [0, 0]
    assert pairs([one, one.detach()], [one, one]) == [0, 1]
    assert pairs(Loader([one, one], torch.clone), [one, one]) == [0, 1]


SHADES = RNG.integers(0, 256, (40, 48), dtype=np.uint8)


@pytest.mark.parametrize("kind", [str, Image.open])
def test_exif_of_some_of_a_triple_is_warned_of(tmp_path, recwarn, kind):
    plain = str(saved(tmp_path / "plain.png", SHADES))
    photograph = str(saved(tmp_path / "photograph.jpg", exif=turned(3)))
    upright = str(saved(tmp_path / "upright.jpg", exif=turned(1)))
    load_triples(plain, kind(upright), kind(upright))
    load_triples(kind(photograph), kind(photograph), kind(photograph))
    assert not recwarn.list
    file = "photograph.jpg.*" if kind is str else ""
    with pytest.warns(UserWarning, match=rf"`vis\[1\]` .*{file}EXIF orientation 3") as caught:
        load_triples([plain] * 2, [kind(upright), kind(photograph)], [plain] * 2)
    assert len(caught) == 1


def test_exif_is_named_where_the_sizes_differ(tmp_path):
    plain, photograph = saved(tmp_path / "a.png"), saved(tmp_path / "b.jpg", exif=turned(6))
    with pytest.raises(InputError, match=r"`vis` is 48x40.*`vis` .*b.jpg.*EXIF orientation 6"):
        open_triples(plain, photograph, plain)


def test_swapped_sources_are_warned_of(tmp_path, recwarn):
    grey = saved(tmp_path / "grey.png", SHADES)
    load_triples([grey, SHADES], [RGB, RGB], [RGB, RGB])
    load_triples(RGB, RGB, RGB)
    load_triples(np.zeros(RGB.shape), SHADES, RGB)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"`ir\[1\]` .*swapped") as caught:
        load_triples([SHADES, RGB, RGB], [RGB, grey, SHADES], [RGB] * 3)
    assert len(caught) == 1


def test_thermal_beside_colour_in_one_file_is_refused(tmp_path):
    """Not an alpha channel, which is opaque or transparent nearly everywhere."""
    both = np.dstack([RGB, SHADES])
    path = saved(tmp_path / "both.png", both)
    channels_first = torch.from_numpy(both).movedim(-1, 0)
    for ir in (path, [path], Image.open(path), both, both[None], channels_first, both / 255.0):
        with pytest.raises(
            InputError, match=r"`ir(\[0\])?` .* as `ir` and the first three as `vis`"
        ):
            load_triples(ir, path, [RGB])
    load_triples(RGB, both, both)
    cut_out = np.dstack([RGB, np.where(SHADES > 30, 255, SHADES).astype(np.uint8)])
    assert torch.equal(load_triples(cut_out, RGB, RGB)[0][0], as_images(RGB, "ir")[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [0, 2])
def test_thermal_beside_colour_in_a_tiff(tmp_path, dtype, extra):
    """Whether the file calls the fourth channel alpha or does not say what it is."""

    def written(image, name):
        pixels = image.astype(dtype) * (np.iinfo(dtype).max // 255)
        content = tiff(pixels, PhotometricInterpretation=2, ExtraSamples=extra)
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    path, grey = (
        written(np.dstack(parts), f"{len(parts)}.tif") for parts in ([RGB, SHADES], [SHADES] * 4)
    )
    decoded = Image.open(path)
    decoded.load()  # of 16 bits Pillow has kept 8
    for ir in (path, path.read_bytes(), Image.open(path), decoded):
        with pytest.raises(InputError, match=r"fourth channel|8 bits"):
            as_images(ir, "ir")
    as_images(grey, "ir")
    as_images(path, "vis")


# Cropped fusions


def scene_of(pair):
    """A source pair and its average, (3, H, W)."""
    ir, vis = (torch.from_numpy(np.array(image)).float().expand(3, -1, -1) for image in pair)
    return ir, vis, (ir + vis) / 2


@pytest.mark.parametrize("place", [(0, 0), (7, 10), (3, 1)])
def test_sources_are_cropped_as_the_fusion_was(pair, tmp_path, place):
    ir, vis, fused = scene_of(pair)
    part = (..., slice(place[0], place[0] + 80), slice(place[1], place[1] + 112))
    files = [
        saved(tmp_path / f"{n}.png", (one * 255).byte().movedim(0, -1).numpy())
        for n, one in enumerate((ir, vis, fused[part]))
    ]
    for given in (files, (ir, vis, fused[part])):
        with pytest.warns(UserWarning, match=f"top {place[0]}, left {place[1]}") as caught:
            found = load_triples(given[0], given[1], [given[2]] * 2, resize="crop")
        assert len(caught) == 1
        for column, whole in zip(found, (ir, vis, fused), strict=True):
            torch.testing.assert_close(column[1], whole[part], rtol=0, atol=1 / 255)
    triples = open_triples(*([one] for one in files), resize="crop")
    assert source_pairs([*triples, *open_triples(*files, resize="crop")]) == [0, 0]
    for option in (None, "crop"):
        whole = load_triples(ir, vis, fused, resize=option)
        assert torch.equal(whole[0][0], ir)


def test_what_is_no_crop_is_refused(pair, tmp_path):
    ir, vis, fused = scene_of(pair)
    small = resize(fused[None], (88, 120))[0]
    with pytest.raises(InputError, match="resize='crop'"):
        open_triples(ir, vis, fused[:, :80])
    with pytest.raises(InputError, match="resized"):
        open_triples(ir, vis, small, resize="crop")
    for larger in (resize(fused[None], (96, 130))[0], resize(fused[None], (80, 130))[0]):
        with pytest.raises(InputError, match=r"same height and width$"):
            open_triples(ir, vis, larger, resize="crop")


@pytest.mark.slow
@pytest.mark.real_data
def test_real_fusions_are_placed_to_the_pixel(real_data):
    found = 0
    for method in sorted((real_data / "VIFB" / "fused").iterdir()):
        for path in sorted(method.iterdir())[:2]:
            sources = (next((real_data / "VIFB" / x).glob(f"{path.stem}.*")) for x in ("ir", "vis"))
            ir, vis = (as_images(file, "fused")[0] for file in sources)
            whole = as_images(path, "fused")[0]
            height, width = ((side - 1) // 32 * 32 for side in whole.shape[-2:])
            spare = whole.shape[-2] - height, whole.shape[-1] - width
            for top, left in ((0, 0), (spare[0] // 2, spare[1] // 2), spare):
                part = whole[:, top : top + height, left : left + width]
                assert find_crop(ir, vis, part)[:2] == (top, left), path
            assert find_crop(ir, vis, resize(whole[None], (height, width))[0]) is None, path
            found += 1
    assert found == 50
