"""Conversion of film pixels to attenuation: linearisation, masking of everything but the patient, and scaling.

In all functions, pixels increase with attenuation, except for the counts given to :func:`linearise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_propagation, distance_transform_edt, grey_opening
from skimage.filters import apply_hysteresis_threshold
from skimage.measure import block_reduce

from scripts.exam.surround import inside_surround
from scripts.io.nifti import MAX_LINE_INTEGRAL, MIN_LINE_INTEGRAL
from scripts.io.radiograph import Radiograph

AIR_QUANTILE = 0.99
"""Quantile of the counts in the useful area that is the open beam, if a hundredth of the area shows it."""
SHUTTER_PIXELS, MARKER_PIXELS = 256, 1024
"""Largest side at which shutters and markers are detected; finer films are first averaged over blocks."""
SLOPES = np.linspace(-0.14, 0.14, 29)
"""Slopes of shutter edges against the sides of the film: up to 8 degrees, in steps of one pixel at the ends."""
STEP = 0.1
"""Smallest step of values at a shutter's edge, as a fraction of the film's range."""
MARKER_WIDTH = 0.03
"""Largest width of letters and wires, as a fraction of the film's larger side."""
OPEN_BEAM = 0.12
"""Fraction of a film's range that contains the values of the air around the patient."""
MIN_AREA = 0.05
"""Smallest fraction of a film that detected shutters may leave; otherwise they are ignored as mistakes."""


@dataclass(frozen=True, eq=False)
class Film:
    """Radiograph with pixels that increase with attenuation.

    Attributes:
        pixels: ``[rows, columns]`` float32.
        is_absolute: whether they are line integrals, dimensionless; else an unknown increasing function of them.
        steps: processing steps, in words.
        warnings: assumptions.
    """

    pixels: np.ndarray
    is_absolute: bool
    steps: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def linearise(radiograph: Radiograph, air_value: float | None = None) -> Film:
    """Turn pixels into line integrals where the file's scale allows it.

    Counts I become -ln(I / I0). Without ``air_value``, I0 is the brightest hundredth of the useful area, which is the
    open beam only if the beam passes the patient somewhere; else all line integrals are too small by one constant.

    Args:
        radiograph: radiograph as read.
        air_value: I0, the counts of the unattenuated beam.

    Raises:
        ValueError: ``air_value`` or all counts are not positive.
    """
    if radiograph.scale == "counts":
        return _from_counts(radiograph, air_value)
    unused: tuple[str, ...] = ()
    if air_value is not None:
        unused = (f"air_value {air_value:.6g} is not used: the pixels of {radiograph.path} are not counts",)
    if radiograph.scale == "line_integral":
        return Film(radiograph.pixels, True, ("line integrals as in the file",), unused)
    known = "an affine function with unknown factor and offset" if radiograph.scale == "log" else "unknown but growing"
    return Film(radiograph.pixels, False, (f"values as in the file: of line integrals, {known}",), unused)


def _from_counts(radiograph: Radiograph, air_value: float | None) -> Film:
    counts = radiograph.pixels.astype(np.float64)
    if air_value is not None and not 0 < air_value < math.inf:
        raise ValueError(f"--air_value: counts of the open beam must be positive and finite, got {air_value!r}")
    if not counts.max() > 0:
        raise ValueError(f"{radiograph.path}: no counts are positive (largest {counts.max():.4g}); export it again")
    floor = counts[counts > 0].min() / 2
    empty = float((counts <= 0).mean())
    attenuation = -np.log(np.maximum(counts, floor))
    area = useful_area(attenuation, radiograph.shown)
    steps, warnings = [], []
    if empty:
        steps.append(f"{empty:.2%} of the pixels, zero or negative, set to half the smallest count, {floor:.4g}")
    if air_value is None:
        air_value = math.exp(-np.quantile(attenuation[area], 1 - AIR_QUANTILE))
        warnings.append(
            f"{radiograph.path}: the unattenuated beam is taken to be {air_value:.6g} counts, the {AIR_QUANTILE:.0%} "
            "quantile of the useful area; if the beam passes the patient nowhere, all line integrals are too small by "
            "one constant: give --air_value"
        )
    brighter = float((counts[area] > 1.1 * air_value).mean())
    if brighter > 1.1 - AIR_QUANTILE:
        warnings.append(
            f"{radiograph.path}: {brighter:.0%} of the useful area counted over 1.1 times the unattenuated beam "
            f"({air_value:.6g}); check --air_value"
        )
    steps.append(f"line integral = -ln(I / {air_value:.6g})")
    pixels = (attenuation + math.log(air_value)).astype(np.float32)
    return Film(pixels, True, tuple(steps), tuple(warnings))


