"""Bad input of the training of the prediction of errors; its success is in ``test_interval_study.py``."""

import numpy as np
import pytest
import torch
from tests.refusal import refused

from scripts.studies.learn_error import learn_error


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"voxels": 0}, ["at least 1", "0"]),
        ({"steps": 1.5}, ["learning_steps", "1.5"]),
        ({"learning_rate": "fast"}, ["learning_rate", "fast"]),
    ],
)
def test_impossible_numbers_are_refused(changed, named, tmp_path):
    options = {"voxels": 10, "steps": 2, "batch_size": 4, "learning_rate": 0.01, "seed": 0} | changed
    with refused(ValueError, *named):
        learn_error(
            tmp_path / "error_scale.pt", None, lambda image: image, torch.device("cpu"), {},
            lambda hu: np.ones(hu.shape, bool), **options,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
