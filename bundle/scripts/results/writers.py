"""Writers of a result's files, one per file type, into the exam's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydicom import dcmread

from scripts.dicom.write_capture import write_captures
from scripts.dicom.write_ct import CtDescription, write_ct_series, write_uncertainty_series
from scripts.io.nifti import write_volume
from scripts.results.record import DECISIVE
from scripts.results.save import Result

Writer = Callable[[Path, Result], None]


def chosen(writers: Mapping[str, Writer], names: str | Sequence[str]) -> list[Writer]:
    """Return the writers of the given names, a list or one text with commas, in the order of ``writers``.

    Raises:
        ValueError: a name is unknown, or a writer needs another one's files.
    """
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name, writer in zip(wanted, _chosen("--outputs", writers, wanted), strict=True):
        needed = getattr(writer, "needs", None)
        if needed not in (None, *wanted):
            raise ValueError(f"--outputs: {name} refers to the files of {needed}; add {needed}, got {names!r}")
    return [writer for name, writer in writers.items() if name in wanted]


def chosen_report(reports: Mapping[str, Writer], name: str) -> Writer:
    """Return the writer of the report of this name.

    Raises:
        ValueError: the name is unknown.
    """
    return _chosen("--report", reports, [str(name)])[0]


def _chosen(option: str, writers: Mapping[str, Writer], names: Sequence[str]) -> list[Writer]:
    unknown = [name for name in names if name not in writers]
    if unknown:
        raise ValueError(f"{option}: unknown {', '.join(map(repr, unknown))}; choose from {', '.join(writers)}")
    return [writers[name] for name in names]


class WriteNifti:
    """Writer of ``ct.nii.gz``, int16 HU (mean of the samples), and what is known of ``std``, ``lower``, ``upper``
    and ``support``.

    ``std.nii.gz`` is float32 HU, the ends of the interval are int16 HU, and ``support.nii.gz`` is float32, 0 to 1.
    """

    def __call__(self, folder: Path, result: Result) -> None:
        """Write the files."""
        write_volume(folder / "ct.nii.gz", np.rint(result.mean).astype(np.int16), result.affine)
        if result.std is not None:
            write_volume(folder / "std.nii.gz", result.std, result.affine)
        if result.interval is not None:
            for name, end in zip(("lower", "upper"), result.interval, strict=True):
                write_volume(folder / f"{name}.nii.gz", np.rint(end).astype(np.int16), result.affine)
        if result.support is not None:
            write_volume(folder / "support.nii.gz", result.support, result.affine)


@dataclass(frozen=True)
class DrawFigure:
    """Writer of ``figure.png``: inputs, re-projections, slices and the skeleton, with the truth if known.

    Attributes:
        draw: ``draw(path, hu, measured, reprojected, spacing_mm, title, truth)``; ``truth`` is None if not known.
    """

    draw: Callable[..., None]

    def __call__(self, folder: Path, result: Result) -> None:
        """Draw the figure."""
        images = (result.mean, result.measured, result.reprojected)
        self.draw(folder / "figure.png", *images, result.spacing_mm, result.name, result.truth)


class WriteDicom:
    """Writer of the DICOM CT series ``dicom/ct`` and, if known, ``dicom/std`` with the standard deviation.

    Patient and study are those of the radiographs, or anonymous for inputs that are not DICOM.
    """

    def __call__(self, folder: Path, result: Result) -> None:
        """Write the files."""
        sources, description = result.exam.headers, _description(result)
        series = {"ct": (write_ct_series, result.mean), "std": (write_uncertainty_series, result.std)}
        for name, (write, volume) in series.items():
            if volume is not None:
                (folder / "dicom" / name).mkdir(parents=True)
                write(folder / "dicom" / name, volume, result.affine, sources, description)


@dataclass(frozen=True)
class WriteCapture:
    """Writer of ``dicom/capture``, the skeleton of both views as DICOM secondary captures.

    Attributes:
        draw: ``draw(hu)``, the pictures by view: grey bytes ``[rows, columns]``.
    """

    draw: Callable[[np.ndarray], Mapping[str, np.ndarray]]

    def __call__(self, folder: Path, result: Result) -> None:
        """Write the files."""
        (folder / "dicom" / "capture").mkdir(parents=True)
        pictures, about = self.draw(result.mean), (result.spacing_mm, result.exam.headers, _description(result))
        write_captures(folder / "dicom" / "capture", pictures, *about)


@dataclass(frozen=True)
class WriteParametricMap:
    """Writer of ``dicom/parametric_map``, the standard deviation as a DICOM Parametric Map of ``dicom/ct``, if known.

    Attributes:
        write: :func:`~scripts.dicom.write_parametric_map.write_parametric_map`.
        require: raises an error if it cannot be used.
        needs: name of the writer of the series that the map refers to.
    """

    write: Callable[..., Path]
    require: Callable[[], None]
    needs: ClassVar[str] = "dicom"

    def __post_init__(self) -> None:
        self.require()

    def __call__(self, folder: Path, result: Result) -> None:
        """Write the file."""
        if result.std is not None:
            (folder / "dicom" / "parametric_map").mkdir(parents=True)
            ct = [dcmread(path) for path in sorted((folder / "dicom" / "ct").iterdir())]
            self.write(folder / "dicom" / "parametric_map", result.std, result.affine, ct, _description(result))


@dataclass(frozen=True)
class WriteReport:
    """Writer of the HTML report and its thumbnail.

    Attributes:
        write: ``write(folder, record, images, volumes, affine)``, which chooses the file names.
    """

    write: Callable[..., None]

    def __call__(self, folder: Path, result: Result) -> None:
        """Write the page."""
        images = {"measured": result.measured, "reprojected": result.reprojected}
        images |= {f"{view}_film": pixels for view, pixels in result.exam.films.items()}
        percent = None if result.support is None else 100 * result.support
        volumes = {"ct": result.mean, "std": result.std, "support": percent, "truth": result.truth}
        known = {name: volume for name, volume in volumes.items() if volume is not None}
        self.write(folder, result.record.to_dict(), images, known, result.affine)


class WriteLightReport(WriteReport):
    """Writer of the small report; with this name in its record, a result is not taken for one with the full report."""


def _description(result: Result) -> CtDescription:
    exam, made = result.exam, result.record.settings.provenance
    decisive = {"inputs": sorted(exam.files.values()), "options": exam.options}
    how = {name: made[name] for name in ("seed", *DECISIVE) if made.get(name) is not None}
    weights = how.pop("weights_sha256")
    views = exam.views
    return CtDescription(
        exam=json.dumps(decisive, sort_keys=True),
        software=made["bundle"]["name"],
        version=made["bundle"]["version"],
        weights_sha256=weights,
        derivation=", ".join(f"{name} {value}" for name, value in how.items()),
        is_lossy=exam.is_lossy,
        source="2 X-rays" if len(views) > 1 else f"1 X-ray ({views[0]})",
        uncertainty=result.std_is,
        created=datetime.fromisoformat(result.record.created),
    )
