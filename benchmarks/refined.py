"""Cost of drawing the fine grids: parameters, multiply-adds, seconds and memory, and the paper's network beside them.

    PYTHONPATH=bundle python benchmarks/refined.py

On Linux. Each grid has its own process. The first memory figure is the growth of the process while the networks and
their projectors' tables are built; the second one is the further growth at most while a volume is drawn from random
radiographs. All weights are random or zero, which costs the same as trained ones. The coarse stage takes three steps.
Multiply-adds count convolutions and matrix products, including those of the projectors.
"""

from __future__ import annotations

import argparse
import os
import time
from multiprocessing import get_context
from pathlib import Path

import torch
from network import SIZES, build
from network import measure as count
from torch.utils.flop_counter import FlopCounterMode
from upsampler import memory_bytes

from scripts.diffusion.samplers import DPMSolverPP2M
from scripts.inference.reconstruct import SuperResolvingInferer

GRIDS = {128: ["train.json", "methods/refined.json"]}
GRIDS[256] = [*GRIDS[128], "methods/refined_256.json"]


def measure(grid: int, tile: int, threads: int) -> dict[str, str]:
    """Return the table's column for one grid."""
    torch.set_num_threads(threads)
    empty = memory_bytes("VmRSS")
    network = build(GRIDS[grid]).eval()
    schedule = next(module.alphas_cumprod for module in network.modules() if hasattr(module, "alphas_cumprod"))
    inferer = SuperResolvingInferer(
        sampler=DPMSolverPP2M(), alphas_cumprod=schedule.cpu(), steps=3, power=3.0, tile=tile
    )
    image = torch.rand(1, *network.image_shape)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    built, start = memory_bytes("VmRSS"), time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        inferer(image, network)
    seconds, peak = time.perf_counter() - start, memory_bytes("VmHWM")
    return {
        "parameters": f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M",
        "multiply-adds per volume": f"{counter.get_total_flops() / 2e9:.0f} G",
        "seconds per volume": f"{seconds:.1f}",
        "memory of networks and tables": f"{(built - empty) / 2**30:.2f} GiB",
        "further memory per volume": f"{(peak - built) / 2**30:.2f} GiB",
    }


def main() -> None:
    """Print the machine's state and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, nargs="+", choices=GRIDS, default=list(GRIDS), help="voxels per side")
    parser.add_argument("--tile", type=int, default=64, help="voxels of the coarser grid along each tile's sides")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"torch {torch.__version__}, {arguments.threads} CPU threads of {os.cpu_count()} cores, load {load}\n")
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        columns = [pool.apply(measure, (grid, arguments.tile, arguments.threads)) for grid in arguments.grids]
    print(f"| | {' | '.join(f'{grid}³' for grid in arguments.grids)} |")
    print(f"|---|{'---:|' * len(columns)}")
    for row in columns[0]:
        print(f"| {row} | {' | '.join(column[row] for column in columns)} |")
    per_step = count(SIZES["paper"])["multiply-adds of denoise(), per step"]
    print(f"\nThe paper's network at 128³: {per_step} multiply-adds per step.")


if __name__ == "__main__":
    main()
