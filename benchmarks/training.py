"""Cost of a training iteration of `train.json`, part by part, by memory layout and precision.

    PYTHONPATH=bundle python benchmarks/training.py --device cuda --batch_size 32

All variants run in turn within every repetition, so that other load on the machine affects all of them alike; medians
are reported. The device is synchronised after each part, but not within a whole iteration, which may therefore take
less time than the sum of its parts. A batch made from the network's own estimates (`--rollout`) costs a further forward
pass without gradient. Views are drawn from phantoms at 4 mm in memory. bfloat16 runs on a GPU, or on request.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from scripts.data.augment import RandomDeformation, WholeBody
from scripts.data.contrast import RandomContrast
from scripts.data.datasets import RandomViews
from scripts.data.patients import Always, EndlessPhantoms, Mixture, draw_phantom

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"
LAYOUTS = {"contiguous": {}, "channels last": {4: torch.channels_last, 5: torch.channels_last_3d}}
"""Memory formats by the number of a weight's dimensions."""
PARTS = ("draw", "project", "forward", "backward", "optimizer")
PATIENTS = 4
SPACING_MM = 4.0


class Timer:
    """Timer of named pieces of work, including the device's queue."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Run the work and record its duration."""
        self._wait()
        start = time.perf_counter()
        result = work()
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def median(self, name: str) -> float:
        """Return the median of all calls with that name."""
        return statistics.median(self.seconds[name])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def draw_views(config: ConfigParser, device: torch.device) -> RandomViews:
    """Return random views of a few phantoms, drawn as in training."""
    phantoms = EndlessPhantoms(SPACING_MM)
    drawn = (torch.from_numpy(draw_phantom(phantoms.scan(number))) for number in range(PATIENTS))
    sources = [Always(WholeBody.of(hu, SPACING_MM, device)) for hu in drawn]
    patients = Mixture(sources, torch.ones(PATIENTS))
    return RandomViews(patients, config.get_parsed_content("geometry"), RandomDeformation(), RandomContrast(), 1)


def arrange(network: nn.Module, formats: dict[int, torch.memory_format]) -> nn.Module:
    """Return the network with its weights in these formats."""
    for weight in network.parameters():
        weight.data = weight.data.contiguous(memory_format=formats.get(weight.ndim, torch.contiguous_format))
    return network


class Variant:
    """A network of one memory layout, trained in one precision."""

    def __init__(
        self, config: ConfigParser, network: nn.Module, formats: dict[int, torch.memory_format], amp: bool
    ) -> None:
        self.network = arrange(copy.deepcopy(network), formats).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True)
        self.prepare, self.loss = map(config.get_parsed_content, ("train#prepare_batch", "loss"))
        self.inferer = copy.copy(config.get_parsed_content("training_inferer"))
        self.inferer.amp = amp
        self.device = next(network.parameters()).device

    def iterate(self, views: RandomViews, batch: range, timed: Callable[[str, Callable[[], Any]], Any]) -> None:
        """Run one iteration, each part through ``timed``."""
        items = timed("draw", lambda: torch.stack([item["hu"] for item in views.__getitems__(batch)]))
        image, x0, _, known = timed("project", lambda: self.prepare({"hu": items}, self.device))
        loss = timed("forward", lambda: self.loss(self.inferer(image, self.network, **known), x0))
        timed("backward", loss.backward)
        timed("optimizer", self._step)

    def _step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--overlays", nargs="*", default=[], help="below bundle/configs, e.g. methods/paper.json")
    parser.add_argument("--precisions", nargs="+", choices=["float32", "bfloat16"], help="default: float32, GPU: both")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    config = ConfigParser()
    config.read_config([str(CONFIGS / file) for file in ("train.json", *arguments.overlays)])
    config["device"] = device
    precisions = arguments.precisions or ["float32", "bfloat16"][: 1 + (device.type == "cuda")]
    views, network = draw_views(config, device), config.get_parsed_content("network_def").to(device)
    variants = {
        (layout, precision): (Variant(config, network, LAYOUTS[layout], precision == "bfloat16"), Timer(device))
        for layout, precision in product(LAYOUTS, precisions)
    }
    for repetition in range(-1, arguments.repetitions):
        batch = range(repetition * arguments.batch_size, (repetition + 1) * arguments.batch_size)
        for variant, timer in variants.values():
            torch.manual_seed(repetition + 1)
            variant.iterate(views, batch, timer)
            timer("whole", lambda v=variant, b=batch: v.iterate(views, b, lambda _, work: work()))
            if repetition < 0:
                timer.seconds.clear()  # warm-up: kernels were chosen and memory allocated
    print(f"torch {torch.__version__}, {device}, batch {arguments.batch_size}, {torch.get_num_threads()} threads\n")
    print(f"| layout | precision | {', ms | '.join(PARTS)}, ms | iteration, ms | items/s |")
    print(f"|---|---|{'---:|' * (len(PARTS) + 2)}")
    for (layout, precision), (_, timer) in variants.items():
        numbers = " | ".join(f"{1e3 * timer.median(name):.1f}" for name in (*PARTS, "whole"))
        print(f"| {layout} | {precision} | {numbers} | {arguments.batch_size / timer.median('whole'):.1f} |")


if __name__ == "__main__":
    main()
