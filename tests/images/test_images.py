"""Good inputs: every door gives the same pixels, and numbers mean what `as_images` says."""

import io
import os
import threading
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from fuscore_metric.images.checks import MIN_SIDE, check_batch, check_triples, to_batch
from fuscore_metric.images.convert import as_images
from fuscore_metric.images.lazy import load_triples
from tests.helpers.image_files import HEIGHT, WIDTH, one, ramp16, random_array


@pytest.fixture
def rgb():
    return random_array(HEIGHT, WIDTH, 3)


@pytest.fixture
def expected(rgb):
    return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255


class TestDoors:
    @pytest.mark.parametrize(
        "convert",
        [
            Image.fromarray,
            lambda a: Image.fromarray(a).convert("RGBA"),
            lambda a: a,
            lambda a: a[None],
            lambda a: np.dstack([a, np.full_like(a[..., :1], 255)]),
            lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
            lambda a: np.asfortranarray(a),
            lambda a: np.asarray(Image.fromarray(a)),  # read-only
            lambda a: a.astype(np.float64) / 255,
            lambda a: a.astype(np.float32) / 255,
            lambda a: (a.astype(np.float32) / 255).astype(">f4"),
            lambda a: torch.from_numpy(a).permute(2, 0, 1),
            lambda a: torch.from_numpy(a).permute(2, 0, 1)[None],
            lambda a: torch.from_numpy(np.dstack([a, np.full_like(a[..., :1], 255)])).permute(
                2, 0, 1
            ),
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