def check_film(film: Film, radiograph: Radiograph, area: np.ndarray) -> tuple[str, ...]:
    """Check a film in its useful area and return warnings.

    One pixel in a thousand may lie beyond the limits at either end, such as a defect of the detector.

    Args:
        film: the linearised film.
        radiograph: radiograph as read.
        area: bool ``[rows, columns]`` of :func:`useful_area`.

    Raises:
        ValueError: pixels that are said to have an absolute scale cannot be the line integrals of a body.
    """
    if film.is_absolute:
        _check_range(film, radiograph, area)
    shown = radiograph.shown
    if shown is None or not (area & ~shown).any():
        return ()
    return (
        f"{radiograph.path}: by its header, shutter, collimator and padding leave {shown.mean():.1%} of the film, less "
        f"than {MIN_AREA:.0%} inside the borders that its pixels show; they are ignored: correct the header, or crop "
        "the film if it is right",
    )


def _check_range(film: Film, radiograph: Radiograph, area: np.ndarray) -> None:
    low, high = _range(film.pixels[area])
    if not MIN_LINE_INTEGRAL <= low <= high <= MAX_LINE_INTEGRAL:
        remedy = "--air_value, the counts of the unattenuated beam, or " if radiograph.scale == "counts" else ""
        raise ValueError(
            f"{radiograph.path}: line integrals must be within [{MIN_LINE_INTEGRAL}, {MAX_LINE_INTEGRAL}], got "
            f"[{low:.4g}, {high:.4g}] of its pixels as {radiograph.scale} ({film.steps[-1]}); correct {remedy}"
            "--intensity, the meaning of its pixels"
        )


