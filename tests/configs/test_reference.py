"""reference.json over train.json: statistics of the radiographs that training shows, without phantoms."""

import functools
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from scripts.cases.phantoms import phantom_scans
from scripts.cases.prepare import prepare
from scripts.cases.standard import Settings
from scripts.exam.familiarity import read_reference
from scripts.geometry import preset

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
FILES = [str(CONFIGS / "train.json"), str(CONFIGS / "reference.json")]
SHIPPED = CONFIGS.parent / "models" / "radiographs.json"


def configuration(*files: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(list(files))
    return parser


@pytest.fixture
def command(monai_bundle, tmp_path):
    """Runs the command from a folder of its own."""
    return functools.partial(monai_bundle, "run", tmp_path, config_file=FILES)


def test_the_command_describes_the_radiographs_of_training_without_endless_phantoms():
    train, reference = configuration(FILES[0]), configuration(*FILES)
    assert reference["geometry"] == train["geometry"]
    without = {**train["train"]["patients"], "phantoms": None, "phantom_share": 0.0}
    assert reference["train"] == {**train["train"], "patients": without}


def test_the_shipped_file_is_small_and_for_the_shipped_network():
    assert SHIPPED.stat().st_size < 300_000
    read_reference(SHIPPED, configuration(str(CONFIGS / "inference.json")).get_parsed_content("geometry"))


@pytest.mark.slow
def test_the_command_makes_a_file_from_any_working_directory(command, tmp_path):
    geometry = preset("carm", (32, 32, 32), 10.0, 48)
    prepare(phantom_scans(4, 0, 10.0, 0.0), tmp_path / "data", Settings(geometry, 10.0), val=0, test=0)
    sizes = {"volume_shape": "[32,32,32]", "volume_spacing_mm": 10.0, "detector_pixels": 48}
    options = {f"geometry#{name}": value for name, value in sizes.items()}
    done = command(dataset_dir="data", output="out/r.json", views_per_patient=12, **options)
    assert done.wait() == 0, done.output[-2000:]
    assert "reference: 4 patients in out/r.json" in done.output
    assert read_reference(tmp_path / "out" / "r.json", geometry).patients == 4


def test_without_training_cases_the_command_says_so_and_writes_nothing(command, tmp_path):
    done = command(dataset_dir="nowhere", output="r.json")
    assert done.wait() == 1
    assert "error: nowhere/splits.json: not found" in done.output and "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []
