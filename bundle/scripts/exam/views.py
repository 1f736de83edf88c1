"""Identification of the frontal and lateral radiographs of an exam, and their comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from scripts.dicom.identity import IDENTITY, contradictions, naming
from scripts.exam.contents import ACQUISITION_FILE, acquisition_files, passed_over, radiographs
from scripts.exam.read import read_radiographs
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.io.archive import unpacked
from scripts.io.nifti_radiograph import NIFTI_ORIENTATION
from scripts.io.radiograph import Radiograph
from scripts.io.text import read_json

NAME_WORDS = {"frontal": {"frontal", "ap", "pa"}, "lateral": {"lateral", "lat"}}
"""Words in a file's name that indicate its view, if nothing else does."""
MIN_WIDTH_RATIO = 0.97
"""Smallest ratio of the widths of the frontal and lateral shadows. It is 1.09 to 1.58 in 16 adult CTs and 1.16 to 1.54
in 60 phantoms, and so less than 1 if the views are swapped. Of these 76 exams none raises a warning, but all do once
swapped; with grey values adapted per view, none and 78 %. Unknown for real films."""
MAX_HEIGHT_OFFSET_MM = 20.0
"""Limit above the error of the estimate on those 76 exams: at most 6 mm, 16 mm with adapted grey values. Larger ones
cost several dB (docs/radiographs.md)."""
MAX_ROW_MISFIT = 0.19
"""Limit of the relative difference between the sums over both views' rows, for line integrals. 1.5 % of random views of
the training and validation patients with errors of pose exceed it, none of 144 of the test patients, and 96 % of the
pairs of two test patients. With film effects, which also change the values, a limit as strict finds 71 %,
so values without an absolute scale are not compared."""
_SEARCHED_MM = 60.0
_NAMED = 6


_Found = tuple[dict[str, Radiograph], dict[str, Any]]
_Reader = Callable[[str | Path], list[Radiograph]]
_Source = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


@dataclass(frozen=True)
class ViewChoice:
    """Choice of the views that a network gets.

    Attributes:
        used: ``frontal``, ``lateral`` or both, in this order.
        one_view: whether the network was also trained with a single view.
    """

    used: tuple[str, ...] = VIEWS
    one_view: bool = False

    @property
    def is_both(self) -> bool:
        """Whether the network gets both views."""
        return self.used == VIEWS

    @property
    def options(self) -> str:
        """The options that name the files."""
        return " and ".join(f"--{view}" for view in self.used)

    @property
    def hint(self) -> str:
        """End of the error for a missing view, with an alternative if there is one."""
        if not (self.is_both and self.one_view):
            return ""
        return "; this network also takes one view: choose it by " + " or ".join(f"--views {view}" for view in VIEWS)


BOTH = ViewChoice()


def choose_views(views: str | Sequence[str], one_view: bool) -> ViewChoice:
    """Parse a choice of views, given as a list or as one text with commas.

    Args:
        views: names of the views, in any order.
        one_view: whether the network was trained with a single view.

    Raises:
        ValueError: a view is unknown or repeated, there is none, or only one for a network that needs both.
    """
    wanted = [name.strip() for name in views.split(",")] if isinstance(views, str) else list(views)
    used = tuple(view for view in VIEWS if view in wanted)
    if not used or len(used) != len(wanted):
        raise ValueError(f"--views: choose {' or '.join(VIEWS)}, or both with a comma between them; got {views!r}")
    if used != VIEWS and not one_view:
        raise ValueError(
            f"--views: this network was trained with both views and would take a missing one for air, got {used[0]!r}; "
            "give both, or use a method whose configuration says one_view, with its weights"
        )
    return ViewChoice(used, one_view)


def find_exam(
    source: _Source, frame: int | None = None, choice: ViewChoice = BOTH, intensity: str | None = None
) -> _Found:
    """Read the radiographs of one exam, identify the frontal and the lateral one, and read their acquisition file.

    The view of a file is given by the mapping, else by the file itself, else by a word of its name. If only one view is
    used, the other may be present, but must belong to the same patient.

    Args:
        source: a folder or a zip with the two files at any depth, possibly among files that are not images; two files;
            a mapping of ``frontal`` and ``lateral`` to files; or one file with both.
        frame: index from 0 in a multi-frame file.
        choice: views to use.
        intensity: scale of DICOM pixels by the user's account.

    Returns:
        The used views, frontal first, and the content of the :data:`ACQUISITION_FILE` anywhere in the folder or zip;
        empty for files given one by one.

    Raises:
        ValueError: the views are not exactly these, are the same image, belong to two patients or contradict the files;
            a file cannot be read; there are two acquisition files, or one is not a JSON object. Messages name
            attributes of identities without values, to keep these out of logs.
    """
    read = partial(read_radiographs, frame=frame, intensity=intensity)
    if isinstance(source, Mapping):
        return _checked(_read_told(source, read, choice), choice), {}
    if not isinstance(source, (str, Path)):
        return _recognised(source, read, "the list", choice), {}
    path = Path(source)
    if path.is_dir():
        return _recognised(radiographs(path), read, path, choice), _read_acquisition(acquisition_files(path))
    if path.suffix.lower() == ".zip":
        return _unzipped(path, partial(find_exam, frame=frame, choice=choice, intensity=intensity))
    return _recognised([path], read, path, choice), {}


