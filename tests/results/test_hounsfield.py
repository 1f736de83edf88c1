"""Predictions back to HU."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tests.refusal import refused

from scripts.exam.exam import Exam, to_meta
from scripts.geometry import VIEWS, preset
from scripts.intensity import hu_to_network
from scripts.results.hounsfield import ToHounsfieldd

AFFINE = preset("carm", (8, 8, 8), 40.0, 12).volume_affine()


def finish(pred):
    image = MetaTensor(torch.zeros(2, 12, 12), meta=to_meta(Exam("demo", VIEWS, AFFINE, {})))
    return ToHounsfieldd()({"image": image, "pred": pred})["pred"]


def test_predictions_become_hu_on_the_exams_grid():
    hu = torch.tensor([[[[-1000.0, 0.0, 1200.0]]]])
    pred = finish(hu_to_network(hu))
    assert isinstance(pred, MetaTensor)
    torch.testing.assert_close(pred.as_tensor(), hu, atol=1e-3, rtol=0)
    np.testing.assert_array_equal(pred.affine.numpy(), AFFINE)


@pytest.mark.parametrize(
    ("values", "rule"), [([0.0, float("nan")], "NaN"), ([0.0, float("inf")], "infinity"), ([0.5, 0.5], "every voxel")]
)
def test_what_no_network_should_give_is_refused_with_a_remedy(values, rule):
    with refused(ValueError, "pred", rule, "check", "weights"):
        finish(torch.tensor(values).reshape(1, 1, 1, 2))
