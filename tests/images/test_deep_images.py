"""Images of more than 8 bits: their range, what their files state, and no door that differs."""

import numpy as np
import pytest
import torch
from PIL import Image

from fuscore_metric.images.convert import as_images
from tests.helpers.image_files import HEIGHT, WIDTH, one, png16, ramp16, random_array, tiff


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
