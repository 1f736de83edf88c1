"""Which two radiographs make an exam, and which of them is the frontal and which the lateral view."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from scripts.data.acquisition import isocentre_pitch_mm
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.io.archive import unpacked
from scripts.io.dicom_output import IDENTITY, contradictions
from scripts.io.dicom_radiograph import is_dicom, stored_class
from scripts.io.nifti import SUFFIXES
from scripts.io.picture import is_picture
from scripts.io.radiograph import Radiograph
from scripts.io.radiographs import NIFTI_ORIENTATION, read_radiographs

NAME_WORDS = {"frontal": {"frontal", "ap", "pa"}, "lateral": {"lateral", "lat"}}
"""Words in a file's name that tell its view, if nothing else does."""
MIN_WIDTH_RATIO = 0.97
"""A body is wider than it is deep, and so is its frontal shadow: 1.09 to 1.58 times in 16 adult CTs, 1.16 to 1.54 times
in 60 phantoms, hence less than 1 if the views are swapped. None of these 76 exams is warned of as it is, all are once
swapped; with grey values adapted view by view, none and 78 %. Not known for real films."""
MAX_HEIGHT_OFFSET_MM = 20.0
"""More than the estimate is off on those 76 exams: at most 6 mm, 16 mm with adapted grey values. A lateral view that
was 10, 20 and 40 mm too high cost the shipped model 1.1, 2.8 and 5.2 dB."""
_SEARCHED_MM = 60.0
_DICOM_SUFFIXES = (".dcm", ".dicom")
_HEAD_BYTES = 2**14
"""A DICOM file says within the first few hundred bytes what it is; a hostile one may go on saying so."""
_NAMED = 6


def find_views(
    source: str | Path | Sequence[str | Path] | Mapping[str, str | Path], frame: int | None = None
) -> dict[str, Radiograph]:
    """Read the two radiographs of one exam and tell the frontal from the lateral one.

    The view of a file is what the mapping says; else what the file itself says; else what a word of its name says.

    Args:
        source: a folder or a zip with the two files, at most one level further down, besides any files that are no
            images; two files; a mapping of ``frontal`` and ``lateral`` to files; or one file with both.
        frame: which one of a multi-frame file, counted from 0.

    Returns:
        ``frontal`` and ``lateral``, in this order.

    Raises:
        ValueError: not exactly these two views; the same image twice; two patients; views that contradict the files; or
            a file that cannot be read. Of identities only the attribute is named: logs are no place for their values.
    """
    if isinstance(source, Mapping):
        return _checked(_read_told(source, frame))
    if not isinstance(source, (str, Path)):
        return _checked(_told_apart(_read_all(source, frame, "the list")))
    path = Path(source)
    if path.is_dir():
        return _checked(_told_apart(_read_all(_images(path), frame, path)))
    if path.suffix.lower() == ".zip":
        return _unzipped(path, frame)
    return _checked(_told_apart(_read_all([path], frame, path)))


def _unzipped(path: Path, frame: int | None) -> dict[str, Radiograph]:
    """The views in a zip, whose files go by the zip's path instead of that of the folder they vanish with."""
    with unpacked(path) as folder:

        def renamed(text: str) -> str:
            return text.replace(str(folder), str(path))

        try:
            views = find_views(folder, frame)
        except ValueError as error:
            raise ValueError(renamed(str(error))) from error
    return {
        view: replace(film, path=renamed(film.path), warnings=tuple(map(renamed, film.warnings)))
        for view, film in views.items()
    }


def _images(folder: Path) -> list[Path]:
    """Files of a folder and of the folders in it that are images or claim to be.

    A folder that holds but one other folder stands for that one, as in exports by patient, study and series.
    """
    inside = _visible(folder)
    if len(inside) == 1 and inside[0].is_dir():
        return _images(inside[0])
    nested = [p for child in inside if child.is_dir() for p in _visible(child)]
    return [p for p in (*inside, *nested) if p.is_file() and _is_image(p)]


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "__MACOSX")


def _is_image(path: Path) -> bool:
    """Whether a file is an image, or claims to be; DICOM's reports, presentation states and directories are not."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not is_dicom(head):
        return is_picture(head) or path.name.lower().endswith((*SUFFIXES, *_DICOM_SUFFIXES))
    try:
        sop_class = stored_class(head)
    except Exception:  # on hostile bytes pydicom raises errors of any kind; reading the file will name them
        return True
    return sop_class.is_private or "Image" in sop_class.name


def _read_all(paths: Iterable[str | Path], frame: int | None, where: str | Path) -> list[Radiograph]:
    """The two radiographs in some files; more files than that are not even read."""
    paths = [Path(path) for path in paths]
    found = paths
    if len(paths) <= len(VIEWS):
        films = [film for path in paths for film in read_radiographs(path, frame)]
        if len(films) == len(VIEWS):
            return films
        found = [film.path for film in films]
    names = ", ".join(map(str, found[:_NAMED])) + (", ..." if len(found) > _NAMED else "")
    raise ValueError(
        f"{where}: an exam is two radiographs, a frontal and a lateral one, got {len(found)}{names and f' ({names})'}; "
        "leave the two alone, or name them by --frontal and --lateral"
    )


def _told_apart(films: Sequence[Radiograph]) -> dict[str, Radiograph]:
    views = [film.view or _view_of_name(film.path) for film in films]
    for film, view in zip(films, views, strict=True):
        if view is None:
            raise ValueError(
                f"{film.path}: neither the file nor its name tells whether this is the frontal or the lateral view; "
                "give the two files by --frontal and --lateral"
            )
    if views[0] == views[1]:
        raise ValueError(
            f"{films[0].path}, {films[1].path}: both are {views[0]} views; an exam is one frontal and one lateral view"
        )
    told = dict(zip(views, films, strict=True))
    return {view: told[view] for view in VIEWS}


def _read_told(paths: Mapping[str, str | Path], frame: int | None) -> dict[str, Radiograph]:
    if set(paths) != set(VIEWS) or not all(paths.values()):
        raise ValueError(f"views: give a file as --frontal and one as --lateral, got {dict(paths)!r}")
    films = {}
    for view in VIEWS:
        found = read_radiographs(paths[view], frame)
        if len(found) != 1:
            raise ValueError(f"{paths[view]}: holds {len(found)} radiographs; give it alone, not as the {view} view")
        films[view] = found[0]
        if films[view].view not in (None, view):
            raise ValueError(
                f"{paths[view]}: given as the {view} view, but by its own account a {films[view].view} one; exchange "
                "--frontal and --lateral, or correct the file"
            )
    return films


def _view_of_name(path: str) -> str | None:
    words = set(re.findall("[a-z]+", Path(path).name.lower()))
    views = [view for view in VIEWS if words & NAME_WORDS[view]]
    return views[0] if len(views) == 1 else None


def _checked(films: Mapping[str, Radiograph]) -> dict[str, Radiograph]:
    """The views, after all that two files can contradict each other in."""
    frontal, lateral = films["frontal"], films["lateral"]
    if np.array_equal(frontal.pixels, lateral.pixels):
        raise ValueError(f"{frontal.path}, {lateral.path}: the same image twice; give two different views")
    headers = (frontal.header, lateral.header)
    if differing := contradictions(headers, IDENTITY):
        raise ValueError(
            f"{frontal.path}, {lateral.path}: two patients, by {', '.join(differing)}; give two views of one patient"
        )
    apart = ()
    if contradictions(headers, ["StudyInstanceUID"]):
        apart = (f"{frontal.path}, {lateral.path}: from two studies; the patient may have changed in between",)
    return {"frontal": _completed(frontal, "frontal", apart), "lateral": _completed(lateral, "lateral", ())}


def _completed(film: Radiograph, view: str, warnings: tuple[str, ...]) -> Radiograph:
    named = _view_of_name(film.path)
    if named not in (None, view):
        warnings = (*warnings, f"{film.path}: taken as the {view} view, though its name says {named}")
    is_nifti = film.path.lower().endswith(SUFFIXES)
    orientation = film.orientation or (NIFTI_ORIENTATION[view] if is_nifti else None)
    return replace(film, view=view, orientation=orientation, warnings=(*film.warnings, *warnings))


def disagreements(image: np.ndarray, geometry: BiplanarGeometry) -> list[str]:
    """What two views of one patient, in the network's frame, must agree in but do not.

    The frontal shadow is the wider one, and at any height both views see the same matter: the sum over a row is, but
    for perspective, the attenuation of one axial slice.

    Args:
        image: line integrals ``[2, N, N]`` or any image that grows with them, frontal (u, w) and lateral (v, w).
        geometry: of the network.
    """
    bodies = [np.clip(view - np.percentile(view, 5), 0, None) for view in image]
    if not all(body.any() for body in bodies):
        return []
    pitch_mm = isocentre_pitch_mm(geometry)
    ratio = _width(bodies[0]) / _width(bodies[1])
    offset_mm = _height_offset(*bodies, most=round(_SEARCHED_MM / pitch_mm)) * pitch_mm
    warnings = []
    if ratio < MIN_WIDTH_RATIO:
        warnings.append(
            f"the frontal view's shadow is {ratio:.2f} times as wide as the lateral one's, but a body's at least "
            f"{MIN_WIDTH_RATIO}: are the views swapped?"
        )
    if abs(offset_mm) > MAX_HEIGHT_OFFSET_MM:
        warnings.append(
            f"by what each row attenuates, the lateral view seems {abs(offset_mm):.0f} mm too "
            f"{'high' if offset_mm > 0 else 'low'} for the frontal one, more than the {MAX_HEIGHT_OFFSET_MM:.0f} mm "
            "that this estimate may be off: is --centre right for both?"
        )
    return warnings


def _width(body: np.ndarray) -> float:
    """Standard deviation of a shadow across the patient's axis, in pixels."""
    weights = body.sum(axis=1)
    across = np.arange(len(weights))
    mean = np.average(across, weights=weights)
    return math.sqrt(np.average((across - mean) ** 2, weights=weights))


def _height_offset(frontal: np.ndarray, lateral: np.ndarray, most: int) -> int:
    """By how many pixels the lateral view lies higher, by the correlation of the slopes of both profiles along w."""
    first, second = (np.gradient(gaussian_filter1d(body.sum(axis=0), 1.0)) for body in (frontal, lateral))

    def agreement(offset: int) -> float:
        a, b = (
            first[max(0, -offset) : len(first) - max(0, offset)],
            second[max(0, offset) : len(second) + min(0, offset)],
        )
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12))

    return max(sorted(range(-most, most + 1), key=abs), key=agreement)
