"""Loss of accuracy of the shipped weights on films that deviate from the training geometry (docs/radiographs.md).

    PYTHONPATH=bundle python benchmarks/deviations.py --dataset_dir DATA

DATA is the output of `prepare.json`. The films of every case of the split are simulated from its CT by the ray march,
with one deviation at a time, resampled to the network's geometry by the bundle's own code, which knows of a deviation
only what an exam would state, and reconstructed with the defaults of `inference.json`. The loss is that in PSNR3D (data
range 2) compared with the same case's films without deviation; if a deviation has two directions, the mean of both.
Only films that show too little are refused, so that both sides of the limits can be seen. The last rows are the
radiographs of the case itself, exported by `export_radiographs.json` and read like any exam.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from scripts.cases.export_radiographs import export_case
from scripts.data.datasets import PreparedCases
from scripts.dicom.write_radiograph import FORMS
from scripts.exam.acquisition import Acquisition, acquisitions_of
from scripts.exam.load import LoadExamd
from scripts.exam.rectify import displacement_mm, fade_to_air, rectify
from scripts.geometry import VIEWS, BiplanarGeometry, preset
from scripts.intensity import hu_to_mu, hu_to_network, radiograph_to_network
from scripts.metrics.protocol import DATA_RANGE
from scripts.metrics.volume import psnr
from scripts.physics.raymarch import RayMarchProjector, rotate_pose, view_pose
from scripts.studies.cases import case_folders

CONFIG = Path(__file__).resolve().parents[1] / "bundle" / "configs" / "inference.json"
WHOLE = slice(None)
WAYS = (1, -1)


class Subject(NamedTuple):
    """A case's folder and its CT ``[1, 1, U, V, W]`` in HU."""

    folder: Path
    hu: Tensor


Read = Callable[[Subject, BiplanarGeometry], Tensor]
"""Maps a case and the network's geometry to the network's input ``[1, 2, N, N]``."""


@dataclass(frozen=True)
class Films:
    """True and stated acquisition of a pair of films.

    Attributes:
        exam: sources, detectors and the grid of the CT.
        stated: stated acquisition of each view.
        turned_deg: rotations of the frontal and the lateral view about the patient's long axis; not stated.
        shown: indices along (u or v, w) of the visible part of either film.
    """

    exam: BiplanarGeometry
    stated: Mapping[str, Acquisition]
    turned_deg: tuple[float, float] = (0.0, 0.0)
    shown: tuple[slice, slice] = (WHOLE, WHOLE)

    def __call__(self, subject: Subject, network: BiplanarGeometry) -> Tensor:
        """Simulate the films and resample them to the network's geometry."""
        poses = [
            rotate_pose(view_pose(self.exam, view), (0.0, 0.0, math.radians(turn)))
            for view, turn in zip(VIEWS, self.turned_deg, strict=True)
        ]
        films = RayMarchProjector(self.exam, tuple(poses))(hu_to_mu(subject.hu))[0].numpy()
        mask = np.zeros(films.shape[1:], dtype=bool)
        mask[self.shown] = True
        found = (rectify(film, mask, self.stated[view], view, network) for view, film in zip(VIEWS, films, strict=True))
        image = np.stack([fade_to_air(*view, network) for view in found])
        return radiograph_to_network(torch.from_numpy(image).float()[None])


@dataclass(frozen=True)
class Exported:
    """The case's radiographs exported to DICOM in one of :data:`~scripts.dicom.write_radiograph.FORMS`."""

    form: str
    load: LoadExamd

    def __call__(self, subject: Subject, network: BiplanarGeometry) -> Tensor:
        """Write and read them."""
        with TemporaryDirectory() as folder:
            exam = Path(folder, "exam")
            export_case(subject.folder, exam, FORMS[self.form])
            return self.load({"image": str(exam)})["image"].as_tensor()[None]


def truthful(exam: BiplanarGeometry) -> Films:
    """Return films with a correctly stated acquisition."""
    return Films(exam, acquisitions_of(exam))


def too_high(films: Films, offset_mm: float) -> Films:
    """Shift the patient upwards in the lateral view, by ``offset_mm`` in the isocentre plane."""
    lateral = films.stated["lateral"]
    row, column = lateral.centre
    column -= offset_mm * lateral.magnification / lateral.pixel_spacing_mm[1]
    return replace(films, stated={**films.stated, "lateral": replace(lateral, centre=(row, column))})


def enlarged(films: Films, factor: float) -> Films:
    """Magnify the patient by ``factor`` in both views."""
    stated = {
        view: replace(said, pixel_spacing_mm=tuple(factor * pitch_mm for pitch_mm in said.pixel_spacing_mm))
        for view, said in films.stated.items()
    }
    return replace(films, stated=stated)


