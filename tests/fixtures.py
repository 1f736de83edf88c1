"""A tiny prepared data set, a tiny network for train.json, and ways to run it; no GPU, no tests that need one."""

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import monai
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from scripts.geometry import preset
from scripts.intensity import hu_to_mu
from scripts.io.case import Volume, write_case
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector

CONFIGS = Path(__file__).parents[1] / "bundle" / "configs"
GEOMETRY = preset("carm", (16, 16, 16), 20.0, 16)
SOURCE_SHAPE, SOURCE_SPACING_MM = (20, 20, 20), 18.0
SPLITS = {"train": ["a", "b", "c"], "val": ["d", "e"]}
TINY = {
    "geometry": json.loads(GEOMETRY.to_json()) | {"_target_": "scripts.geometry.BiplanarGeometry"},
    "stage1_def#channels": [8, 16],
    "stage1_def#plane_channels": [8, 8, 16],
    "stage1_def#condition_channels": [8, 8],
    "stage1_def#stem_stride": 1,
    "max_epochs": 3,
    "iterations_per_epoch": 2,
    "val_interval": 1,
    "val_steps": 2,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``cuda`` on machines without a CUDA GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


def prepare(folder: Path, splits: dict[str, list[str]], first_seed: int = 0, change=lambda hu: hu) -> Path:
    """A prepared data set of phantoms, their HU changed by ``change``."""
    projector = SeparableProjector(GEOMETRY)
    grid = GEOMETRY.with_volume(SOURCE_SHAPE, SOURCE_SPACING_MM)
    for seed, name in enumerate(sum(splits.values(), []), first_seed):
        hu = change(torso(seed, GEOMETRY.volume_shape, GEOMETRY.volume_spacing_mm).hu)
        source = change(torso(seed, SOURCE_SHAPE, SOURCE_SPACING_MM).hu)
        image = projector(hu_to_mu(hu[None, None]))[0].numpy()
        volumes = [Volume(v.numpy().astype(np.int16), g.volume_affine()) for v, g in ((hu, GEOMETRY), (source, grid))]
        write_case(folder / "cases" / name, GEOMETRY, image, *volumes, labels=None, record={})
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture(scope="session")
def prepared():
    """Writes a prepared data set of phantoms: folder, splits, first seed, and what to do to their HU."""
    return prepare


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory) -> Path:
    """A prepared data set: three phantoms to train on, two to validate with."""
    return prepare(tmp_path_factory.mktemp("prepared"), SPLITS)


@pytest.fixture(scope="session")
def overlay(tmp_path_factory):
    """Writes configuration values to a file of the kind that ``--config_file`` takes."""
    folder = tmp_path_factory.mktemp("overlays")

    def write(values: dict) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.json"
        path.write_text(json.dumps(values))
        return path

    return write


@pytest.fixture(scope="session")
def tiny(overlay) -> Path:
    """The overlay that makes train.json small enough to run in a second."""
    return overlay(TINY)


@pytest.fixture
def workflow(dataset_dir, tiny, tmp_path, monkeypatch):
    """Builds train.json's workflow in this process, small and with the given overrides."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def build(*overlays: Path, **overrides) -> ConfigWorkflow:
        files = [str(CONFIGS / "train.json"), str(tiny), *map(str, overlays)]
        overrides = {"dataset_dir": str(dataset_dir), "output_dir": str(tmp_path / "out")} | overrides
        made = ConfigWorkflow(files, workflow_type="train", logging_file=False, **overrides)
        made.initialize()
        monai.utils.set_determinism(0)  # as the run does, of which many tests take only parts
        return made

    yield build
    monai.utils.set_determinism(None)
    torch.backends.cudnn.deterministic = False


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory):
    """Puts an empty MLflow database into a folder, and gives its URI; making a new one takes seconds."""
    mlflow = pytest.importorskip("mlflow")  # a machine that only computes has none
    template = tmp_path_factory.mktemp("mlflow") / "mlruns.db"
    mlflow.MlflowClient(f"sqlite:///{template}").search_experiments()

    def place(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{shutil.copy(template, folder / 'mlruns.db')}"

    return place


@dataclass
class Run:
    """A process: kill it, or wait for its exit code; its output is in ``log``."""

    pid: int
    log: Path
    zygote: subprocess.Popen

    def wait(self) -> int:
        """Exit code, or minus the number of the signal that ended the process."""
        return int(self.zygote.stdout.readline())

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended yet."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def output(self) -> str:
        """All that the process has printed."""
        return self.log.read_text()


@pytest.fixture(scope="session")
def zygote():
    """The process whose forks run the tests' programs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "BUNDLE_TRACEBACK": "", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def python(zygote, tmp_path_factory):
    """Starts ``python -c code`` in a folder; torch and MONAI are imported already, nothing of the bundle is."""
    logs = tmp_path_factory.mktemp("logs")

    def launch(code: str, cwd: Path) -> Run:
        log = logs / f"{len(list(logs.iterdir()))}.log"
        log.touch()
        print(json.dumps({"code": code, "cwd": str(cwd), "log": str(log)}), file=zygote.stdin, flush=True)
        return Run(int(zygote.stdout.readline()), log, zygote)

    return launch


@pytest.fixture(scope="session")
def monai_bundle(python):
    """Starts ``python -m monai.bundle`` with a command, options and, before all else, the code ``prelude``."""

    def launch(command: str, cwd: Path, prelude: str = "", **options) -> Run:
        arguments = [command, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
        main = f"import runpy, sys\nsys.argv = ['monai.bundle', *{arguments!r}]\n"
        return python(f"{prelude}\n{main}runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)", cwd)

    return launch


@pytest.fixture(scope="session")
def start(monai_bundle, dataset_dir, tiny):
    """Starts ``python -m monai.bundle run`` on train.json, tiny; values override the configuration."""

    def launch(*overlays: Path, prelude: str = "", **overrides) -> Run:
        files = [str(CONFIGS / "train.json"), str(tiny), *map(str, overlays)]
        options = {"config_file": files, "dataset_dir": dataset_dir} | overrides
        return monai_bundle("run", Path.cwd(), prelude, **options)

    return launch


@pytest.fixture(autouse=True)
def logged(caplog):
    """Messages of level INFO reach ``caplog``."""
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, driven by Selenium."""
    driver = importlib.import_module("tests.report.browsing").started()
    yield driver
    driver.quit()
