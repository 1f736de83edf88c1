"""Resamples films of any size, pitch, orientation and distance to the network's frame, and says what that cannot undo.

One resampling maps the plane of the isocentre onto itself. Planes before and behind it keep the film's magnification
relative to that plane, and the direction of the central ray stays what it was: :func:`deviations` puts numbers to both.
The losses in dB told here are the shipped model's, mean of two validation patients, by ``benchmarks/deviations.py``.
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
"""Share of a network pixel's footprint that the film must show."""
MIN_FIELD = 0.4
"""Share of the network's field that a film must show. A square in its middle with 64, 49 and 41 % of it costs 0.3, 1.6
and 2.6 dB, one patient 3.9 dB with 41 %."""
WARN_ANGLE_DEG, REFUSE_ANGLE_DEG = 2.0, 10.0
"""A frontal view that is 2, 5, 10 and 15 degrees off costs 0.1, 0.3, 1.1 and 1.9 dB. Positioning by eye reaches five
degrees; what is off by more than ten is an oblique view or a mistake."""
REFUSE_DISPLACEMENT = 1 / 8
"""Share of the volume's side: 40 mm of 320 mm. A displacement of 9 mm (a chest film from 1500 mm, given to the default
C-arm geometry) costs 1.2 dB, 26 mm (the same with its frontal view posterior-anterior) 1.4 dB, 33 mm (both sources of a
C-arm on the other side) 1.5 dB, 43 mm (posterior-anterior from 541 mm) 2.5 dB. Warned of from one voxel."""
FADE_MM = 20.0
"""In the plane of the isocentre: how far beside what a film shows its repeated edge takes to become air. Films
that lack a fifth of the field at the low or the high end of u and v cost 0.2 and 0.4 dB. An edge that is repeated
becomes a slab of tissue, air at once an end that the body does not have; 20 mm was chosen among 10, 20 and 40 mm on the
same two patients. Up and down the body may go on: fading there, too, helped one of them and harmed the other."""
WARN_DISTANCES = 0.05
"""By how much the distances of the two views may differ in silence; the network was trained with the same for both."""


def rectify(
    pixels: np.ndarray, mask: np.ndarray, acquisition: Acquisition, view: str, geometry: BiplanarGeometry
) -> tuple[np.ndarray, np.ndarray]:
    """A film as the network's detector would have seen it, exact in the plane of the isocentre.

    Where the network's pixels are larger, the film is smoothed first. Pixels outside the mask carry no weight; what it
    does not show repeats the nearest pixel, which is right on any scale (:func:`fade_to_air` is for line integrals).

    Args:
        pixels: ``[rows, columns]``.
        mask: which of them show the patient or the air around, bool.
        acquisition: how the film was taken.
        view: ``"frontal"`` or ``"lateral"``.
        geometry: of the network.

    Returns:
        The image ``[N, N]`` float32 with axes (u, w) or (v, w), and where the film shows it, bool.

    Raises:
        ValueError: the film shows too little of what the network looks at.
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

    To the left and the right of what the film shows, the image falls to 0 within :data:`FADE_MM`, because a body ends
    there. Up and down, where the body may go on, the edge stays repeated.

    Args:
        image: line integrals ``[N, N]``, axes (u, w) or (v, w).
        covered: bool ``[N, N]``, where the film shows them.
        geometry: of the network.
    """
    shown = np.flatnonzero(covered.any(axis=1))
    across = np.arange(len(image))
    beside_mm = np.maximum(shown[0] - across, across - shown[-1]) * geometry.isocentre_pitch_mm
    return image * np.clip(1 - beside_mm / FADE_MM, 0, 1)[:, None]


def film_indices(acquisition: Acquisition, view: str, geometry: BiplanarGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Where the network's pixels lie on a film.

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
    """Measure what :func:`rectify` cannot undo; every warning and refusal states the number and its limits.

    Args:
        acquisitions: by view, of those that there are.
        geometry: of the network.

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
    """The distance of a point from where the network expects it, in the plane of the isocentre, after :func:`rectify`.

    The point lies on the edge of the volume and half way from the isocentre to the volume's front or back, whichever is
    worse. At distance D from the source to the isocentre, a plane d nearer to the source appears 1 / (1 - d / D) as
    large as the isocentre's.
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
    """Direction (left, anterior, superior) of the central ray's line; the view's own axis without an acquisition."""
    angle, tilt = (0.0, 0.0) if acquisition is None else (acquisition.angle_deg, acquisition.tilt_deg)
    turn, rise = math.radians(angle + (0 if view == "frontal" else 90)), math.radians(tilt)
    return np.array([math.sin(turn) * math.cos(rise), math.cos(turn) * math.cos(rise), math.sin(rise)])


def _angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    """The angle between two lines, 0 to 90."""
    return math.degrees(math.acos(min(1.0, abs(float(first @ second)))))
