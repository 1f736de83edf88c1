"""From the pixels of a film to attenuation: what they measure, which of them show the patient, what scale they are on.

Pixels grow with attenuation in all functions, except for the counts that :func:`linearise` gets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_propagation, distance_transform_edt, grey_opening
from skimage.filters import apply_hysteresis_threshold
from skimage.measure import block_reduce

from scripts.exam.surround import inside_surround
from scripts.io.radiograph import Radiograph

AIR_QUANTILE = 0.99
"""Of the counts in the useful area: the unattenuated beam, where a hundredth of the area shows it."""
SHUTTER_PIXELS, MARKER_PIXELS = 256, 1024
"""Largest side at which shutters and markers are looked for; finer films are averaged over blocks first."""
SLOPES = np.linspace(-0.14, 0.14, 29)
"""Of shutter edges against the sides of the film: up to 8 degrees, in steps of one pixel at the edge's ends."""
STEP = 0.1
"""Of values at a shutter's edge, as a share of the film's range."""
MARKER_WIDTH = 0.03
"""Letters and wires are thinner than this share of the film's larger side."""
OPEN_BEAM = 0.12
"""Share of a film's range of values that the air around the patient does not leave."""
MIN_AREA = 0.05
"""Shutters that would leave less of a film are a mistake, and are not believed."""


@dataclass(frozen=True, eq=False)
class Film:
    """A radiograph whose pixels grow with attenuation.

    Attributes:
        pixels: ``[rows, columns]`` float32.
        is_absolute: whether they are line integrals, dimensionless; else an unknown increasing function of them.
        steps: what was done to the file's pixels, in words.
        warnings: what was assumed.
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
        radiograph: as read.
        air_value: I0, the counts of the unattenuated beam.

    Raises:
        ValueError: an ``air_value`` that is not positive, or counts of which none is.
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
        raise ValueError(f"--air_value: counts of the unattenuated beam are positive and finite, got {air_value!r}")
    if not counts.max() > 0:
        raise ValueError(f"{radiograph.path}: no pixel counted anything (largest {counts.max():.4g}); export it again")
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


def useful_area(pixels: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    """The pixels that show the patient or the air around, not shutters, padding or markers.

    What the file calls shutter or padding is none. Besides, these are looked for:

    A *shutter* covers up to half of the film beyond one straight, almost upright or level edge. It is about as bright
    as the brightest quarter of the film, and its edge shows along 40 % of the film's side or more. A *surround* of any
    other shape has the film's lowest or highest value and ends in a step; see
    :func:`~scripts.exam.surround.inside_surround`. Dark *padding* has
    the lowest value, as air has; so the film must begin within a pixel along 90 % of its edge, else it passes for air.
    A *marker* (a lead letter, burnt-in text, a ruler) is thin and far brighter than what is around it; so are wires and
    clips. Text that is darker than the film is not found.

    Args:
        pixels: ``[rows, columns]``, growing with attenuation.
        shown: bool ``[rows, columns]``, what the file does not call shutter or padding; None if it says nothing.

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
    """The pixels, those outside replaced by the nearest ones inside: so they look like no edge and no marker."""
    if inside.all():
        return pixels
    nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return pixels[tuple(nearest)]


def open_beam(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The open beam beside the patient: dark pixels that reach the edge of what is covered.

    Lungs are dark too, but the chest wall is around them; a film that cuts through a lung may lose some of it.

    Args:
        image: ``[N, N]``, growing with attenuation.
        covered: bool ``[N, N]``, where it is known; elsewhere it repeats what is nearest.

    Returns:
        bool ``[N, N]``.
    """
    low, high = _range(image[covered])
    dark = np.pad(image <= low + OPEN_BEAM * (high - low), 1, constant_values=True)
    outside = np.pad(~covered, 1, constant_values=True)
    return binary_propagation(outside & dark, mask=dark)[1:-1, 1:-1]


def match_quantiles(image: np.ndarray, covered: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give an image the distribution of values of a reference, in the order of its own.

    A covered pixel's new value is the reference's quantile at its rank among the covered ones; equal pixels stay equal,
    at their mean rank. So the result is the same for every strictly increasing transform of the image, and undoes it if
    the untransformed image has the reference's quantiles. Pixels that are not covered are put on the same curve,
    constant beyond its ends.

    What this destroys is absolute attenuation. A thick and a thin patient, an inflated and a consolidated lung come out
    with the same values if they are ordered alike, and no HU that is computed from the result is a measurement.

    Args:
        image: ``[N, N]``, growing with attenuation.
        covered: bool ``[N, N]``, where it is known.
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
    """The columns beyond dark padding at the left side, bool ``[columns]``."""
    low, high = _range(pixels)
    padded = (pixels <= low + STEP / 5 * (high - low)).mean(axis=0) >= 0.99
    first = int(padded.argmin())
    begins = pixels[:, min(first + 1, len(padded) - 1)] > low + STEP * (high - low)
    return np.arange(len(padded)) >= (first if begins.mean() >= 0.9 else 0)


def _right_of_shutter(pixels: np.ndarray) -> np.ndarray:
    """The pixels beyond a shutter at the left side, bool ``[rows, columns]``; all if there is no shutter."""
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
    # one pixel of the search further in: edges are blurred
    return columns >= (column + 1) * factor + slope * (rows - len(pixels) / 2)


def _left_half(image: np.ndarray, slope: float) -> np.ndarray:
    """Rows shifted so that lines of this slope stand upright where they cross the middle row; the edge repeats."""
    rows, columns = np.indices((len(image), image.shape[1] // 2), sparse=True)
    shift = np.round(slope * (rows - len(image) / 2)).astype(int)
    return image[rows, (columns + shift).clip(0, image.shape[1] - 1)]


def _best_edge(image: np.ndarray, bright: float) -> tuple[float, int]:
    """The strongest upright edge that a shutter at the left could have: its mean step down, 0 if none, and its column.

    Args:
        image: ``[rows, columns]``, in shares of the film's range.
        bright: a shutter's least value.
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
    """The pixels of markers, which are thin and bright, bool ``[rows, columns]``."""
    factor = -(-max(pixels.shape) // MARKER_PIXELS)
    coarse = _block_mean(pixels, factor)
    low, high = _range(coarse)
    width = max(3, round(MARKER_WIDTH * max(coarse.shape)))
    above = coarse - grey_opening(coarse, size=(width, width))
    found = apply_hysteresis_threshold(above, 0.2 * (high - low), 0.45 * (high - low))
    grown = binary_dilation(found).repeat(factor, axis=0).repeat(factor, axis=1)
    return grown[: pixels.shape[0], : pixels.shape[1]]


def _range(pixels: np.ndarray) -> tuple[float, float]:
    """The lowest and highest value, ignoring one in a thousand at either end."""
    low, high = np.quantile(pixels, (0.001, 0.999))
    return float(low), float(high)


def _block_mean(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of ``factor`` pixels; the edge's pixels fill up the last ones."""
    missing = [(0, -n % factor) for n in pixels.shape]
    return block_reduce(np.pad(pixels, missing, mode="edge"), factor, func=np.mean)
