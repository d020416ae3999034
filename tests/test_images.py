"""Good inputs: every door gives the same pixels, and numbers mean what `as_images` says."""

import io
import math
import os
import threading
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.nn import functional as F

from fuscore_metric.images import (
    MIN_SIDE,
    as_images,
    check_batch,
    check_triples,
    fit_pixels,
    resize,
    to_batch,
)
from fuscore_metric.pictures import load_triples
from tests.deep_files import png16, tiff

HEIGHT, WIDTH = 40, 48


def random_array(*shape, dtype=np.uint8, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def ramp16(low=7000, high=9000):
    """(H, W) uint16 whose least and greatest values are known."""
    return np.linspace(low, high, HEIGHT * WIDTH).round().astype(np.uint16).reshape(HEIGHT, WIDTH)


@pytest.fixture
def rgb():
    return random_array(HEIGHT, WIDTH, 3)


@pytest.fixture
def expected(rgb):
    return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255


def one(images, argument="fused"):
    (image,) = as_images(images, argument)
    assert image.shape[0] == 3
    assert image.ndim == 3
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert 0 <= image.min() <= image.max() <= 1
    return image


class TestDoors:
    @pytest.mark.parametrize(
        "convert",
        [
            Image.fromarray,
            lambda a: Image.fromarray(a).convert("RGBA"),
            lambda a: a,
            lambda a: a[None],
            lambda a: np.dstack([a, a[..., :1]]),
            lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
            lambda a: np.asfortranarray(a),
            lambda a: np.asarray(Image.fromarray(a)),  # read-only
            lambda a: a.astype(np.float64) / 255,
            lambda a: a.astype(np.float32) / 255,
            lambda a: (a.astype(np.float32) / 255).astype(">f4"),
            lambda a: torch.from_numpy(a).permute(2, 0, 1),
            lambda a: torch.from_numpy(a).permute(2, 0, 1)[None],
            lambda a: torch.from_numpy(np.dstack([a, a[..., :1]])).permute(2, 0, 1),
            lambda a: torch.from_numpy(a).permute(2, 0, 1).float() / 255,
            lambda a: torch.from_numpy(a).permute(2, 0, 1).double() / 255,
            lambda a: [a],
            lambda a: (torch.from_numpy(a).permute(2, 0, 1)[None],),
        ],
    )
    @pytest.mark.parametrize("argument", ["ir", "vis", "fused"])
    @pytest.mark.filterwarnings("error")
    def test_in_memory(self, rgb, expected, convert, argument):
        torch.testing.assert_close(one(convert(rgb), argument), expected, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "ppm"])
    @pytest.mark.parametrize("kind", [str, os.fspath, lambda p: p, lambda p: [p], Image.open])
    def test_files(self, rgb, expected, tmp_path, suffix, kind):
        path = tmp_path / f"image.{suffix}"
        Image.fromarray(rgb).save(path)
        assert torch.equal(one(kind(path)), expected)

    def test_files_that_are_no_paths(self, rgb, expected, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        path = tmp_path / "image.png"
        Image.fromarray(rgb).save(path)
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            archive.write(path, "in/image.png")
        just_written = io.BytesIO()
        Image.fromarray(rgb).save(just_written, "PNG")
        data = path.read_bytes()
        with zipfile.ZipFile(tmp_path / "images.zip") as archive, path.open("rb") as file:
            kinds = [
                *("~/image.png", file, just_written, data, bytearray(data), memoryview(data)),
                *(zipfile.Path(archive, "in/image.png"), archive.open("in/image.png")),
            ]
            for kind in kinds:
                for images in (kind, [kind]):
                    assert torch.equal(one(images), expected), kind

    def test_columns(self, rgb, tmp_path):
        paths = []
        for number in range(3):
            paths.append(str(tmp_path / f"{number}.png"))
            Image.fromarray(np.roll(rgb, number, 0)).save(paths[-1])
        frame = pytest.importorskip("pandas").DataFrame({"fused": paths}, index=[7, 5, 3])
        columns = [
            *(frame.fused, frame.fused.to_numpy(object), frame.fused.array, np.array(paths)),
            *((path for path in paths), dict(enumerate(paths)).values()),
        ]
        for column in columns:
            for image, path in zip(as_images(column, "fused"), paths, strict=True):
                assert torch.equal(image, one(path)), type(column)

    def test_half_precision(self, rgb, expected):
        assert torch.equal(one(expected.half()), expected.half().float())
        assert torch.equal(one(expected.bfloat16()), expected.bfloat16().float())
        assert torch.equal(one((rgb / 255).astype(np.float16)), expected.half().float())

    def test_mixed_list(self, rgb, expected, tmp_path):
        Image.fromarray(rgb).save(tmp_path / "a.png")
        images = as_images(
            [str(tmp_path / "a.png"), Image.fromarray(rgb), rgb, expected, rgb[:, :, 0]], "vis"
        )
        assert len(images) == 5
        for image in images[:4]:
            assert torch.equal(image, expected)
        assert torch.equal(images[4], expected[:1].expand(3, -1, -1))

    def test_batches(self):
        batch = random_array(3, HEIGHT, WIDTH, 3)
        singles = [one(image) for image in batch]
        tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
        for images in (as_images(batch, "vis"), as_images(tensor, "vis")):
            assert len(images) == 3
            assert torch.equal(to_batch(images), to_batch(singles))

    def test_alpha_is_dropped_not_blended(self, rgb, expected):
        transparent = np.dstack([rgb, np.zeros_like(rgb[..., :1])])
        assert torch.equal(one(Image.fromarray(transparent)), expected)
        assert torch.equal(one(transparent), expected)
        alpha = torch.full((1, HEIGHT, WIDTH), 9.0)  # out of range, and not looked at
        assert torch.equal(one(torch.cat([expected, alpha])), expected)


class TestPilModes:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
    def test_grey_becomes_three_equal_channels(self, mode):
        image = one(Image.fromarray(ramp16()) if mode == "I;16" else Image.new(mode, (40, 32), 1))
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])

    @pytest.mark.parametrize("mode", ["P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa"])
    def test_colour_modes_are_what_pillow_shows(self, rgb, mode):
        smooth = Image.fromarray(rgb).resize((96, 64))
        via = {"RGBa": "RGBA", "PA": "P", "LAB": "RGB"}.get(mode, mode)
        image = Image.new("LAB", (96, 64), (90, 20, 200)) if mode == "LAB" else smooth.convert(via)
        image = image.convert(mode)
        shown = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
        assert torch.equal(one(image), shown)

    def test_grey_everywhere_is_the_same(self, tmp_path):
        grey = random_array(HEIGHT, WIDTH)
        Image.fromarray(grey).save(tmp_path / "grey.png")
        doors = [
            tmp_path / "grey.png",
            Image.fromarray(grey),
            grey,
            grey[..., None],
            torch.from_numpy(grey)[None],
            np.dstack([grey] * 3),
        ]
        for door in doors:
            assert torch.equal(one(door), torch.from_numpy(grey).expand(3, -1, -1) / 255)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
    def test_exif_orientation(self, rgb, tmp_path, orientation, suffix):
        turned = {  # as a viewer shows it, in numpy's words
            1: lambda a: a,
            2: lambda a: a[:, ::-1],
            3: lambda a: a[::-1, ::-1],
            4: lambda a: a[::-1],
            5: lambda a: a.transpose(1, 0, 2),
            6: lambda a: np.rot90(a, -1),
            7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
            8: lambda a: np.rot90(a),
        }[orientation]
        path = tmp_path / f"turned.{suffix}"
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(rgb).save(path, exif=exif)
        plain = tmp_path / f"plain.{suffix}"
        Image.fromarray(rgb).save(plain)
        shown = turned(np.array(Image.open(plain)))
        assert torch.equal(one(path), one(np.ascontiguousarray(shown)))
        assert torch.equal(one(Image.open(path)), one(path))

    def test_exif_orientation_of_16_bits(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(ramp16()).save(tmp_path / "turned.png", exif=exif)
        turned = one(tmp_path / "turned.png", "ir")
        assert torch.equal(turned, one(np.rot90(ramp16(), -1), "ir"))

    def test_mpo_photograph_is_its_first_frame(self, rgb, tmp_path):
        path = tmp_path / "photo.jpg"
        image = Image.fromarray(rgb)
        image.save(path, format="MPO", save_all=True, append_images=[image.rotate(90)])
        assert Image.open(path).n_frames == 2
        image.save(tmp_path / "plain.jpg")
        assert torch.equal(one(path), one(tmp_path / "plain.jpg"))


def doors_of_16_bits(array, folder):
    Image.fromarray(array).save(folder / "deep.png")
    Image.fromarray(array).save(folder / "deep.tiff")
    return {
        "numpy": array,
        "numpy big-endian": array.astype(">u2"),
        "numpy HWC": array[..., None],
        "tensor": torch.from_numpy(array)[None],
        "PIL": Image.fromarray(array),
        "PIL big-endian": Image.frombytes(
            "I;16B", array.shape[::-1], array.astype(">u2").tobytes()
        ),
        "PIL mode I": Image.fromarray(array.astype(np.int32)),
        "PNG": folder / "deep.png",
        "TIFF": folder / "deep.tiff",
    }


class Test16Bits:
    @pytest.mark.parametrize("argument", ["vis", "fused", "ir"])
    def test_every_door(self, tmp_path, argument):
        array = ramp16(7000, 19000)
        values = torch.from_numpy(array.astype(np.float64))
        values = (values - 7000) / 12000 if argument == "ir" else values / 65535
        for door, images in doors_of_16_bits(array, tmp_path).items():
            image = one(images, argument)
            assert torch.allclose(image.double(), values.expand(3, -1, -1), atol=1e-7), door

    def test_thermal_uses_its_whole_range_and_keeps_order(self):
        array = ramp16(0, 65535)
        image = one(array, "ir")[0].flatten()
        assert image.min() == 0
        assert image.max() == 1
        assert (image.diff() > 0).all()
        assert torch.equal(one(ramp16(7000, 9000) // 2 + 100, "ir"), one(ramp16() // 2, "ir"))

    def test_constant_thermal_is_zero(self):
        assert one(np.full((HEIGHT, WIDTH), 7300, np.uint16), "ir").eq(0).all()

    def test_negative_and_wide_thermal_counts(self):
        counts = np.full((HEIGHT, WIDTH), -(2**31), np.int32)
        counts[0, 0], counts[1, 1] = 2**31 - 1, 0
        image = one(Image.fromarray(counts), "ir")
        assert image[0, 0, 0] == 1
        assert image[0, 1, 1] == pytest.approx(0.5)
        assert image[0, 2, 2] == 0

    def test_each_image_of_a_batch_has_its_own_range(self):
        batch = np.stack([ramp16(0, 4000), ramp16(7000, 9000)])[..., None]
        for image in as_images(batch, "ir"):
            assert (image.min(), image.max()) == (0, 1)

    def test_alpha_does_not_widen_the_range(self):
        alpha = np.full((HEIGHT, WIDTH), 65535, np.uint16)
        colour = np.dstack([ramp16()] * 3)
        assert torch.equal(one(np.dstack([colour, alpha]), "ir"), one(ramp16(), "ir"))

    def test_8_bit_infrared_is_not_stretched(self):
        assert one(np.full((HEIGHT, WIDTH), 51, np.uint8), "ir").eq(0.2).all()

    @pytest.mark.parametrize("kind", ["dead pixel", "hot pixel", "dead row", "telemetry"])
    def test_what_is_no_part_of_the_picture_does_not_count(self, kind):
        counts = random_array(240, 320, dtype=np.uint16, high=2000) + np.uint16(21000)
        # Lamps: far above the rest, but with everything in between.
        counts[100:120, 100:120] = np.linspace(21000, 27000, 400).reshape(20, 20)
        where, value = {
            "dead pixel": ((5, 5), 0),
            "hot pixel": ((5, 5), 65535),
            "dead row": (77, 0),
            "telemetry": (slice(-2, None), random_array(2, 320, high=65536, dtype=np.uint16)),
        }[kind]
        right = one(counts, "ir")
        assert right.max() - right[:, :50].mean() > 0.8  # not clipped
        spoiled = counts.copy()
        spoiled[where] = value
        good = np.ones(counts.shape, bool)
        good[where] = False
        close = (one(spoiled, "ir") - right).abs()[:, torch.from_numpy(good)].max()
        assert close < (0.2 if kind == "telemetry" else 1e-3)

    def test_masked_thermal_counts_do_not_count(self):
        counts = ramp16()
        masked = np.ma.masked_array(counts.copy(), np.zeros(counts.shape, bool))
        masked[:4] = np.ma.masked
        masked.data[:4] = 0
        image = one(masked, "ir")
        assert torch.equal(image[:, 4:], one(counts[4:], "ir"))
        assert image[:, :4].sub(0.5).abs().max() < 1e-3
        assert torch.equal(as_images(np.ma.stack([masked, masked])[..., None], "ir")[1], image)

    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.int64])
    def test_thermal_counts_of_other_integers(self, dtype):
        counts = ramp16().astype(dtype)
        shifted = counts - 8000 if dtype != np.uint32 else counts + np.uint32(2**31)
        for image in (shifted, torch.from_numpy(shifted)[None]):
            assert torch.equal(one(image, "ir"), one(ramp16(), "ir"))

    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    @pytest.mark.parametrize("argument", ["vis", "fused", "ir"])
    def test_fewer_bits_than_the_type_has(self, tmp_path, bits, argument):
        array = ramp16(0, 2**bits - 1)
        expected = torch.from_numpy(array.astype(np.float32)) / (2**bits - 1)
        for door, images in doors_of_16_bits(array, tmp_path).items():
            if argument == "ir" and bits > 8:
                image = one(images, argument)  # its own range anyway
            else:
                with pytest.warns(UserWarning, match=f"`{argument}`.* 0 to {2**bits - 1}:"):
                    image = one(images, argument)
            assert torch.allclose(image, expected.expand(3, -1, -1), atol=1e-7), door

    @pytest.mark.parametrize("argument", ["ir", "vis"])
    def test_float_tiff_in_range(self, tmp_path, argument):
        array = np.random.default_rng(0).random((HEIGHT, WIDTH), dtype=np.float32)
        Image.fromarray(array).save(tmp_path / "float.tiff")
        assert torch.equal(one(tmp_path / "float.tiff", argument)[0], torch.from_numpy(array))


GREY = ramp16(300, 60000)
COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
PLANES = np.moveaxis(COLOUR, -1, 0)
UNIT = (ramp16(0, 65535) / 65535).astype(np.float32)


class TestDeepFiles:
    """Files of more than 8 bits that Pillow reads wrongly, in part, or without what they state."""

    @pytest.mark.parametrize(
        ("content", "argument", "same"),
        [
            (tiff(65535 - GREY, PhotometricInterpretation=0), "ir", GREY),
            (tiff(65535 - GREY, PhotometricInterpretation=0), "vis", GREY),
            (tiff(1 - UNIT, PhotometricInterpretation=0), "ir", UNIT),
            (tiff(GREY.astype(np.uint32) + np.uint32(2**31 - 30000)), "ir", GREY),
            (tiff(UNIT, ">", Compression=8), "vis", UNIT),
            (tiff(GREY.astype(np.int32) - 30000, ">", Compression=8), "ir", GREY),
            (tiff((GREY // 2).astype(np.int16), ">", Compression=8), "vis", GREY // 2),
            *(
                (tiff(pixels, order, PhotometricInterpretation=2, **compressed), argument, COLOUR)
                for pixels, compressed in (
                    (PLANES, {}),
                    (COLOUR, {}),
                    (COLOUR, {"Compression": 8}),
                )
                for order in "<>"
                for argument in ("ir", "vis")
            ),
            (png16(COLOUR), "ir", COLOUR),
            (png16(np.dstack([COLOUR, GREY])), "fused", COLOUR),
            (png16(np.dstack([GREY, GREY])), "ir", GREY),
        ],
    )
    @pytest.mark.filterwarnings("error")
    def test_right_pixels(self, tmp_path, content, argument, same):
        path = tmp_path / "deep"
        path.write_bytes(content)
        assert torch.allclose(one(path, argument), one(same, argument), rtol=0, atol=1e-6)
        with Image.open(path) as image:
            assert torch.equal(one(image, argument), one(path, argument))

    @pytest.mark.parametrize(
        ("content", "white"),
        [
            (png16(GREY // 64, 12), 4095),
            (png16(COLOUR // 64, 12), 4095),
            (png16(GREY // 64, 16), 65535),
            (png16(GREY, 12), 65535),  # as the standard has it: spread over all bits
            (tiff(GREY // 64, MaxSampleValue=2047), 2047),
            (tiff(GREY // 64, MaxSampleValue=3000), 4095),  # the largest of some other image
            (tiff(GREY // 64, SMaxSampleValue=65535), 65535),
        ],
    )
    @pytest.mark.filterwarnings("error")
    def test_what_a_file_states(self, tmp_path, content, white):
        path = tmp_path / "deep"
        path.write_bytes(content)
        with Image.open(path) as opened:
            for image in (path, opened):
                largest = one(image).max().item() * white
                assert largest == pytest.approx(60000 if largest > 4095 else 937, abs=0.01)


class TestGradients:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("shape", [(1, 32, 40), (3, 32, 40), (4, 32, 40), (2, 3, 32, 40)])
    def test_flow_through(self, shape, dtype):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        images.requires_grad_()
        to_batch(as_images(images, "fused")).sum().backward()
        per_pixel = torch.ones(shape)
        if len(shape) == 3 and shape[0] == 1:
            per_pixel *= 3  # grey is used three times
        if len(shape) == 3 and shape[0] == 4:
            per_pixel[3] = 0  # alpha is not used
        assert torch.equal(images.grad.float(), per_pixel)

    def test_list_elements(self):
        images = [torch.full((3, 32, 32), 0.5, requires_grad=True) for _ in range(2)]
        to_batch(as_images(images, "fused")).sum().backward()
        assert all(image.grad.eq(1).all() for image in images)

    def test_small_overshoot_is_clamped(self):
        image = torch.full((3, 32, 32), 0.5)
        image[0, 0, 0], image[0, 0, 1] = -9e-5, 1 + 9e-5
        clamped = one(image)
        assert clamped[0, 0, 0] == 0
        assert clamped[0, 0, 1] == 1

    def test_tensor_in_range_is_not_copied(self):
        image = torch.rand(3, 32, 32)
        assert one(image).data_ptr() == image.data_ptr()

    def test_numpy_input_is_not_changed(self):
        array = np.full((HEIGHT, WIDTH), 0.5, np.float32)
        one(array).zero_()
        assert (array == 0.5).all()


class TestTriples:
    def test_load(self, rgb, tmp_path):
        Image.fromarray(ramp16()).save(tmp_path / "ir.png")
        ir, vis, fused = load_triples(tmp_path / "ir.png", rgb, Image.fromarray(rgb))
        assert len(ir) == len(vis) == len(fused) == 1
        assert ir[0].shape == vis[0].shape == (3, HEIGHT, WIDTH)
        assert torch.equal(vis[0], fused[0])

    def test_triples_may_differ_in_size(self):
        images = [torch.rand(3, 32, 40), torch.rand(3, 64, 48)]
        check_triples(images, images, images)

    def test_check_batch_accepts(self):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            check_batch(torch.rand(2, 3, MIN_SIDE, 40).to(dtype), "fused")
        check_batch(
            torch.full((1, 3, MIN_SIDE, 40), torch.nan), "fused"
        )  # values: not its business
        check_batch(torch.empty(1, 3, MIN_SIDE, 40, device="meta"), "fused")


class TestLenientPillow:
    def test_flag_is_put_back(self, rgb, tmp_path, monkeypatch):
        Image.fromarray(rgb).save(tmp_path / "a.png")
        for flag in (True, False):
            monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", flag)
            one(tmp_path / "a.png")
            assert flag is ImageFile.LOAD_TRUNCATED_IMAGES

    def test_threads(self, tmp_path, monkeypatch):
        """Every thread sees the truncation, also while others enter and leave."""
        good, bad = tmp_path / "good.png", tmp_path / "bad.png"
        Image.fromarray(random_array(200, 200, 3)).save(good)
        bad.write_bytes(good.read_bytes()[:60_000])
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        missed = []

        def work(path):
            for _ in range(20):
                try:
                    as_images(path, "fused")
                except ValueError:
                    continue
                missed.append(path)

        threads = [threading.Thread(target=work, args=(p,)) for p in (good, bad) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert missed.count(bad) == 0
        assert missed.count(good) == 40
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True


class TestResize:
    def test_same_size_is_the_same_tensor(self):
        images = torch.rand(2, 3, 32, 40)
        assert resize(images, (32, 40)) is images

    def test_is_antialiased_bicubic_clamped(self):
        images = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0)).round()
        plain = F.interpolate(images, (50, 90), mode="bicubic", antialias=True)
        assert plain.max() > 1  # so the clamp has work to do
        assert torch.equal(resize(images, (50, 90)), plain.clamp(0, 1))

    def test_float32_out_and_gradient_back(self):
        images = torch.full((1, 3, 64, 64), 0.5, dtype=torch.bfloat16, requires_grad=True)
        small = resize(images, (32, 40))
        assert small.dtype == torch.float32
        assert small.shape == (1, 3, 32, 40)
        small.mean().backward()
        assert images.grad.float().sum() == pytest.approx(1, abs=0.02)
        assert resize(images, (64, 64)).dtype == torch.float32

    def test_agrees_with_pillow(self):
        smooth = Image.fromarray(random_array(20, 24, 3)).resize((96, 80), Image.Resampling.BICUBIC)
        ours = resize(one(smooth)[None], (40, 48))[0]
        theirs = one(smooth.resize((48, 40), Image.Resampling.BICUBIC))
        assert (ours - theirs).abs().max() < 2 / 255  # Pillow rounds to 8 bits twice


SIZES = [
    (height, width)
    for height in (32, 33, 97, 480, 513, 768, 1024, 4000, 6400)
    for width in (32, 45, 112, 360, 640, 1280, 3000, 6000)
]
BUDGETS = [(1, 10**9), (56 * 56, 28 * 28 * 1280), (256 * 256, 512 * 512), (65536, 65536)]


class TestFitPixels:
    @pytest.mark.parametrize("multiple", [1, 14, 16, 28, 32, 56])
    @pytest.mark.parametrize("budget", BUDGETS)
    def test_multiples_aspect_and_budget(self, multiple, budget):
        low, high = budget
        for height, width in SIZES:
            rows, columns = fit_pixels(
                height, width, min_pixels=low, max_pixels=high, multiple=multiple
            )
            assert rows % multiple == columns % multiple == 0
            assert min(rows, columns) >= multiple
            scales = [1, math.sqrt(low / (height * width)), math.sqrt(high / (height * width))]
            assert any(
                max(abs(rows - height * scale), abs(columns - width * scale)) <= multiple
                for scale in scales
            )
            if low < high and min(rows, columns) > multiple:
                assert low <= rows * columns <= high

    def test_within_budget_and_multiple_is_unchanged(self):
        assert fit_pixels(480, 640, min_pixels=1, max_pixels=10**6, multiple=1) == (480, 640)
        assert fit_pixels(480, 640, min_pixels=1, max_pixels=10**6, multiple=32) == (480, 640)

    @pytest.mark.parametrize(
        ("size", "fitted"),
        [
            ((480, 640), (476, 644)),  # to the nearest multiple
            ((3000, 4000), (840, 1148)),  # down, sides floored
            ((32, 32), (56, 56)),  # up, sides ceiled
        ],
    )
    def test_known_sizes(self, size, fitted):
        budget = {"min_pixels": 56 * 56, "max_pixels": 1_003_520, "multiple": 28}
        assert fit_pixels(*size, **budget) == fitted

    @pytest.mark.slow  # imports transformers
    def test_equals_transformers(self):
        """Its rule is copied in two modules; the PIL one can be imported without torchvision."""
        qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
        for multiple in (1, 14, 28, 32):
            for low, high in BUDGETS:
                for height, width in SIZES:
                    ours = fit_pixels(
                        height, width, min_pixels=low, max_pixels=high, multiple=multiple
                    )
                    theirs = qwen.smart_resize(height, width, multiple, low, high)
                    assert ours == theirs, (height, width, multiple, low, high)

    @pytest.mark.parametrize(
        "changed",
        [{"min_pixels": 0}, {"max_pixels": 10}, {"multiple": 0}, {"height": 0}, {"width": -3}],
    )
    def test_bad_arguments(self, changed):
        arguments = {
            "height": 64,
            "width": 64,
            "min_pixels": 100,
            "max_pixels": 1000,
            "multiple": 2,
        }
        with pytest.raises(ValueError, match="min_pixels"):
            fit_pixels(**(arguments | changed))
