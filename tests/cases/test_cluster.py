"""Preparation on a Dask cluster: the cases of one process, whatever happens to a worker."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.refusal import refused

from scripts.cases.cluster import dask_cluster
from scripts.cases.phantoms import PhantomScan, phantom_scans
from scripts.cases.prepare import prepare
from scripts.cases.standard import Settings
from scripts.geometry import preset
from scripts.io.case import read_case
from scripts.io.text import read_json

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(preset("carm", (16, 16, 16), 20.0, 16), 18.0)


@dataclass(frozen=True)
class DeadlyScan(PhantomScan):
    """A phantom whose first reader is killed."""

    killed: Path = Path()

    def read(self):
        if not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read()


def test_a_cluster_that_is_not_there_is_refused_with_what_to_start():
    pytest.importorskip("distributed")
    with refused(ValueError, "--scheduler", "none given", "dask scheduler"):
        dask_cluster(None)
    with refused(ValueError, "--scheduler", "mars", "dask scheduler"):
        dask_cluster("mars://nowhere")


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler, and its two worker processes."""
    pytest.importorskip("distributed")
    path = [str(ROOT / "bundle"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment, started = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}, []

    def start(program: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", "scheduler.json", *options]
        started.append(subprocess.Popen([*command, "--no-dashboard"], cwd=tmp_path, env=environment))
        return started[-1]

    start("dask_scheduler", "--host", "127.0.0.1", "--port", "0")
    workers = [start("dask_worker", "--no-nanny", "--nthreads", "1") for _ in range(2)]
    while not (file := tmp_path / "scheduler.json").exists():
        assert started[0].poll() is None
        time.sleep(0.1)
    yield read_json(file)["address"], workers
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_scans_of_a_killed_worker_are_prepared_by_another(cluster, tmp_path):
    address, workers = cluster
    first, deadly, *others = phantom_scans(5, 0, 18.0, 0.1)
    scans = [first, DeadlyScan(deadly.seed, 18.0, deadly.metal, killed=tmp_path / "killed"), *others]
    rows = prepare(scans, tmp_path / "out", SETTINGS, executor=dask_cluster(address))
    assert [row["status"] for row in rows] == ["ok"] * 5
    assert sorted(worker.poll() or 0 for worker in workers) == [-signal.SIGKILL, 0]

    prepare([deadly], tmp_path / "alone", SETTINGS)
    here, there = (read_case(tmp_path / folder / "cases" / deadly.name) for folder in ("alone", "out"))
    assert here.ct[0].equal(there.ct[0]) and here.line_integrals.equal(there.line_integrals)
