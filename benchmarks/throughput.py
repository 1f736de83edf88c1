"""Exams per minute of `inference.json` with all writers, one by one and with writing beside the network.

    OMP_NUM_THREADS=1 PYTHONPATH=bundle python benchmarks/throughput.py --workers 0 1 2 --exams 12

Every variant reconstructs the same exams, copies of `docs/demo`, and starts its writing processes anew; the variants
run in turn within every repetition, so that other load on the machine affects all of them alike. Medians are reported:
wall time, and CPU time of the process with the network and of its writing processes. The last column is the wall time
that free cores would allow at best: the CPU time of the busier side. It holds for one thread (`OMP_NUM_THREADS=1`) and
one core per process.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from monai.bundle import ConfigParser

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"


class Spent(NamedTuple):
    """Seconds per exam: wall time, CPU time of this process, and of the writing processes."""

    wall: float
    network: float
    writing: float


def children() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reconstruct(exams: Path, count: int, folder: Path, **options: object) -> Spent:
    """Reconstruct the exams into a new folder."""
    config = ConfigParser()
    config.read_config([str(BUNDLE / "configs" / "inference.json")])
    for name, value in {"input": str(exams), "output_dir": str(folder), **options}.items():
        config[name] = value
    run = config.get_parsed_content("reconstruction")
    before = time.perf_counter(), time.process_time(), children()
    run()
    after = time.perf_counter(), time.process_time(), children()
    shutil.rmtree(folder)
    return Spent(*((end - start) / count for start, end in zip(before, after, strict=True)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--exams", type=int, default=12, help="exams per variant")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--outputs", default="nifti,dicom,report,figure")
    parser.add_argument("--grid_factor", type=int, default=2, help="of inference.json")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    spent: dict[int, list[Spent]] = {workers: [] for workers in arguments.workers}
    with tempfile.TemporaryDirectory() as folder:
        exams = Path(folder, "exams")
        for number in range(arguments.exams):
            shutil.copytree(BUNDLE / "docs" / "demo", exams / f"{number:04}")
        options = {name: getattr(arguments, name) for name in ("batch_size", "outputs", "grid_factor")}
        for _ in range(arguments.repetitions):
            for workers, found in spent.items():
                found.append(reconstruct(exams, arguments.exams, Path(folder, "out"), workers=workers, **options))
    print(
        f"{arguments.exams} exams, batch {arguments.batch_size}, {torch.get_num_threads()} threads, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; seconds per exam\n"
    )
    print("| writing processes | wall | CPU, network's process | CPU, writing | wall at best |")
    print("|---:|---:|---:|---:|---:|")
    for workers, found in spent.items():
        wall, network, writing = (statistics.median(values) for values in zip(*found, strict=True))
        best = max(network, writing / max(workers, 1))
        print(f"| {workers} | {wall:.2f} | {network:.2f} | {writing:.2f} | {best:.2f} |", flush=True)


if __name__ == "__main__":
    main()
