"""Utilisation of a GPU by the projector and the denoiser, time per volume, speed of training, and memory.

    PYTHONPATH=bundle python benchmarks/gpu.py

- Projector: the bytes per second that it must move at least (the volume once per view, the images once), and their
  share of a copy's within the device's memory.
- Denoiser: floating-point operations per second, and their share of those of a large product of matrices in the same
  precision, bfloat16 on a GPU and float32 elsewhere.
- Seconds per volume: the configuration's sampler with a single exam.
- Training: items per second of whole iterations, see `training.py`.
- Memory: the largest that tensors had during all of this; only on a GPU.

Times are medians, including the device's queue.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode
from training import CONFIGS, Variant, draw_views

from scripts.inference.precision import mixed_precision

FINE = {"geometry#volume_shape": [128] * 3, "geometry#volume_spacing_mm": 2.5, "geometry#detector_pixels": 256}
SIZES: dict[str, tuple[list[str], Mapping[str, Any]]] = {
    "64³": (["train.json"], {}),
    "128³": (["train.json"], FINE),
    "paper": (["train.json", "methods/paper.json"], {}),
}
"""Configuration files and values that replace theirs. The paper's network has 128³ voxels."""
COLUMNS = (
    "size",
    "projector, GB/s",
    "of a copy's",
    "denoiser, TFLOP/s",
    "of a product's",
    "s per volume",
    "training, items/s",
    "memory, GiB",
)


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


def copied_per_second(device: torch.device, repetitions: int, size: int) -> float:
    """Return the bytes read and written per second by a copy of ``size`` bytes."""
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, repetitions)


def multiplied_per_second(device: torch.device, repetitions: int, side: int, amp: bool) -> float:
    """Return the floating-point operations per second of a product of two square matrices."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if amp else torch.float32)
    return 2 * side**3 / seconds(lambda: a @ a, device, repetitions)


class Bench:
    """Measurements of one configuration on one device, in bfloat16 if ``amp``."""

    def __init__(self, files: Sequence[str], values: Mapping[str, Any], device: torch.device, amp: bool) -> None:
        self.device, self.amp = device, amp
        self.config = ConfigParser()
        self.config.read_config([str(CONFIGS / file) for file in files])
        for name, value in {**values, "device": device, "amp": amp}.items():
            self.config[name] = value
        self.network = self.config.get_parsed_content("network_def").to(device).eval()

    @torch.no_grad()
    def inference(self, batch: int, repetitions: int) -> tuple[float, float, float]:
        """Return the projector's bytes and the denoiser's operations per second, and the seconds per volume."""
        network, device = self.network, self.device
        projector = self.config.get_parsed_content("train#projector").to(device)
        inferer = self.config.get_parsed_content("network_inferer")
        inferer.callback = None
        image = torch.rand(batch, *network.image_shape, device=device)
        x = torch.rand(batch, *network.volume_shape, device=device)
        t = torch.full((batch,), 500, device=device)
        with mixed_precision(device, self.amp):
            condition = network.condition(image)
        estimate = network.first_estimate(condition)

        def denoise() -> torch.Tensor:
            with mixed_precision(device, self.amp):
                return network.predict_x0(x, t, condition, estimate)

        with FlopCounterMode(display=False) as counter:
            denoise()
        moved = 4 * (2 * x.numel() + image.numel())
        return (
            moved / seconds(lambda: projector(x), device, repetitions),
            counter.get_total_flops() / seconds(denoise, device, repetitions),
            seconds(lambda: inferer(image[:1], network), device, repetitions),
        )

    def training(self, batch: int, repetitions: int) -> float:
        """Return the items per second of whole training iterations."""
        variant, views = Variant(self.config, self.network, {}, self.amp), draw_views(self.config, self.device)
        time_each = seconds(
            lambda: variant.iterate(views, range(batch), lambda _, work: work()), self.device, repetitions
        )
        return batch / time_each


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch_size", type=int, default=8, help="volumes in projector and denoiser")
    parser.add_argument("--training_batch", type=int, default=2, help="items per training iteration")
    parser.add_argument("--copied_mib", type=int, default=256, help="size of the copy")
    parser.add_argument("--side", type=int, default=8192, help="rows and columns of the product's matrices")
    parser.add_argument("--repetitions", type=int, default=10)
    given = parser.parse_args(arguments)
    device, repetitions = torch.device(given.device), given.repetitions
    is_gpu = device.type == "cuda"
    copied = copied_per_second(device, repetitions, given.copied_mib * 2**20)
    multiplied = multiplied_per_second(device, repetitions, given.side, is_gpu)
    name = torch.cuda.get_device_name(device) if is_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"torch {torch.__version__}, {name}, copies {copied / 1e9:.1f} GB/s, products {multiplied / 1e12:.3f} TFLOP/s, "
        f"batch {given.batch_size}, {given.training_batch} in training\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}")
    for size in given.sizes:
        if is_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        bench = Bench(*SIZES[size], device, is_gpu)
        projected, denoised, volume = bench.inference(given.batch_size, repetitions)
        items = bench.training(given.training_batch, repetitions)
        memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f}" if is_gpu else "not measured"
        print(
            f"| {size} | {projected / 1e9:.2f} | {projected / copied:.1%} | {denoised / 1e12:.4f} | "
            f"{denoised / multiplied:.1%} | {volume:.3f} | {items:.2f} | {memory} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
