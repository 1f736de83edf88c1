"""What the tests of the integrations send: the demo case in other forms, and weights that do not fit."""

import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from scripts.geometry import VIEWS, read_geometry
from scripts.io.case import read_case

BUNDLE = Path(__file__).parents[2] / "bundle"
DEMO = BUNDLE / "docs" / "demo"
SERVED = ("configs", "docs", "models", "scripts")
"""Of the bundle's folders, what a copy to be served needs; others hold data and results."""


def packed(folder):
    """Writes the demo case as one NIfTI file of line integrals of both views, and how they were taken beside it."""
    image, geometry = read_case(DEMO).line_integrals.numpy(), read_geometry(DEMO / "geometry.json")
    both = nib.Nifti1Image(np.moveaxis(image, 0, -1), np.diag([geometry.detector_spacing_mm] * 2 + [1, 1]))
    told = {name: getattr(geometry, name) for name in ("source_to_isocentre_mm", "source_to_detector_mm")}
    told["source_side"] = {view: getattr(geometry, f"{view}_source") for view in VIEWS}
    folder.mkdir(exist_ok=True)
    nib.save(both, folder / "both.nii.gz")
    (folder / "acquisition.json").write_text(json.dumps(told))
    return folder


def zipped(films, folder):
    """Writes ``exam.zip`` with the files of ``films``."""
    with zipfile.ZipFile(folder / "exam.zip", "w") as archive:
        for path in films.iterdir():
            archive.write(path, path.name)
    return folder / "exam.zip"


def trained():
    """The bundle's weights."""
    return torch.load(BUNDLE / "models" / "model.pt", weights_only=True)


def without_biases(state):
    return {name: value for name, value in state.items() if not name.endswith("bias")}
