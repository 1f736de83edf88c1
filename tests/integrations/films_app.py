"""The page of ``integrations/app`` on a small network: its modules, a desk, and films to drop."""

import importlib
import json
import sys
import time

import pytest
import torch
from monai.bundle import ConfigParser
from tests.fixtures import TINY
from tests.integrations.samples import BUNDLE, DEMO

from scripts.cases.export_radiographs import export_case
from scripts.dicom.write_radiograph import FORMS

APP = BUNDLE / "integrations" / "app"
CONFIG = BUNDLE / "configs" / "inference.json"
MODULES = ("answers", "workflow", "desk", "server")
SMALL = {name: value for name, value in TINY.items() if name.startswith(("geometry", "stage1_def"))}
SMALL |= {"film_check": "", "intervals": "", "reference": "", "report": "light", "device": "$torch.device('cpu')"}


@pytest.fixture(scope="module")
def config_files(tmp_path_factory):
    """inference.json with a small network that nobody has trained."""
    folder = tmp_path_factory.mktemp("small")
    overlay = folder / "small.json"
    overlay.write_text(json.dumps(SMALL | {"weights": str(folder / "small.pt")}))
    parser = ConfigParser()
    parser.read_config([str(CONFIG), str(overlay)])
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    for parameter in network.parameters():  # the last layer's are zero
        torch.nn.init.normal_(parameter, std=0.05)
    torch.save(network.state_dict(), folder / "small.pt")
    return [str(CONFIG), str(overlay)]


@pytest.fixture(scope="module")
def app():
    """The app's modules by name; they are gone again after the tests."""
    pytest.importorskip("flask", reason="flask is not installed; see integrations/app/requirements.txt")
    sys.path.insert(0, str(APP))
    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(str(APP))
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def workflow(app, config_files):
    return app["workflow"].Workflow(config_files)


@pytest.fixture
def desk(app, workflow):
    desk = app["desk"].Desk(workflow)
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """The demo case as two DX files."""
    folder = tmp_path_factory.mktemp("upload") / "films"
    export_case(DEMO, folder, FORMS["processing"])
    return [folder / "frontal.dcm", folder / "lateral.dcm"]


def until(condition, seconds=60):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def finished(desk):
    """What the page shows once nothing runs."""
    until(lambda: not desk.stage.running)
    return desk.stage