def _unzipped(path: Path, find: Callable[[Path], _Found]) -> _Found:
    """Read the exam in a zip, with messages that name the zip instead of the temporary folder."""
    with unpacked(path) as folder:

        def renamed(text: str) -> str:
            return text.replace(str(folder), str(path))

        try:
            films, told = find(folder)
        except ValueError as error:
            raise ValueError(renamed(str(error))) from error
    named = {
        view: replace(film, path=renamed(film.path), warnings=tuple(map(renamed, film.warnings)))
        for view, film in films.items()
    }
    return named, told


def _read_acquisition(paths: Sequence[Path]) -> dict[str, Any]:
    """Read the acquisition file; empty if there is none."""
    if not paths:
        return {}
    if len(paths) > 1:
        raise ValueError(
            f"{', '.join(map(str, paths[:_NAMED]))}: an exam has one {ACQUISITION_FILE}, got {len(paths)}; put what "
            "differs between the views under their names into one"
        )
    told = read_json(paths[0])
    if not isinstance(told, dict):
        raise ValueError(f"{paths[0]}: expected an object with the names of options, got {type(told).__name__}")
    return told


def _recognised(
    paths: Iterable[str | Path], read: _Reader, where: str | Path, choice: ViewChoice
) -> dict[str, Radiograph]:
    """Return the used views from files that are not named by view."""
    return _checked(_told_apart(_read_all(paths, read, where, choice), choice), choice)


def _read_all(paths: Iterable[str | Path], read: _Reader, where: str | Path, choice: ViewChoice) -> list[Radiograph]:
    """Read the radiographs in some files, unless there are more files than in an exam."""
    paths = [Path(path) for path in paths]
    found = paths
    if len(paths) <= len(VIEWS):
        films = [film for path in paths for film in read(path)]
        if len(choice.used) <= len(films) <= len(VIEWS):
            return films
        found = [film.path for film in films]
    names, others = _listed(found), ""
    if len(found) < len(choice.used) and isinstance(where, Path) and where.is_dir() and (other := passed_over(where)):
        others = f" besides {_listed(other)}, not taken for radiographs by content or name"
    if choice.is_both:
        rule, remedy = "two radiographs, a frontal and a lateral one", "leave the two alone, or name them"
    else:
        rule = f"a {choice.used[0]} radiograph, with or without that of the other view"
        remedy = "leave it alone, or name it"
    raise ValueError(
        f"{where}: an exam is {rule}, got {len(found)}{names and f' ({names})'}{others}; {remedy} by "
        f"{choice.options}"
        f"{choice.hint if len(found) == 1 else ''}"
    )


def _listed(paths: Sequence[str | Path]) -> str:
    return ", ".join(map(str, paths[:_NAMED])) + (", ..." if len(paths) > _NAMED else "")


def _told_apart(films: Sequence[Radiograph], choice: ViewChoice) -> dict[str | None, Radiograph]:
    """Return films by view, frontal first; the key is None for a film of unknown view that is not needed."""
    views = [film.view or _view_of_name(film.path) for film in films]
    told = dict(zip(views, films, strict=True))
    if None in told and not told.keys() >= {*choice.used}:
        raise ValueError(
            f"{films[views.index(None)].path}: neither the file nor its name tells whether this is the frontal or the "
            f"lateral view; give {'the two files' if choice.is_both else 'the file'} by {choice.options}"
        )
    if len(told) < len(films):
        raise ValueError(
            f"{films[0].path}, {films[1].path}: both are {views[0]} views; an exam is one frontal and one lateral view"
        )
    if not told.keys() >= {*choice.used}:
        raise ValueError(
            f"{films[0].path}: a {views[0]} view, but --views asks for the {choice.used[0]} one; give that file, or "
            f"choose --views {views[0]}"
        )
    return {view: told[view] for view in (*VIEWS, None) if view in told}


def _read_told(paths: Mapping[str, str | Path], read: _Reader, choice: ViewChoice) -> dict[str | None, Radiograph]:
    if not {*choice.used} <= set(paths) <= {*VIEWS} or not all(paths.values()):
        raise ValueError(
            f"views: give a file as {' and one as '.join(f'--{view}' for view in choice.used)}, got {dict(paths)!r}"
            f"{choice.hint}"
        )
    films: dict[str | None, Radiograph] = {}
    for view in choice.used:
        found = read(paths[view])
        if len(found) != 1:
            raise ValueError(f"{paths[view]}: holds {len(found)} radiographs; give it alone, not as the {view} view")
        films[view] = film = found[0]
        if film.view not in (None, view):
            raise ValueError(
                f"{paths[view]}: given as the {view} view, but by its own account a {film.view} one; exchange "
                "--frontal and --lateral, or correct the file"
            )
    return films