def elsewhere(geometry: BiplanarGeometry) -> dict[str, list[list[Read]]]:
    """Return the table's rows for other positions of the tubes."""
    grid = (geometry.volume_shape, geometry.volume_spacing_mm, geometry.detector_pixels)
    exams = {
        "tube at 1500 mm, same sides": preset("chest", *grid),
        "tube at 1500 mm, frontal from behind": replace(preset("chest", *grid), frontal_source="posterior"),
        "both sides mirrored at the trained distances": replace(
            geometry, frontal_source="posterior", lateral_source="left"
        ),
        "tube at 541 mm, frontal from behind": replace(preset("x2ct", *grid), frontal_source="posterior"),
    }
    rows = {}
    for name, exam in exams.items():
        largest_mm = max(displacement_mm(said, view, geometry) for view, said in acquisitions_of(exam).items())
        rows[f"{name} ({largest_mm:.0f} mm displacement)"] = [[truthful(exam)]]
    return rows


def deviations(geometry: BiplanarGeometry, load: LoadExamd) -> dict[str, list[list[Read]]]:
    """Return the table's rows by name: the degrees of each deviation, and their directions."""
    usual, pixels = truthful(geometry), geometry.detector_pixels
    fifth = round(pixels / 5)
    low, high = slice(fifth, None), slice(pixels - fifth)

    def turned(views: tuple[int, int], *turns_deg: float) -> list[list[Read]]:
        return [
            [replace(usual, turned_deg=tuple(way * turn * view for view in views)) for way in WAYS]
            for turn in turns_deg
        ]

    def square(side: float) -> list[Read]:
        margin = round((1 - side) / 2 * pixels)
        return [replace(usual, shown=(slice(margin, pixels - margin),) * 2)]

    return elsewhere(geometry) | {
        "frontal view turned by 2 / 5 / 10 / 15°": turned((1, 0), 2, 5, 10, 15),
        "lateral view turned, or the patient before it, by 5 / 10°": turned((0, 1), 5, 10),
        "patient turned in both views by 5 / 10°": turned((1, 1), 5, 10),
        "lateral view 5 / 10 / 20 / 40 mm too high or low": [
            [too_high(usual, way * offset_mm) for way in WAYS] for offset_mm in (5, 10, 20, 40)
        ],
        "scale wrong by 5 / 10 %": [[enlarged(usual, 1 + way * share) for way in WAYS] for share in (0.05, 0.1)],
        "both films show only a square in the field's middle, 64 / 49 / 41 % of it": [
            square(side) for side in (0.8, 0.7, 0.64)
        ],
        "both films lack a fifth of the field: left and back / right and front / feet / head": [
            [replace(usual, shown=shown)] for shown in ((low, WHOLE), (high, WHOLE), (WHOLE, low), (WHOLE, high))
        ],
        "as DICOM: counts / post-processed, hence adapted": [
            [Exported(form, load)] for form in ("processing", "presentation")
        ],
    }


def row(degrees: Sequence[Sequence[Read]], loss: Callable[[Read], np.ndarray]) -> str:
    """Format the mean losses by degree, and the largest of any case."""
    losses = [np.mean([loss(read) for read in ways], axis=0) for ways in degrees]
    return " | ".join(" / ".join(f"{of(x):.1f}" for x in losses) for of in (np.mean, np.max))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True, help="output folder of prepare.json")
    parser.add_argument("--split", default="val", help="train, val or test")
    arguments = parser.parse_args()
    config = ConfigParser()
    config.read_config(CONFIG)
    config["grid_factor"] = 1
    names = ("geometry", "network", "inferer", "device", "load_exam")
    geometry, network, inferer, device, load = map(config.get_parsed_content, names)
    network.eval()
    cases = PreparedCases(case_folders(arguments.dataset_dir, arguments.split), geometry)
    subjects = [Subject(folder, case["hu"][None]) for folder, case in zip(cases.folders, cases, strict=True)]

    def reached(read: Read) -> np.ndarray:
        volumes = [inferer(read(subject, geometry).to(device), network).float().cpu() for subject in subjects]
        targets = [hu_to_network(subject.hu) for subject in subjects]
        return np.array([psnr(*pair, DATA_RANGE).item() for pair in zip(volumes, targets, strict=True)])

    usual = reached(truthful(geometry))
    print(f"torch {torch.__version__}, {len(usual)} cases, {usual.mean():.2f} dB without deviation\n")
    print("| deviation | loss (dB) | of the case that loses most |\n|---|---|---|", flush=True)
    for name, degrees in deviations(geometry, load).items():
        print(f"| {name} | {row(degrees, lambda read: usual - reached(read))} |", flush=True)


if __name__ == "__main__":
    main()
