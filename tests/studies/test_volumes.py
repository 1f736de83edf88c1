"""Volumes of an evaluation as files."""

import numpy as np
import torch
from ignite.engine import Engine, State

from scripts.intensity import hu_to_network
from scripts.io.nifti import read_volume
from scripts.studies.volumes import SaveVolumes


def save(folder, *volumes):
    engine = Engine(lambda *_: None)
    engine.state = State(
        batch={"name": [str(i) for i in range(len(volumes))], "affine": torch.eye(4)[None].expand(len(volumes), 4, 4)},
        output={"pred": torch.stack([hu_to_network(volume)[None] for volume in volumes])},
    )
    SaveVolumes(folder)(engine)


def test_files_hold_rounded_hu_and_the_affine_of_the_truth(tmp_path):
    hu = torch.linspace(-1000, 1000, 27).reshape(3, 3, 3)
    save(tmp_path, hu)
    volume, affine = read_volume(tmp_path / "0.nii.gz")
    assert np.abs(volume - hu.numpy()).max() <= 0.51 and (affine == np.eye(4)).all()


def test_a_volume_that_is_not_finite_leaves_no_file_and_no_older_one(tmp_path):
    fine, broken = torch.zeros(3, 3, 3), torch.full((3, 3, 3), torch.nan)
    save(tmp_path, fine, fine)
    save(tmp_path, fine, broken)
    assert [path.name for path in tmp_path.iterdir()] == ["0.nii.gz"]
