"""Time and memory of the account of a long batch: does an exam late in the batch cost what an early one does?

    PYTHONPATH=bundle python benchmarks/batch.py --counts 300 3000

The network and the radiographs are as small as they get, so that the rest shows: names, digests, folders, records,
`summary.csv` and `index.html`. One line per batch: milliseconds of CPU per exam (other work on the machine hardly
changes them) over its first and last hundred exams, those of the whole batch with the final index, and the growth of
the process's memory after the first hundred.
"""

from __future__ import annotations

import argparse
import logging
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator

from scripts.exam.exam import Exam, to_meta
from scripts.geometry import VIEWS, preset
from scripts.io.digest import sha256
from scripts.physics.separable import SeparableProjector
from scripts.report.index import write_index
from scripts.results.batch import ReconstructAll
from scripts.results.hounsfield import ToHounsfieldd
from scripts.results.save import SaveReconstructions
from scripts.results.writers import WriteNifti

GEOMETRY = preset("carm", (8, 8, 8), 40.0, 12)
AVERAGED = 100
"""Exams at either end."""


class Exams(Sequence):
    """Exams that differ only in their names; notes the CPU time at which each was read."""

    def __init__(self, names: Sequence[str], film: Path) -> None:
        self.names, self.film, self.times = names, film, []
        self.memory = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, MetaTensor]:
        self.times.append(time.process_time())
        if index == AVERAGED:
            self.memory = peak_bytes()
        exam = Exam(self.names[index], VIEWS, GEOMETRY.volume_affine(), {str(self.film): sha256(self.film)})
        return {"image": MetaTensor(torch.ones(2, 12, 12), meta=to_meta(exam))}

    def __iter__(self) -> Iterator[dict[str, MetaTensor]]:
        return map(self.__getitem__, range(len(self)))


def peak_bytes() -> int:
    """Return the largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def water(image: torch.Tensor, network: object, *args: object, **kwargs: object) -> torch.Tensor:
    """Return a volume of water."""
    return torch.linspace(-0.01, 0.01, 512).reshape(1, 1, 8, 8, 8)


def reconstruct(count: int, folder: Path) -> Exams:
    """Reconstruct so many exams into a folder."""
    film = folder / "film"
    film.touch()
    exams = Exams([f"exam_{number:06d}" for number in range(count)], film)
    saver = SaveReconstructions(folder / "out", SeparableProjector(GEOMETRY), {}, [WriteNifti()])
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), exams, torch.nn.Identity(), inferer=water, postprocessing=ToHounsfieldd(),
        val_handlers=[saver],
    )  # fmt: skip
    ReconstructAll(evaluator, exams, exams.names, saver, write_index=write_index)()
    exams.times.append(time.process_time())
    return exams


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[300, 3000], help="exams per batch, 300 at least")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    print("| exams | first 100, ms | last 100, ms | all, ms | memory, MiB more |\n|---:|---:|---:|---:|---:|")
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as folder:
            exams = reconstruct(count, Path(folder))
        times = exams.times
        first, last = times[AVERAGED] - times[0], times[-2] - times[-2 - AVERAGED]
        ms = [1000 * seconds / exams_ for seconds, exams_ in ((first, AVERAGED), (last, AVERAGED))]
        whole, grown = 1000 * (times[-1] - times[0]) / count, (peak_bytes() - exams.memory) / 2**20
        print(f"| {count} | {ms[0]:.1f} | {ms[1]:.1f} | {whole:.1f} | {grown:.1f} |", flush=True)


if __name__ == "__main__":
    main()
