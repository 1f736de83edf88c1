"""Resampling of films of any size, pitch, orientation and distance to the network's frame, and its limits.

The resampling maps the isocentre plane onto itself. Planes in front of and behind it keep the film's magnification
relative to that plane, and the direction of the central ray does not change: :func:`deviations` quantifies both. Losses
in dB are those of an earlier model, mean of two validation patients, measured by ``benchmarks/deviations.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from scripts.exam.acquisition import DIRECTIONS, Acquisition
from scripts.geometry import VIEWS, BiplanarGeometry, centred_coordinates_mm
from scripts.smoothing import smoothed

MIN_FOOTPRINT = 0.5
"""Fraction of a network pixel's footprint that the film must show."""
MIN_FIELD = 0.4
"""Fraction of the network's field that a film must show. Showing only a central square of 64, 49 and 41 % of it costs
0.3, 1.6 and 2.6 dB; one patient loses 3.9 dB at 41 %."""
WARN_ANGLE_DEG, REFUSE_ANGLE_DEG = 2.0, 10.0
"""Largest deviation of a view. A frontal view that is 2, 5, 10 and 15 degrees off costs 0.1, 0.3, 1.1 and 1.9 dB.
Positioning by eye is accurate to five degrees; more than ten degrees is an oblique view or a mistake."""
REFUSE_DISPLACEMENT = 1 / 8
"""Largest displacement as a fraction of the volume's side, 40 mm of 320 mm; warnings start at one voxel. 9 mm (a chest
film from 1500 mm in the default C-arm geometry) costs 1.2 dB, 26 mm (the same with a posterior-anterior frontal view)
1.4 dB, 33 mm (both sources of a C-arm on the other side) 1.5 dB, 43 mm (posterior-anterior from 541 mm) 2.5 dB."""
FADE_MM = 20.0
"""Distance in the isocentre plane over which the repeated edge of a film fades to air. Films that lack a fifth of the
field at the low or the high end of u and v cost 0.2 and 0.4 dB. A repeated edge becomes a slab of tissue, and immediate
air a false end of the body; 20 mm was chosen among 10, 20 and 40 mm on the same two patients. The body may continue
upwards and downwards: fading there, too, helped one patient and harmed the other."""
WARN_DISTANCES = 0.05
"""Difference between the distances of the two views that raises no warning; training used the same for both."""


