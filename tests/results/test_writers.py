"""The DICOM files of a result state what decided their voxels, and what their uncertainty is."""

import numpy as np
import pytest
from pydicom import dcmread
from tests.dicom.test_write_ct import complaints
from tests.results.test_save import MADE, PROJECTOR, body, exam, samples

from scripts.results.record import DECISIVE
from scripts.results.save import SaveReconstructions
from scripts.results.writers import WriteDicom

HOW = {
    "weights_sha256": "a" * 64,
    "sampler": "DPMSolverPP2M()",
    "steps": 3,
    "power": 0.03,
    "seed": 11,
    "only_view": "frontal",
    "samples": 2,
    "grid_factor": 4,
    "refining_sha256": "b" * 64,
    "passes": 6,
    "consistency": 0.02,
    "consistency_steps": 30,
}
"""Everything that decides the voxels of a result."""


class Predicted:
    """A predicted error of 30 HU in every voxel."""

    def __call__(self, image, hu, level=None):
        return np.full(hu.shape, 30.0, np.float32), None

    def require_level(self, level):
        """Accept any level."""


def written(folder, how=HOW, volumes=2, **saver):
    """The first slices of the CT and of the uncertainty of a result, by their folders' names."""
    save = SaveReconstructions(folder, PROJECTOR, MADE | how, [WriteDicom()], **saver)
    made = save.save(exam(body()), samples(*(body() + 10 * k for k in range(volumes))), 1.0)
    return {path.name: dcmread(path / "0001.dcm") for path in (made / "dicom").iterdir()}


@pytest.mark.parametrize("name", ["seed", *DECISIVE[1:]])
def test_whatever_decides_the_voxels_is_stated_unless_it_does_not_apply(tmp_path, name):
    phrase = f" {name} {HOW[name]}"
    assert phrase in written(tmp_path / "known")["ct"].DerivationDescription
    assert f" {name} " not in written(tmp_path / "none", HOW | {name: None})["ct"].DerivationDescription


def test_of_samples_the_uncertainty_is_their_standard_deviation_and_otherwise_it_is_predicted(tmp_path):
    sampled, widened, predicted = (
        written(tmp_path / "sampled", volumes=3),
        written(tmp_path / "widened", volumes=3, std_temperature=2.5),
        written(tmp_path / "predicted", volumes=1, error=Predicted()),
    )
    for found, words in (
        (sampled, "Not a CT: standard deviation of 3 samples, in HU, of a synthetic CT"),
        (widened, "Not a CT: standard deviation of 3 samples, times 2.5, in HU, of a synthetic CT"),
        (predicted, "Not a CT: predicted standard deviation of the error, in HU, of a synthetic CT"),
    ):
        for text in (found["std"].ImageComments, found["std"].DerivationDescription):
            assert words in text


def test_the_validator_has_nothing_to_say_about_the_longest_description(tmp_path):
    written(tmp_path, error=Predicted())
    for name in ("ct", "std"):
        path = tmp_path / "patient_one" / "dicom" / name / "0001.dcm"
        assert dcmread(path).DerivationDescription.endswith("consistency_steps 30"), "nothing is cut off"
        assert complaints("dciodvfy", path) == []
