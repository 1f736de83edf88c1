"""Cornerstone3D, with which OHIF displays, in Chromium: every voxel has its HU at its place, and the head is up.

``make test-viewers`` installs it from npm beside this file and runs this.
"""

import functools
import http.server
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.dicom.test_write_ct import AFFINES, LPS_TO_RAS, hounsfield, write
from tests.report.browsing import NEEDS_BROWSER

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
PAGE = """<!doctype html><link rel="icon" href="data:,"><body>
<div id="axial" style="width: 300px; height: 300px"></div>
<div id="sagittal" style="width: 300px; height: 300px"></div>
<div id="coronal" style="width: 300px; height: 300px"></div>
<script type="module" src="/viewer.js"></script>
"""
SHOW = "const done = arguments[1]; show(arguments[0]).then(() => done(''), (error) => done(error.stack));"
pytestmark = [
    pytest.mark.slow,
    NEEDS_BROWSER,
    pytest.mark.skipif(not MODULES.is_dir(), reason="Cornerstone3D is not installed; `make test-viewers` does it"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the viewer, and the address at which it is served."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    worker = MODULES / "@cornerstonejs" / "dicom-image-loader" / "dist" / "esm" / "decodeImageFrameWorker.js"
    for source in (HERE / "viewer.js", worker):
        options = ["--bundle", "--format=esm", "--log-level=error", "--loader:.wasm=file"]
        options += [f"--external:{name}" for name in ("fs", "path", "module")]
        subprocess.run(
            [MODULES / ".bin" / "esbuild", source, *options, f"--outfile={folder / source.name}"], check=True
        )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def shown(browser, site, name):
    """Shows a series with random HU; returns the HU and the affine, voxel to LPS."""
    folder, address = site
    files = write(folder / name.replace(" ", "_"), affine=AFFINES[name])
    browser.get(address)
    browser.set_script_timeout(60)
    problem = browser.execute_async_script(SHOW, [str(path.relative_to(folder)) for path in files])
    assert problem == ""
    return hounsfield(), LPS_TO_RAS @ AFFINES[name]


@pytest.mark.parametrize("name", ["uneven spacing", "oblique"])
def test_every_voxel_has_its_hounsfield_units_at_its_place(browser, site, name):
    hu, affine = shown(browser, site, name)
    index = np.argwhere(np.ones(hu.shape))
    points = index @ affine[:3, :3].T + affine[:3, 3]
    assert browser.execute_script("return hounsfield(arguments[0])", points.tolist()) == hu.ravel().tolist()


def test_the_patient_is_the_right_way_round_in_every_plane(browser, site):
    hu, affine = shown(browser, site, "RAS")
    centre = affine[:3, :3] @ (np.array(hu.shape) / 2) + affine[:3, 3]
    moves = {"left": [9, 0, 0], "back": [0, 9, 0], "head": [0, 0, 9]}

    def direction(plane, towards):
        ends = (centre, centre + moves[towards])
        at, to = (browser.execute_script("return onScreen(...arguments)", plane, end.tolist()) for end in ends)
        return np.sign(np.round(np.subtract(to, at))).tolist()

    right, down, up = [1, 0], [0, 1], [0, -1]
    assert [direction("axial", "left"), direction("axial", "back")] == [right, down]
    assert [direction("coronal", "left"), direction("coronal", "head")] == [right, up]
    assert [direction("sagittal", "back"), direction("sagittal", "head")] == [right, up]