def useful_area(pixels: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    """Return the mask of pixels that show the patient or the surrounding air, not shutters, padding or markers.

    Pixels that the file declares as shutter or padding are excluded. In addition, these are detected:

    A *shutter* covers up to half of the film beyond one straight, almost upright or level edge. It is about as bright
    as the brightest quarter of the film, and its edge shows along 40 % of the film's side or more. A *surround* of any
    other shape has the film's lowest or highest value and ends in a step; see
    :func:`~scripts.exam.surround.inside_surround`. Dark *padding* has the lowest value, like air; to be distinguished
    from air, the film must begin within a pixel along 90 % of its edge. A *marker* (a lead letter, burnt-in text, a
    ruler) is thin and far brighter than its surroundings; so are wires and clips. Text that is darker than the film is
    not detected.

    Args:
        pixels: ``[rows, columns]``, increasing with attenuation.
        shown: bool ``[rows, columns]``, pixels not declared as shutter or padding; None if the file declares none.

    Returns:
        bool ``[rows, columns]``.
    """
    inside = inside_surround(pixels)
    if shown is not None:
        inside &= shown
    if inside.mean() < MIN_AREA:
        inside = np.ones(pixels.shape, dtype=bool)
    pixels = _continued(pixels, inside)
    area = inside.copy()
    for turns in range(4):
        turned = np.rot90(pixels, turns)
        area &= np.rot90(_right_of_shutter(turned) & _right_of_padding(turned), -turns)
    if area.mean() < MIN_AREA:
        area = inside
    return area & ~_markers(pixels)


def _continued(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Replace outside pixels by the nearest inside ones, so that they look like neither an edge nor a marker."""
    if inside.all():
        return pixels
    nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return pixels[tuple(nearest)]


def open_beam(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return the mask of the open beam at the sides of the patient: dark pixels connected to the edge of the image.

    Lungs are dark too, but enclosed by the chest wall; a film that cuts through a lung may lose part of it.

    Args:
        image: ``[N, N]``, increasing with attenuation.
        covered: bool ``[N, N]``, where the image is known; elsewhere it repeats the nearest pixel.

    Returns:
        bool ``[N, N]``.
    """
    low, high = _range(image[covered])
    dark = np.pad(image <= low + OPEN_BEAM * (high - low), 1, constant_values=True)
    outside = np.pad(~covered, 1, constant_values=True)
    return binary_propagation(outside & dark, mask=dark)[1:-1, 1:-1]


def match_quantiles(image: np.ndarray, covered: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Map the values of an image to the distribution of a reference, preserving their order.

    The new value of a covered pixel is the reference's quantile at its rank among the covered ones; equal pixels stay
    equal, at their mean rank. The result is therefore the same for every strictly increasing transform of the image,
    and undoes it if the untransformed image has the reference's quantiles. Pixels that are not covered are mapped by
    the same curve, constant beyond its ends.

    This destroys absolute attenuation. A thick and a thin patient, or an inflated and a consolidated lung, get the same
    values if their pixels have the same order, and no HU computed from the result is a measurement.

    Args:
        image: ``[N, N]``, increasing with attenuation.
        covered: bool ``[N, N]``, where the image is known.
        reference: quantiles at even probabilities from 0 to 1, not decreasing.

    Returns:
        ``[N, N]`` float32.
    """
    values, counts = np.unique(image[covered], return_counts=True)
    last = np.cumsum(counts) - 1
    rank = (last - (counts - 1) / 2) / max(last[-1], 1)
    curve = np.interp(rank, np.linspace(0, 1, len(reference)), reference)
    return np.interp(image, values, curve).astype(np.float32)


def _right_of_padding(pixels: np.ndarray) -> np.ndarray:
    """Return the columns to the right of dark padding at the left side, bool ``[columns]``."""
    low, high = _range(pixels)
    padded = (pixels <= low + STEP / 5 * (high - low)).mean(axis=0) >= 0.99
    first = int(padded.argmin())
    begins = pixels[:, min(first + 1, len(padded) - 1)] > low + STEP * (high - low)
    return np.arange(len(padded)) >= (first if begins.mean() >= 0.9 else 0)


def _right_of_shutter(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels to the right of a shutter at the left side, bool ``[rows, columns]``; all if there is none."""
    factor = -(-max(pixels.shape) // SHUTTER_PIXELS)
    coarse = _block_mean(pixels, factor)
    low, high = _range(coarse)
    scaled = (coarse - low) / max(high - low, float(np.finfo(np.float32).tiny))
    bright = float(np.quantile(scaled, 0.75)) - STEP
    edges = [(*_best_edge(_left_half(scaled, slope), bright), slope) for slope in SLOPES.tolist()]
    step, column, slope = max(edges)
    rows, columns = np.indices(pixels.shape, sparse=True)
    if step == 0:
        return columns >= 0
    # one search pixel further in, because edges are blurred
    return columns >= (column + 1) * factor + slope * (rows - len(pixels) / 2)


def _left_half(image: np.ndarray, slope: float) -> np.ndarray:
    """Shift rows so that lines of this slope become upright where they cross the middle row; the edge repeats."""
    rows, columns = np.indices((len(image), image.shape[1] // 2), sparse=True)
    shift = np.round(slope * (rows - len(image) / 2)).astype(int)
    return image[rows, (columns + shift).clip(0, image.shape[1] - 1)]


def _best_edge(image: np.ndarray, bright: float) -> tuple[float, int]:
    """Return the mean step down (0 if none) and the column of the strongest upright edge of a shutter at the left.

    Args:
        image: ``[rows, columns]``, as fractions of the film's range.
        bright: lowest value of a shutter.
    """
    columns = np.arange(2, image.shape[1] - 1)
    if len(columns) == 0:
        return 0.0, 0
    sums = np.cumsum(np.pad(image, ((0, 0), (1, 0))), axis=1)
    two = (sums[:, 2:] - sums[:, :-2]) / 2
    steps = two[:, columns - 2] - two[:, columns]
    value = np.median(image[:, :3])
    alike = (np.abs(image - value) <= 1.5 * STEP).mean(axis=0)
    is_shutter = np.cumsum(alike)[columns - 1] >= 0.8 * columns
    is_edge = (steps > STEP).mean(axis=0) >= 0.4
    strength = np.where(is_shutter & is_edge & (value >= bright), steps.mean(axis=0), 0.0)
    best = int(strength.argmax())
    return float(strength[best]), int(columns[best])


def _markers(pixels: np.ndarray) -> np.ndarray:
    """Return the mask of markers, which are thin and bright, bool ``[rows, columns]``."""
    factor = -(-max(pixels.shape) // MARKER_PIXELS)
    coarse = _block_mean(pixels, factor)
    low, high = _range(coarse)
    width = max(3, round(MARKER_WIDTH * max(coarse.shape)))
    above = coarse - grey_opening(coarse, size=(width, width))
    found = apply_hysteresis_threshold(above, 0.2 * (high - low), 0.45 * (high - low))
    grown = binary_dilation(found).repeat(factor, axis=0).repeat(factor, axis=1)
    return grown[: pixels.shape[0], : pixels.shape[1]]


def _range(pixels: np.ndarray) -> tuple[float, float]:
    """Return the lowest and highest value, ignoring one in a thousand at either end."""
    low, high = np.quantile(pixels, (0.001, 0.999))
    return float(low), float(high)


def _block_mean(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Average over squares of ``factor`` pixels per side, padded with the edge's pixels."""
    missing = [(0, -n % factor) for n in pixels.shape]
    return block_reduce(np.pad(pixels, missing, mode="edge"), factor, func=np.mean)
