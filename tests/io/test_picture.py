import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.dicom.dicom_files import film
from tests.refusal import refused

from scripts.io.picture import read_picture

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "xray"
EXIF_ORIENTATION, TIFF_PHOTOMETRIC, TIFF_SAMPLE_FORMAT = 274, 262, 339
UPRIGHT = {  # EXIF orientation to what was done to the upright image
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(x, 2).T,
    8: lambda x: np.rot90(x, -1),
}


def save(path, pixels, mode=None, **options):
    Image.fromarray(np.ascontiguousarray(pixels), mode).save(path, **options)
    return path


def rgb(*channels):
    return np.stack(np.broadcast_arrays(*channels), axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_grey_levels_are_read_exactly(tmp_path, suffix, bits):
    radio = read_picture(save(tmp_path / f"x.{suffix}", film(bits=bits)))
    np.testing.assert_array_equal(radio.pixels, film(bits=bits))
    assert (radio.pixels.dtype, radio.scale, radio.is_lossy, radio.view) == (np.float32, "display", False, None)
    assert "a picture, processed for display" in radio.warnings[0]


def test_floating_point_tiff_is_read_exactly(tmp_path):
    pixels = film().astype(np.float32) / 7
    np.testing.assert_array_equal(read_picture(save(tmp_path / "x.tif", pixels)).pixels, pixels)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("dtype", "stated"), [(np.uint32, None), (np.uint32, 1), (np.int32, 2)])
def test_tiff_of_32_bits_keeps_the_order_of_its_values(tmp_path, dtype, stated, orientation):
    values = film(bits=16).astype(np.int64) * 65537 - (2**31 if dtype == np.int32 else 0)
    path, stored = tmp_path / "x.tif", UPRIGHT[orientation](values).astype(dtype)
    turned = [(EXIF_ORIENTATION, 3, 1, orientation, True)]
    tifffile.imwrite(path, stored if stated is None else stored.view(np.int32), extratags=turned)
    data, entry = path.read_bytes(), struct.pack("<HHLH", TIFF_SAMPLE_FORMAT, 3, 1, 2)
    assert data.count(entry) == (stated is not None)
    path.write_bytes(data.replace(entry, struct.pack("<HHLH", TIFF_SAMPLE_FORMAT, 3, 1, stated or 0)))
    np.testing.assert_array_equal(read_picture(path).pixels, values.astype(np.float32))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_is_read_exactly(tmp_path, compression):
    path = save(tmp_path / "x.tif", film(bits=16), compression=compression)
    np.testing.assert_array_equal(read_picture(path).pixels, film(bits=16))


def test_jpeg_is_lossy_wherever_it_is(tmp_path):
    for radio in (
        read_picture(save(tmp_path / "x.jpg", film(bits=8), quality=95)),
        read_picture(save(tmp_path / "x.tif", film(bits=8), compression="jpeg", quality=95)),
    ):
        assert radio.is_lossy
        assert np.abs(radio.pixels - film(bits=8)).mean() < 3


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16), (32, np.float32)])
def test_tiff_whose_low_values_are_white_is_mirrored(tmp_path, bits, dtype):
    pixels = film(bits=min(bits, 16)).astype(dtype)
    path = save(tmp_path / "x.tif", pixels.max() - pixels)
    data = path.read_bytes()
    entry = struct.pack("<HHL", TIFF_PHOTOMETRIC, 3, 1)
    at = data.index(entry) + len(entry)
    path.write_bytes(data[:at] + b"\0\0" + data[at + 2 :])
    read = read_picture(path).pixels
    np.testing.assert_array_equal(read - read.min(), pixels - pixels.min())


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("suffix", "bits"), [("png", 8), ("png", 16), ("tif", 16)])
def test_exif_orientation_is_undone(tmp_path, orientation, suffix, bits):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = save(tmp_path / f"x.{suffix}", UPRIGHT[orientation](film(bits=bits)), exif=exif)
    np.testing.assert_array_equal(read_picture(path).pixels, film(bits=bits))