def _view_of_name(path: str) -> str | None:
    words = set(re.findall("[a-z]+", Path(path).name.lower()))
    views = [view for view in VIEWS if words & NAME_WORDS[view]]
    return views[0] if len(views) == 1 else None


def _checked(films: Mapping[str | None, Radiograph], choice: ViewChoice) -> dict[str, Radiograph]:
    """Check the files of one exam against each other and return the used views."""
    paths, headers = ", ".join(film.path for film in films.values()), [film.header for film in films.values()]
    pixels = [film.pixels for film in films.values()]
    if len(pixels) == 2 and np.array_equal(pixels[0], pixels[1]):
        raise ValueError(f"{paths}: the same image twice; give two different views")
    if differing := contradictions(headers, IDENTITY):
        raise ValueError(f"{paths}: two patients, by {', '.join(differing)}; give two views of one patient")
    views = {view: _completed(films[view], view) for view in choice.used}
    if choice.is_both and contradictions(headers, ["StudyInstanceUID"]):
        apart = f"{paths}: from two studies; the patient may have changed in between"
        views["frontal"] = replace(views["frontal"], warnings=(*views["frontal"].warnings, apart))
    return _compared(views) if choice.is_both else views


def _compared(views: Mapping[str, Radiograph]) -> dict[str, Radiograph]:
    """Return both views with a warning if only one of them tells who the patient is, or each in another way."""
    less, more = sorted(views, key=lambda view: len(naming(views[view].header)))
    film, theirs = views[less], naming(views[more].header)
    if not theirs or naming(film.header) & theirs:
        return dict(views)
    unknown = (
        f"{film.path}: it does not state the {' and '.join(sorted(theirs))} that {views[more].path} states, so nothing "
        "shows that both are of one patient, under whom the result is filed: check the files"
    )
    return {**views, less: replace(film, warnings=(*film.warnings, unknown))}


def _completed(film: Radiograph, view: str) -> Radiograph:
    named, warnings = _view_of_name(film.path), film.warnings
    if named not in (None, view):
        warnings = (*warnings, f"{film.path}: taken as the {view} view, though its name says {named}")
    is_nifti = film.scale == "line_integral" and film.modality is None  # by itself, no other kind of file holds them
    orientation = film.orientation or (NIFTI_ORIENTATION[view] if is_nifti else None)
    return replace(film, view=view, orientation=orientation, warnings=warnings)


def disagreements(image: np.ndarray, geometry: BiplanarGeometry, is_absolute: bool = False) -> list[str]:
    """Return warnings about inconsistencies between two views of one patient; empty for a single view.

    The frontal shadow is the wider one, and at any height both views see the same matter: except for perspective, the
    sum over a row is the attenuation of one axial slice.

    Args:
        image: line integrals ``[2, N, N]`` or any image that increases with them, frontal (u, w) and lateral (v, w); a
            missing view is zero.
        geometry: geometry of the network.
        is_absolute: whether the image holds line integrals, so that the sums themselves can be compared.
    """
    frontal, lateral = (np.clip(view - np.percentile(view, 5), 0, None) for view in image)
    if not frontal.any() or not lateral.any():
        return []
    pitch_mm = geometry.isocentre_pitch_mm
    ratio = _width(frontal) / _width(lateral)
    offset_mm = _height_offset(frontal, lateral, most=round(_SEARCHED_MM / pitch_mm)) * pitch_mm
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
    misfit = _row_misfit(image)
    if is_absolute and not warnings and misfit > MAX_ROW_MISFIT:
        warnings.append(
            f"the rows of the two views attenuate differently, by {misfit:.0%} (limit {MAX_ROW_MISFIT:.0%}): are both "
            "of one patient, in one scale? Check --frontal, --lateral and --air_value"
        )
    return warnings


def _row_misfit(image: np.ndarray) -> float:
    """Return the relative L2 difference of the sums over the rows of two views ``[2, N, N]``."""
    frontal, lateral = image.sum(axis=1, dtype=np.float64)
    return float(np.linalg.norm(frontal - lateral) / np.linalg.norm((frontal + lateral) / 2))


def _width(body: np.ndarray) -> float:
    """Return the standard deviation of a shadow across the patient's axis, in pixels."""
    weights = body.sum(axis=1)
    across = np.arange(len(weights))
    mean = np.average(across, weights=weights)
    return math.sqrt(np.average((across - mean) ** 2, weights=weights))


def _height_offset(frontal: np.ndarray, lateral: np.ndarray, most: int) -> int:
    """Return by how many pixels the lateral view is higher, from the correlation of both profiles' slopes along w."""
    first, second = (np.gradient(gaussian_filter1d(body.sum(axis=0), 1.0)) for body in (frontal, lateral))

    def agreement(offset: int) -> float:
        a, b = (
            first[max(0, -offset) : len(first) - max(0, offset)],
            second[max(0, offset) : len(second) + min(0, offset)],
        )
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12))

    return max(sorted(range(-most, most + 1), key=abs), key=agreement)
