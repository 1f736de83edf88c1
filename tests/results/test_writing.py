"""Results are written in other processes; one that fails or dies costs only the result it was writing."""

import os
import time

import pytest
from tests.refusal import refused
from tests.results import jobs

from scripts.results.writing import Writing


def test_without_workers_a_job_is_done_at_once_and_raises_its_error(tmp_path):
    with Writing(0) as writing:
        writing.submit(tmp_path / "a", jobs.write)
        assert (tmp_path / "a" / "process").read_text() == str(os.getpid())
        with refused(ValueError, "b: refused"):
            writing.submit(tmp_path / "b", jobs.refuse)
        writing.wait(tmp_path / "a")


def test_a_failed_job_a_dead_process_and_ctrl_c_cost_no_other_job(tmp_path):
    does = {"a": jobs.write, "b": jobs.refuse, "c": jobs.die, "d": jobs.write_interrupted, "e": jobs.write}
    with Writing(1) as writing:
        for name, job in does.items():
            writing.submit(tmp_path / name, job)
        writing.wait(tmp_path / "a")
        with refused(ValueError, "b: refused"):
            writing.wait(tmp_path / "b")
        with refused(RuntimeError, "c: the process", "has died", "--workers"):
            writing.wait(tmp_path / "c")
        for name in "de":
            writing.wait(tmp_path / name)
    processes = {name: (tmp_path / name / "process").read_text() for name in "ade"}
    assert processes["d"] == processes["e"] not in (processes["a"], str(os.getpid()))


@pytest.mark.slow
def test_the_processes_end_with_the_one_that_was_killed(python, tmp_path):
    code = """
import pathlib, sys
sys.path[:0] = [{root!r}, {bundle!r}]
from scripts.results.writing import Writing
from tests.results import jobs
writing = Writing(1)
writing.submit(pathlib.Path("a"), jobs.hang)
writing.wait(pathlib.Path("a"))
"""
    root = jobs.__file__.rsplit("/tests/", 1)[0]
    run, seen = python(code.format(root=root, bundle=f"{root}/bundle"), tmp_path), tmp_path / "a" / "process"
    until(lambda: seen.exists() and seen.read_text(), run)
    os.kill(run.pid, 9)
    worker = int(seen.read_text())
    until(lambda: not is_running(worker), run)


def until(is_true, run):
    end = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < end, run.output
        time.sleep(0.1)


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [-1, "two"])
def test_the_number_of_processes_is_checked(workers):
    with refused(ValueError, "--workers", str(workers)):
        Writing(workers)