def test_a_grey_picture_in_colours_palette_or_opaque_alpha_is_grey(tmp_path):
    grey = film(bits=8)
    opaque = np.full_like(grey, 255)
    palette = Image.fromarray(grey)
    palette.putpalette([255 - i // 3 for i in range(768)])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png").pixels, 255.0 - grey)
    for name, pixels in {"rgb": rgb(grey, grey, grey), "rgba": rgb(grey, grey, grey, opaque)}.items():
        np.testing.assert_array_equal(read_picture(save(tmp_path / f"{name}.png", pixels)).pixels, grey)
    np.testing.assert_array_equal(read_picture(save(tmp_path / "la.png", rgb(grey, opaque))).pixels, grey)


def test_a_small_coloured_marker_does_not_make_a_colour_picture(tmp_path):
    pixels = rgb(film(bits=8), film(bits=8), film(bits=8))
    pixels[:8, :8] = (255, 0, 0)
    assert read_picture(save(tmp_path / "x.png", pixels)).pixels.shape == (96, 80)
    pixels[:16, :16] = (255, 0, 0)
    with refused(ValueError, "colour", "3%"):
        read_picture(save(tmp_path / "x.png", pixels))


GREY_PNG, RGB_PNG, GREY_ALPHA_PNG, RGBA_PNG = 0, 2, 4, 6


def write_png(path, width, height, body, bits=8, kind=GREY_PNG):
    def chunk(name, data):
        return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))

    header = struct.pack(">LLBBBBB", width, height, bits, kind, 0, 0, 0)
    body = zlib.compress(body, 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def png_that_declares(path, width, height):
    write_png(path, width, height, bytes(2**20))


def deep_png(path, kind, grey_channels, alpha_channels):
    """A grey film of 12 bits in channels of 16."""
    rows, columns = film().shape
    channels = [film()] * grey_channels + [np.full_like(film(), 65535)] * alpha_channels
    lines = np.stack(channels, axis=-1).astype(">u2").reshape(rows, -1)
    write_png(path, columns, rows, b"".join(b"\0" + line.tobytes() for line in lines), 16, kind)


def deep_colour_tiff(path):
    tifffile.imwrite(path, np.stack([film()] * 3, axis=-1), photometric="rgb")


def animated(path):
    Image.fromarray(film(bits=8)).save(path, append_images=[Image.fromarray(film(bits=8, seed=1))], save_all=True)


def truncated(path):
    save(path, film(bits=8), format="JPEG")
    path.write_bytes(path.read_bytes()[:-1500])


def transparent(path):
    Image.fromarray(film(bits=8)).save(path, format="PNG", transparency=200)


def not_a_number(path):
    pixels = film().astype(np.float32)
    pixels[3, 4] = np.nan
    save(path, pixels, format="TIFF")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: save(path, rgb(film(bits=8), 0, 90), format="PNG"), "a colour picture .100% of"),
        (lambda path: save(path, rgb(*[film(bits=8)] * 3, film(bits=8)), format="PNG"), "partly transparent"),
        (transparent, "partly transparent"),
        (lambda path: deep_png(path, RGB_PNG, 3, 0), "16 bits per channel, .*; save it as grey levels of 16 bits"),
        (lambda path: deep_png(path, GREY_ALPHA_PNG, 1, 1), "16 bits per channel, .*; save it as grey levels of 16"),
        (lambda path: deep_png(path, RGBA_PNG, 3, 1), "16 bits per channel, .*; save it as grey levels of 16 bits"),
        (deep_colour_tiff, "16 bits per channel, .*; save it as grey levels of 16 bits"),
        (lambda path: Image.fromarray(film(bits=8) > 99).save(path, format="PNG"), "mode '1'; save it as grey"),
        (lambda path: Image.fromarray(film(bits=8)).convert("CMYK").save(path, format="JPEG"), "mode 'CMYK'"),
        (lambda path: animated(path.with_suffix(".png")) or path.with_suffix(".png").rename(path), "several images"),
        (lambda path: animated(path.with_suffix(".tif")) or path.with_suffix(".tif").rename(path), "several images"),
        (lambda path: png_that_declares(path, 10_000, 10_000), "10000 x 10000 pixels, at most"),
        (lambda path: png_that_declares(path, 2**31 - 1, 2**31 - 1), "not a readable picture"),
        (lambda path: png_that_declares(path, 4000, 4000), "not a readable picture"),
        (lambda path: save(path, film(1, 1), format="PNG"), "1 x 1 pixels, a radiograph has at least 64"),
        (lambda path: save(path, np.full((80, 80), 9, np.uint8), format="PNG"), "every pixel is 9; a constant"),
        (lambda path: save(path, np.minimum(film(bits=8), 50), format="PNG"), "saturated: 100%"),
        (not_a_number, "1 pixels are NaN"),
        (truncated, "not a readable picture"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "not a readable picture"),
        (lambda path: path.write_bytes(b"GIF89a" * 50), "not a readable picture"),
        (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n" * 50), "not a readable picture"),
        (lambda path: path.mkdir(), "not a regular file"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_grey_radiograph_is_refused_by_rule_and_value(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(ValueError, match=message) as refusal:
        read_picture(tmp_path / "x")
    assert str(refusal.value).startswith(f"{tmp_path / 'x'}: ")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["png", "tif", "jpg"])
def test_a_damaged_picture_is_read_or_refused_by_name(tmp_path, kind):
    path = save(tmp_path / f"x.{kind}", film(bits=8))
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(100):
        data = bytearray(whole[: dice.randrange(10, len(whole))] if dice.random() < 0.3 else whole)
        for _ in range(dice.choice([1, 4, 30])):
            data[dice.randrange(4, len(data) if dice.random() < 0.5 else 10)] = dice.randrange(256)
        path.write_bytes(data)
        try:
            read_picture(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "shape", "lossy"),
    [
        ("nih_00000001_000.png", (512, 512), False),
        ("nih_00027426_000.png", (512, 512), False),
        ("wikimedia_normal_chest_pa.jpg", (2207, 1929), True),
        ("wikimedia_normal_chest_lateral.jpg", (2453, 1769), True),
    ],
)
def test_a_real_picture_is_read(name, shape, lossy):
    if not (REAL / name).is_file():
        pytest.skip(f"sample picture {name} is not beside the repository")
    radio = read_picture(REAL / name)
    assert (radio.pixels.shape, radio.is_lossy, len(radio.warnings)) == (shape, lossy, 1)
    grey = np.asarray(Image.open(REAL / name).convert("L"), dtype=float)
    assert np.abs(radio.pixels - grey).max() <= 1
