"""Peak memory and time of the upsampler on the CPU, on the whole volume and in tiles.

    PYTHONPATH=bundle python benchmarks/upsampler.py

Linux only. Every run has its own process. Its memory is the growth of the process beyond torch, the network and the
input, and includes the result. The last column is the largest difference from the whole volume's result of the same
precision, in network units; the network's last layer is random, since zeros would hide the tiles.
"""

from __future__ import annotations

import argparse
import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scripts.inference.tiles import in_tiles
from scripts.networks.upsampler import Upsampler


def subject(side: int) -> tuple[Upsampler, Tensor]:
    """Return the default network with a random last layer, and a random volume in the network's range."""
    torch.manual_seed(0)
    network = Upsampler().eval()
    nn.init.normal_(network.head.weight, std=0.1)
    return network, torch.rand(1, 1, side, side, side) * 2 - 1


def memory_bytes(line: str) -> int:
    """Return this process's memory: ``VmRSS``, the present one, or ``VmHWM``, the peak since a reset."""
    status = dict(text.split(":", 1) for text in Path("/proc/self/status").read_text().splitlines())
    return int(status[line].split()[0]) * 1024


@torch.no_grad()
def measure(side: int, tile: int | None, precision: str, threads: int) -> tuple[float, int, np.ndarray]:
    """Measure seconds and bytes, and return them with the result; ``tile`` None processes the volume at once."""
    torch.set_num_threads(threads)
    network, volume = subject(side)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        network(volume[..., :8, :8, :8])  # warm-up
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before, start = memory_bytes("VmRSS"), time.perf_counter()
        result = network(volume) if tile is None else in_tiles(network, volume, tile, network.halo, factor=2)
        seconds, size = time.perf_counter() - start, memory_bytes("VmHWM") - before
    return seconds, size, result.numpy()  # a tensor's shared memory would vanish with this process


def main() -> None:
    """Print the machine's state and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, nargs="+", default=[64, 128], help="input voxels along each axis")
    parser.add_argument("--tiles", type=int, nargs="+", default=[32, 64], help="input voxels along each tile's sides")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"torch {torch.__version__}, {arguments.threads} CPU threads of {os.cpu_count()} cores, load {load}\n")
    print("| volume | precision | tile | time, s | memory, MiB | largest difference to the whole |")
    print("|---|---|---|---:|---:|---:|")
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for side in arguments.shapes:
            for precision in ("float32", "bfloat16"):
                whole = None
                for tile in (None, *(t for t in arguments.tiles if t < side)):
                    seconds, size, result = pool.apply(measure, (side, tile, precision, arguments.threads))
                    whole = result if whole is None else whole
                    row = (f"{side}³ → {2 * side}³", precision, f"{tile}³" if tile else "whole")
                    difference = f"{float(np.abs(result - whole).max()):.1e}" if tile else ""
                    print(f"| {' | '.join(row)} | {seconds:.1f} | {size / 2**20:.0f} | {difference} |", flush=True)


if __name__ == "__main__":
    main()
