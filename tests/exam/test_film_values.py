"""Laws of films: inverses of detectors, invariance under display curves, and borders found where they were put."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.exposure import match_histograms
from tests.refusal import refused

from scripts.exam.film_values import check_film, linearise, match_quantiles, open_beam, useful_area
from scripts.io.radiograph import Radiograph

XRAY = Path(__file__).resolve().parents[3] / "shared" / "data" / "xray"
RNG = np.random.default_rng


def trunk(pixels=200, height=0.3):
    """Line integrals of a waisted trunk with two lungs, open beam at its sides and, if it is short, above and below."""
    y, x = np.meshgrid(*[np.linspace(-0.5, 0.5, pixels)] * 2, indexing="ij")
    body = (
        6
        * np.sqrt(np.clip(1 - (x / (0.36 - 0.05 * np.cos(6 * y))) ** 2, 0, None))
        * np.clip((height - np.abs(y)) * 12, 0, 1)
    )
    lungs = sum(np.exp(-(((x - side) / 0.09) ** 2) - ((y + 0.05) / 0.2) ** 2) for side in (-0.15, 0.15))
    return (body * (1 - 0.7 * lungs)).astype(np.float32)


def radiograph(pixels, scale):
    return Radiograph("film.dcm", "", np.asarray(pixels, dtype=np.float32), scale)


# ---------------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------------


def test_counts_of_a_known_beam_give_back_the_line_integrals():
    film = linearise(radiograph(20000 * np.exp(-trunk()), "counts"), air_value=20000)
    np.testing.assert_allclose(film.pixels, trunk(), atol=1e-5)
    assert film.is_absolute and film.warnings == () and film.pixels.dtype == np.float32
    assert film.steps == ("line integral = -ln(I / 20000)",)


def test_an_unknown_beam_is_found_where_it_passes_the_patient_and_said():
    film = linearise(radiograph(20000 * np.exp(-trunk()), "counts"))
    np.testing.assert_allclose(film.pixels, trunk(), atol=1e-3)
    assert "taken to be 20000 counts" in film.warnings[0] and "--air_value" in film.warnings[0]


def test_where_the_beam_is_nowhere_open_line_integrals_are_off_by_one_constant():
    inside = trunk(height=9.0)[:, 75:125]
    off = linearise(radiograph(20000 * np.exp(-inside), "counts")).pixels - inside
    assert np.ptp(off) < 1e-4 and off.mean() == pytest.approx(-np.quantile(inside, 0.01), abs=1e-3)


@pytest.mark.parametrize("gain", [1e-4, 0.37, 50.0])
def test_the_unit_of_counts_does_not_matter(gain):
    counts = RNG(0).poisson(300 * np.exp(-trunk())).astype(np.float32)
    expected = linearise(radiograph(counts, "counts")).pixels
    np.testing.assert_allclose(linearise(radiograph(counts * gain, "counts")).pixels, expected, atol=1e-4)


def test_pixels_that_counted_nothing_are_half_the_smallest_count_and_reported():
    counts = 1000 * np.exp(-trunk())
    counts[::10, ::10] = 0
    counts[5::10, ::10] = -3
    film = linearise(radiograph(counts, "counts"), air_value=1000)
    expected = -math.log(counts[counts > 0].min() / 2 / 1000)
    np.testing.assert_allclose(film.pixels[counts <= 0], expected, rtol=1e-5)
    assert film.steps[0].startswith("2.00% of the pixels, zero or negative, set to half the smallest count")


def test_the_beam_is_looked_for_inside_the_shutters_only():
    counts = RNG(0).poisson(20000 * np.exp(-trunk())).astype(np.float32)
    counts[:, :60] = 60000  # white paint: not a beam, and not opaque either
    marked = linearise(radiograph(np.where(np.arange(200) < 60, 20, counts), "counts"))
    assert float(marked.warnings[0].split("to be ")[1].split(" counts")[0]) == pytest.approx(20000, rel=0.03)


def test_a_beam_darker_than_the_film_is_questioned():
    film = linearise(radiograph(20000 * np.exp(-trunk()), "counts"), air_value=9000)
    assert "counted over 1.1 times the unattenuated beam (9000); check --air_value" in film.warnings[0]


def test_line_integrals_stay_as_they_are():
    film = linearise(radiograph(trunk(), "line_integral"))
    np.testing.assert_array_equal(film.pixels, trunk())
    assert film.is_absolute and film.warnings == ()


@pytest.mark.parametrize("scale", ["log", "display"])
def test_an_unknown_scale_stays_as_it_is_and_is_not_absolute(scale):
    film = linearise(radiograph(trunk() * 40 + 7, scale))
    np.testing.assert_array_equal(film.pixels, trunk() * 40 + 7)
    assert not film.is_absolute and len(film.steps) == 1


def test_a_beam_for_pixels_that_are_not_counts_is_said_to_be_unused():
    assert "air_value 5 is not used" in linearise(radiograph(trunk(), "display"), 5.0).warnings[0]


@pytest.mark.parametrize("air_value", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_beam_is_refused(air_value):
    with refused(ValueError, "--air_value", "positive", "got"):
        linearise(radiograph(np.ones((9, 9)), "counts"), air_value)


def test_a_film_that_counted_nothing_is_refused_by_name():
    with refused(ValueError, "film.dcm", "counts"):
        linearise(radiograph(np.zeros((9, 9)), "counts"))


@pytest.mark.parametrize(("scale", "gain"), [("line_integral", 30.0), ("line_integral", -1.0), ("counts", 1.0)])
def test_an_absolute_film_beyond_the_attenuation_of_bodies_is_refused(scale, gain):
    pixels = 20000 * np.exp(-trunk()) if scale == "counts" else gain * trunk()
    given = radiograph(pixels, scale)
    film = linearise(given, 5000.0 if scale == "counts" else None)
    with refused(ValueError, "film.dcm", "[-0.5, 100.0], got [", scale, "--intensity"):
        check_film(film, given, np.ones(trunk().shape, dtype=bool))


def test_defects_and_masked_pixels_do_not_make_a_film_implausible():
    pixels, area = trunk(), np.ones((200, 200), dtype=bool)
    pixels[0, 0], pixels[5, 7], area[:, 150:] = 1e4, -1e4, False
    pixels[:, 150:] = 1e4
    given = radiograph(pixels, "line_integral")
    assert check_film(linearise(given), given, area) == ()


@pytest.mark.parametrize("scale", ["log", "display"])
def test_a_film_without_absolute_values_may_have_any(scale):
    given = radiograph(1e4 * trunk() - 5e3, scale)
    assert check_film(linearise(given), given, np.ones(trunk().shape, dtype=bool)) == ()


@pytest.mark.parametrize(("side", "is_said"), [(200, False), (60, False), (40, True), (0, True)])
def test_a_declared_area_is_kept_or_said_to_be_ignored(side, is_said):
    shown = np.zeros((200, 200), dtype=bool)
    shown[:side, :side] = True
    given = Radiograph("film.dcm", "", trunk(), "line_integral", shown=shown)
    area = useful_area(trunk(), shown)
    warnings = check_film(linearise(given), given, area)
    assert len(warnings) == is_said and (area & ~shown).any() == is_said
    assert all("film.dcm" in warning and f"{shown.mean():.1%}" in warning for warning in warnings)


# ---------------------------------------------------------------------------------------------------------------------
# Useful area
# ---------------------------------------------------------------------------------------------------------------------


def as_display(p):
    return np.round(255 * np.clip(p / 6, 0, 1) ** 0.7)


def as_measured(p):
    return -np.log(np.maximum(RNG(0).poisson(20000 * np.exp(-p)), 0.5) / 20000).astype(np.float32)


@pytest.mark.parametrize("height", [0.3, 9.0])
@pytest.mark.parametrize("pixels", [64, 128, 700])
@pytest.mark.parametrize("form", [lambda p: p, as_display, as_measured])
def test_on_a_clean_radiograph_nothing_is_masked(form, pixels, height):
    assert useful_area(form(trunk(pixels, height))).mean() > 0.9999


@pytest.mark.parametrize("shape", [(50, 70), (3, 3), (1, 40), (2000, 30)])
def test_a_constant_film_is_all_useful(shape):
    assert useful_area(np.full(shape, 3.0)).all()


def field(pixels, half_height, half_width, degrees):
    """A rectangle in the middle, turned."""
    y, x = np.indices((pixels, pixels)) - pixels / 2
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (np.abs(c * x + s * y) <= half_width) & (np.abs(c * y - s * x) <= half_height)


@pytest.mark.parametrize(
    ("half_height", "half_width", "degrees"),
    [(200, 190, 0), (200, 190, 3), (215, 200, -6), (999, 170, 2), (190, 999, 0), (160, 160, 1)],
)
def test_shutters_are_found_within_a_few_pixels(half_height, half_width, degrees):
    inside = field(500, half_height, half_width, degrees)
    beam = np.exp(-trunk(500)) * gaussian_filter(inside.astype(np.float64), 1.5) + 0.002
    film = -np.log(np.maximum(RNG(1).poisson(20000 * beam), 0.5))
    wrong = useful_area(film) != inside
    off = np.where(inside, distance_transform_edt(inside), distance_transform_edt(~inside))[wrong]
    assert off.max() <= 6 and np.quantile(off, 0.9) <= 4


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("value", [-50.0, 400.0])
def test_padding_is_found_on_any_side(turns, value):
    film = np.pad(as_display(trunk(400, 9.0)).T + 20, ((0, 0), (60, 0)), constant_values=value)
    area = np.rot90(useful_area(np.rot90(film, turns)), -turns)
    assert not area[:, :59].any() and area[:, 63:].mean() > 0.999


def test_air_beside_the_patient_is_no_padding():
    """The lowest value fills whole rows above a short trunk and whole columns beside it."""
    film = trunk()
    assert (film[:35] == 0).all() and (film[:, :25] == 0).all()
    assert useful_area(film).all()


def test_burnt_in_letters_are_masked_and_little_else():
    clean = as_display(trunk(800))
    picture = Image.fromarray(clean.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for place, text in (((60, 60), "L"), ((620, 40), "Dx"), ((380, 80), "PA")):
        draw.text(place, text, fill=255, font=ImageFont.load_default(60))
    film = np.asarray(picture, dtype=np.float32)
    letters = film - clean > 100
    masked = ~useful_area(film)
    assert masked[letters].mean() > 0.99
    assert masked.sum() < 2.5 * letters.sum()


def test_the_area_of_a_turned_film_is_the_turned_area():
    film = np.where(field(300, 120, 110, 4), trunk(300), 7.0)
    areas = [np.rot90(useful_area(np.rot90(film, turns)), -turns) for turns in range(4)]
    assert all((area != areas[0]).mean() < 0.01 for area in areas)


@pytest.mark.parametrize("name", ["wikimedia_normal_chest_pa.jpg", "nih_00000001_000.png"])
def test_text_on_a_real_chest_film_is_masked_and_the_chest_is_not(name):
    if not (XRAY / name).is_file():
        pytest.skip(f"{XRAY / name} is not here")
    film = np.asarray(Image.open(XRAY / name).convert("L"), dtype=np.float32)
    area = useful_area(film)
    rows, columns = film.shape
    assert area[rows // 4 : -rows // 8, columns // 8 : -columns // 8].all()
    place = {"wiki": (slice(60, 150), slice(100, 240)), "nih_": (slice(5, 30), slice(465, 490))}[name[:4]]
    assert 0.05 < (~area[place]).mean() < 0.7
    assert area.mean() > 0.98


@pytest.mark.parametrize("curve", [lambda p: p, as_display, as_measured])
def test_the_open_beam_is_the_air_around_a_trunk_and_not_in_its_lungs(curve):
    image = trunk(128, 0.35)
    image[50:54, 42:46] = 0  # a bulla: as dark as air, but inside
    air = open_beam(curve(image), np.ones(image.shape, dtype=bool))
    around = image == 0
    around[50:54, 42:46] = False
    assert (air & ~around).mean() < 0.05 and air[around].mean() > 0.999
    assert not air[50:54, 42:46].any()


def test_a_film_that_ends_in_the_patient_has_no_open_beam():
    image = trunk(128, 9.0)
    covered = field(128, 40, 30, 0)
    assert not open_beam(image, covered)[covered].any()


def test_dark_pixels_beyond_the_film_are_open_beam_if_they_repeat_some():
    image, covered = np.full((40, 40), 5.0), field(40, 15, 15, 0)
    image[:, :12] = 0
    image[:, 20] = 3
    np.testing.assert_array_equal(open_beam(image, covered), image == 0)


# ---------------------------------------------------------------------------------------------------------------------
# Matching
# ---------------------------------------------------------------------------------------------------------------------

INCREASING = {
    "affine": lambda x: 300 * x - 40,
    "exp": np.exp,
    "cubic": lambda x: x**3,
    "inverse": lambda x: -1 / (1 + x),
}


@pytest.mark.parametrize("curve", INCREASING.values(), ids=INCREASING)
def test_matching_does_not_see_an_increasing_transform(curve):
    image, covered = trunk(60).astype(np.float64), field(60, 25, 20, 0)
    image[image < 1e-3] = 0  # exp would merge what float64 tells apart
    reference = np.linspace(0, 8, 101) ** 1.3
    seen, expected = (match_quantiles(x, covered, reference)[covered] for x in (curve(image), image))
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("curve", INCREASING.values(), ids=INCREASING)
def test_matching_undoes_a_transform_of_an_image_with_the_references_quantiles(curve):
    image = RNG(0).permutation(np.linspace(0, 6, 1001)).reshape(77, 13)
    reference = np.quantile(image, np.linspace(0, 1, 101))
    matched = match_quantiles(curve(image), np.ones(image.shape, dtype=bool), reference)
    np.testing.assert_allclose(matched, image, atol=1e-6)


def test_matching_to_every_pixel_of_another_image_is_histogram_matching():
    image, other = RNG(0).normal(size=(20, 30)), RNG(1).gamma(2.0, size=(20, 30))
    matched = match_quantiles(image, np.ones(image.shape, dtype=bool), np.sort(other, axis=None))
    np.testing.assert_allclose(matched, match_histograms(image, other), rtol=1e-6)


def test_half_an_image_of_air_stays_air_of_one_value():
    image = np.maximum(RNG(0).normal(size=(50, 50)), 0)
    reference = np.quantile(3 * image, np.linspace(0, 1, 101))
    matched = match_quantiles(image, np.ones(image.shape, dtype=bool), reference)
    assert (matched[image == 0] == 0).all()


def test_order_is_kept_and_uncovered_pixels_are_held_at_the_ends():
    image = RNG(0).normal(size=(40, 40))
    covered = np.abs(image) < 1
    reference = np.cumsum(RNG(1).random(101))
    matched = match_quantiles(image, covered, reference)
    assert (np.diff(matched.ravel()[np.argsort(image, axis=None)]) >= 0).all()
    assert matched.min() == np.float32(reference[0]) and matched.max() == np.float32(reference[-1])


def test_a_thick_and_a_thin_patient_come_out_alike():
    reference, everywhere = np.linspace(0, 6, 101), np.ones((60, 60), dtype=bool)
    thin, thick = (match_quantiles(k * trunk(60), everywhere, reference) for k in (0.5, 1.5))
    np.testing.assert_array_equal(thin, thick)
