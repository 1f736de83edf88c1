"""Every workflow of the bundle runs on generated data: a file for ``ci/unit_tests`` of MONAI's model zoo.

It runs in the zoo's root, in this project's, or under pytest.
"""

import json
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import monai
import torch
from monai.bundle import ConfigWorkflow

ROOT = next(
    p.resolve() for p in (Path("models/biplanar_xray_to_ct"), Path(__file__).parents[2] / "bundle") if p.is_dir()
)
PREPARE = {
    "count": 2,
    "val": 1,
    "test": 0,
    "volume_shape": [16, 16, 16],
    "volume_spacing_mm": 20.0,
    "source_spacing_mm": 20.0,
    "detector_pixels": 16,
}
FIELD_OF_VIEW_MM = (480.0, 320.0, 200.0)
"""Of the phantoms, shorter than they are: looking for the outline of a whole one takes seconds."""
NETWORK = {
    "stage1_def#channels": [8, 16],
    "stage1_def#plane_channels": [8, 8, 16],
    "stage1_def#condition_channels": [8, 8],
    "stage1_def#stem_stride": 1,
}
TRAIN = {"max_epochs": 1, "iterations_per_epoch": 2, "val_interval": 1, "amp": False}
FINETUNE = {"frozen": "conditioner"}
INFERENCE = {"reference": None, "steps": 1, "outputs": "nifti"}


class TestBiplanarXrayToCt(unittest.TestCase):
    """Preparation, training, finetuning, evaluation and inference, tiny."""

    @classmethod
    def setUpClass(cls):
        if str(ROOT) not in sys.path:
            sys.path.insert(0, str(ROOT))
        cls.hook = sys.excepthook
        cls.folder = Path(tempfile.mkdtemp())
        cls.data = cls.folder / "data"
        with mock.patch("scripts.cases.phantoms.PHANTOM_SIZE_MM", FIELD_OF_VIEW_MM):
            cls.run_workflow(["prepare.json", "data/phantom.json"], None, output_dir=str(cls.data), **PREPARE)
        geometry = json.loads(next(cls.data.glob("cases/*/geometry.json")).read_text())
        cls.sizes = NETWORK | {"geometry": geometry | {"_target_": "scripts.geometry.BiplanarGeometry"}}
        cls.weights = cls.folder / "model.pt"
        network = cls.workflow(["inference.json"], "inference", **cls.sizes).network_def
        for parameter in network.parameters():  # a network as it is made gives a constant, which is refused
            torch.nn.init.normal_(parameter, std=0.05)
        torch.save(network.state_dict(), cls.weights)

    @classmethod
    def tearDownClass(cls):
        sys.excepthook = cls.hook
        monai.utils.set_determinism(None)
        shutil.rmtree(cls.folder)

    @classmethod
    def workflow(cls, configs, kind, **override):
        """An initialised workflow of some configs."""
        made = ConfigWorkflow(
            [str(ROOT / "configs" / name) for name in configs],
            meta_file=str(ROOT / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
            **override,
        )
        made.initialize()
        return made

    @classmethod
    def run_workflow(cls, configs, kind, **override):
        """Check the properties of a workflow that is of a ``kind``, and run it."""
        made = cls.workflow(configs, kind, **override)
        missing = made.check_properties() if kind else []
        if missing:
            raise ValueError(f"check properties for workflow failed: {missing}")
        made.run()
        made.finalize()

    def test_train(self):
        override = TRAIN | {"dataset_dir": str(self.data), "output_dir": str(self.folder / "train")}
        self.run_workflow(["train.json"], "train", **override, **self.sizes)
        self.assertTrue((self.folder / "train" / "model.pt").is_file())

    def test_finetune(self):
        override = TRAIN | FINETUNE | {"dataset_dir": str(self.data), "output_dir": str(self.folder / "finetune")}
        override["initial_weights"] = str(self.weights)
        self.run_workflow(["train.json", "finetune.json"], "train", **override, **self.sizes)
        self.assertTrue((self.folder / "finetune" / "model.pt").is_file())

    def test_evaluate(self):
        override = INFERENCE | {"dataset_dir": str(self.data), "split": "val", "weights": str(self.weights)}
        override["output_dir"] = str(self.folder / "evaluate")
        self.run_workflow(["inference.json", "evaluate.json"], "inference", **override, **self.sizes)
        self.assertTrue(list((self.folder / "evaluate").iterdir()))

    def test_inference(self):
        (case,) = list((self.data / "cases").iterdir())[:1]
        exam = self.folder / "exam"
        exam.mkdir()
        for name in ("frontal.nii.gz", "lateral.nii.gz", "geometry.json"):
            shutil.copy(case / name, exam)
        override = INFERENCE | {"input": str(exam), "weights": str(self.weights)}
        override["output_dir"] = str(self.folder / "inference")
        self.run_workflow(["inference.json"], "inference", **override, **self.sizes)
        self.assertTrue((self.folder / "inference" / "exam" / "ct.nii.gz").is_file())


if __name__ == "__main__":
    unittest.main()