def rectify(
    pixels: np.ndarray, mask: np.ndarray, acquisition: Acquisition, view: str, geometry: BiplanarGeometry
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a film to the network's detector, exactly in the isocentre plane.

    Where the network's pixels are larger, the film is smoothed first. Pixels outside the mask carry no weight; areas
    that the film does not show repeat the nearest pixel, which is valid on any scale (:func:`fade_to_air` is for line
    integrals).

    Args:
        pixels: ``[rows, columns]``.
        mask: bool mask of pixels that show the patient or the surrounding air.
        acquisition: acquisition of the film.
        view: ``"frontal"`` or ``"lateral"``.
        geometry: geometry of the result.

    Returns:
        The image ``[N, N]`` float32 with axes (u, w) or (v, w), and the bool mask of pixels that the film shows.

    Raises:
        ValueError: the film shows too little of the network's field.
    """
    at, pitch = film_indices(acquisition, view, geometry)
    weights = smoothed(mask.astype(np.float32), pitch, mode="constant")
    weighted = smoothed(np.where(mask, pixels, 0).astype(np.float32), pitch, mode="constant")
    shown, total = (map_coordinates(a, at, order=1, mode="grid-constant") for a in (weights, weighted))
    covered = shown >= MIN_FOOTPRINT
    if covered.mean() < MIN_FIELD:
        field_mm = geometry.detector_pixels * geometry.isocentre_pitch_mm
        raise ValueError(
            f"{view} film: shows {covered.mean():.0%} of the {field_mm:.0f} mm square around the isocentre that "
            f"the network looks at, {MIN_FIELD:.0%} are needed; its {pixels.shape} pixels of "
            f"{acquisition.pixel_spacing_mm} mm are centred on {acquisition.centre} and magnified "
            f"{acquisition.magnification:.3g} times: correct these, or take a larger film"
        )
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return (total / np.where(covered, shown, 1))[tuple(nearest)], covered


def fade_to_air(image: np.ndarray, covered: np.ndarray, geometry: BiplanarGeometry) -> np.ndarray:
    """Remove the slabs that :func:`rectify` makes by repeating edges, from an image of line integrals.

    To the left and right of the film, the image falls to 0 within :data:`FADE_MM`, because the body ends there. Above
    and below, where the body may continue, the edge stays repeated.

    Args:
        image: line integrals ``[N, N]``, axes (u, w) or (v, w).
        covered: bool ``[N, N]``, where the film shows them.
        geometry: geometry of the result.
    """
    shown = np.flatnonzero(covered.any(axis=1))
    across = np.arange(len(image))
    beside_mm = np.maximum(shown[0] - across, across - shown[-1]) * geometry.isocentre_pitch_mm
    return image * np.clip(1 - beside_mm / FADE_MM, 0, 1)[:, None]


def film_indices(acquisition: Acquisition, view: str, geometry: BiplanarGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the network's pixels on a film.

    Returns:
        Fractional row and column ``[2, N, N]`` of each pixel's centre, and a pixel's size ``[2]`` in rows and columns.
    """
    network_mm = geometry.isocentre_pitch_mm * acquisition.magnification
    film_mm = centred_coordinates_mm(geometry.detector_pixels, network_mm).numpy()
    axes = (geometry.view(view).column_axis, 2)
    position_mm = dict(zip(axes, np.meshgrid(film_mm, film_mm, indexing="ij"), strict=True))
    x, y = (sign * position_mm[axis] for axis, sign in (DIRECTIONS[letter] for letter in acquisition.orientation))
    turn = math.radians(acquisition.rotation_deg)
    offset_mm = np.stack([x * math.sin(turn) + y * math.cos(turn), x * math.cos(turn) - y * math.sin(turn)])
    pitch_mm, centre = np.array(acquisition.pixel_spacing_mm), np.array(acquisition.centre)
    indices = centre[:, None, None] + offset_mm / pitch_mm[:, None, None]
    return indices, network_mm / pitch_mm


def deviations(acquisitions: Mapping[str, Acquisition], geometry: BiplanarGeometry) -> tuple[list[str], list[str]]:
    """Measure deviations that :func:`rectify` cannot undo; warnings and refusals state the number and its limits.

    Args:
        acquisitions: acquisitions of the views that are present.
        geometry: geometry of the network.

    Returns:
        Warnings and refusals.
    """
    warnings, refusals = [], []

    def judge(text: str, value: float, warn: float, refuse: float, unit: str) -> None:
        if value > refuse:
            refusals.append(f"{text}; at most {refuse:.4g} {unit} are accepted: correct it, or train for it")
        elif value > warn:
            warnings.append(f"{text}; more than {warn:.4g} {unit}, refused beyond {refuse:.4g}")

    for view, taken in acquisitions.items():
        angle_deg = _angle_deg(_line(taken, view), _line(None, view))
        judge(
            f"{view} view: {angle_deg:.1f} degrees off its axis", angle_deg, WARN_ANGLE_DEG, REFUSE_ANGLE_DEG, "degrees"
        )
        side = getattr(geometry, f"{view}_source")
        moved_mm = displacement_mm(taken, view, geometry)
        judge(
            f"{view} view: source {taken.source_side}, {taken.source_to_isocentre_mm:.5g} mm from the isocentre, for a "
            f"network trained with {side}, {geometry.source_to_isocentre_mm:.5g} mm: at the volume's edge, half way to "
            f"its front or back, things appear up to {moved_mm:.1f} mm from where the network expects them",
            moved_mm,
            geometry.volume_spacing_mm,
            REFUSE_DISPLACEMENT * max(geometry.volume_size_mm),
            "mm",
        )
    if len(acquisitions) < len(VIEWS):
        return warnings, refusals
    frontal, lateral = (acquisitions[view] for view in VIEWS)
    between_deg = _angle_deg(_line(frontal, "frontal"), _line(lateral, "lateral"))
    text = f"the views are {between_deg:.1f} degrees apart, not 90"
    judge(text, 90 - between_deg, WARN_ANGLE_DEG, REFUSE_ANGLE_DEG, "degrees of difference")
    first, second = ((view.source_to_isocentre_mm, view.source_to_detector_mm) for view in (frontal, lateral))
    if not np.allclose(first, second, rtol=WARN_DISTANCES, atol=0):
        warnings.append(
            "source to isocentre and detector: {:.5g} and {:.5g} mm frontal, {:.5g} and {:.5g} mm lateral; the network "
            "was trained with the same for both".format(*first, *second)
        )
    return warnings, refusals


def displacement_mm(acquisition: Acquisition, view: str, geometry: BiplanarGeometry) -> float:
    """Return how far a point is from where the network expects it, in the isocentre plane, after :func:`rectify`.

    The point lies on the edge of the volume, half way from the isocentre to the volume's front or back, whichever is
    worse. With distance D from the source to the isocentre, a plane d closer to the source appears 1 / (1 - d / D)
    times as large as the isocentre plane.
    """
    seen = geometry.view(view)
    size = geometry.volume_size_mm
    edge_mm = max(size[seen.column_axis], size[2]) / 2
    depth_mm = size[seen.depth_axis] / 4
    taken = (acquisition.source_to_isocentre_mm, 1.0 if acquisition.source_side in ("anterior", "right") else -1.0)
    if taken[0] <= depth_mm:
        return math.inf
    trained = (geometry.source_to_isocentre_mm, seen.source_sign)
    return max(
        edge_mm * abs(1 / (1 - taken[1] * d / taken[0]) - 1 / (1 - trained[1] * d / trained[0]))
        for d in (depth_mm, -depth_mm)
    )


def _line(acquisition: Acquisition | None, view: str) -> np.ndarray:
    """Return the direction (left, anterior, superior) of the central ray, by default the view's own axis."""
    angle, tilt = (0.0, 0.0) if acquisition is None else (acquisition.angle_deg, acquisition.tilt_deg)
    turn, rise = math.radians(angle + (0 if view == "frontal" else 90)), math.radians(tilt)
    return np.array([math.sin(turn) * math.cos(rise), math.cos(turn) * math.cos(rise), math.sin(rise)])


def _angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    """Return the angle between two lines, 0 to 90."""
    return math.degrees(math.acos(min(1.0, abs(float(first @ second)))))
