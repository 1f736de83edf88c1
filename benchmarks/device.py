"""Utilisation of a GPU by the projector and the denoiser, and time per volume.

    PYTHONPATH=bundle python benchmarks/device.py --peak_tflops 989

The projector is compared with the memory bandwidth: the bytes per second that it must move at least (the volume once
per view, the images once), and those of a copy within the device's memory. The denoiser is compared with the peak in
bfloat16, by default that of an H100's data sheet, by counting its multiply-adds per second. Times are medians,
including the device's queue.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from scripts.inference.precision import mixed_precision

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"
SIZES = {"64³": ["train.json"], "paper": ["train.json", "methods/paper.json"]}
COPIED_BYTES = 2**28


def seconds(work: Callable[[], object], device: torch.device, repetitions: int) -> float:
    """Return the median time of a call, after a warm-up call."""
    times = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def copied_per_second(device: torch.device, repetitions: int) -> float:
    """Return the bytes read and written per second by a copy."""
    source = torch.zeros(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / seconds(lambda: target.copy_(source), device, repetitions)


@torch.no_grad()
def measure(files: list[str], device: torch.device, amp: bool, batch: int, repetitions: int) -> dict[str, float]:
    """Measure bytes per second, multiply-adds per second and seconds per volume of one configuration."""
    config = ConfigParser()
    config.read_config([str(CONFIGS / file) for file in files])
    config["device"], config["amp"] = device, amp
    network = config.get_parsed_content("network_def").to(device).eval()
    projector = config.get_parsed_content("train#projector").to(device)
    inferer = config.get_parsed_content("inferer")
    inferer.callback = None
    image = torch.rand(batch, *network.image_shape, device=device)
    x = torch.rand(batch, *network.volume_shape, device=device)
    t = torch.full((batch,), 500, device=device)

    def denoise() -> torch.Tensor:
        with mixed_precision(device, amp):
            return network.denoise(x, t, condition)

    with mixed_precision(device, amp):
        condition = network.condition(image)
    with FlopCounterMode(display=False) as counter:
        denoise()
    moved = 4 * (2 * x.numel() + image.numel())
    return {
        "projected": moved / seconds(lambda: projector(x), device, repetitions),
        "multiplied": counter.get_total_flops() / seconds(denoise, device, repetitions),
        "volume": seconds(lambda: inferer(image[:1], network), device, repetitions),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch_size", type=int, default=8, help="volumes in projector and denoiser")
    parser.add_argument("--peak_tflops", type=float, default=989.0, help="of dense products in bfloat16")
    parser.add_argument("--repetitions", type=int, default=10)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    copied = copied_per_second(device, arguments.repetitions)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, copies {copied / 1e9:.0f} GB/s, batch {arguments.batch_size}\n")
    print("| size | projector, GB/s | of a copy's | denoiser, TFLOP/s | of the peak | seconds per volume |")
    print("|---|---:|---:|---:|---:|---:|")
    for size in arguments.sizes:
        amp = device.type == "cuda"
        found = measure(SIZES[size], device, amp, arguments.batch_size, arguments.repetitions)
        projected, tflops = found["projected"], found["multiplied"] / 1e12
        print(
            f"| {size} | {projected / 1e9:.1f} | {projected / copied:.1%} | {tflops:.3f} | "
            f"{tflops / arguments.peak_tflops:.1%} | {found['volume']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
