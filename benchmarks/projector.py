"""Comparison of projectors: time per pair of views, and difference from DiffDRR's trilinear renderer.

    PYTHONPATH=bundle python benchmarks/projector.py

The subject is the procedural torso seen by the ``carm`` exam. All projectors run in turn within every repetition, so
that other load on the machine affects all of them alike; the median is reported. DiffDRR is optional (its renderers
need only torch: ``pip install --no-deps diffdrr==0.6.1``) and runs with its own default settings.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scripts.geometry import VIEWS, BiplanarGeometry, preset
from scripts.intensity import hu_to_mu
from scripts.phantom.torso import torso
from scripts.physics.raymarch import RayMarchProjector, pixel_rays, view_pose
from scripts.physics.separable import SeparableProjector

try:
    from diffdrr import __version__ as diffdrr_version
    from diffdrr import renderers
except ImportError:
    renderers = None

FIELD_OF_VIEW_MM = 320.0
REFERENCE = "DiffDRR trilinear"


class DiffDRRProjector(nn.Module):
    """Projector by one of DiffDRR's renderers on our rays, from volumes ``[1, 1, U, V, W]`` to ``[1, 2, N, N]``."""

    def __init__(self, geometry: BiplanarGeometry, renderer: nn.Module) -> None:
        super().__init__()
        self.renderer = renderer
        self.pixels = geometry.detector_pixels
        last_index = (torch.tensor(geometry.volume_shape) - 1) / 2
        for name in VIEWS:
            pose = view_pose(geometry, name)
            source, directions = (x.reshape(-1, 3) for x in pixel_rays(geometry, pose))
            towards = torch.tensor(pose.detector_centre_mm, dtype=torch.float64) - source
            axis = nn.functional.normalize(towards, dim=-1)
            length_mm = (towards * axis).sum(-1) / (directions * axis).sum(-1)
            target = source + length_mm[:, None] * directions
            # DiffDRR traces in voxel indices and multiplies by the rays' lengths in mm.
            ends = (x / geometry.volume_spacing_mm + last_index for x in (source[:1], target))
            for part, values in zip(("source", "target", "length_mm"), (*ends, length_mm[None]), strict=True):
                self.register_buffer(f"{name}_{part}", values[None].float())

    def forward(self, mu: Tensor) -> Tensor:
        """Return line integrals of ``mu`` in 1/mm."""
        rays = ((self.get_buffer(f"{name}_{part}") for part in ("source", "target", "length_mm")) for name in VIEWS)
        return torch.stack([self.renderer(mu[0, 0], *ray) for ray in rays], 2).reshape(1, 2, self.pixels, self.pixels)


def contenders(geometry: BiplanarGeometry) -> dict[str, nn.Module]:
    """Return projectors of this exam by name, including DiffDRR's if it is installed."""
    projectors: dict[str, nn.Module] = {
        "SeparableProjector": SeparableProjector(geometry),
        "RayMarchProjector": RayMarchProjector(geometry),
    }
    if renderers is not None:
        projectors[REFERENCE] = DiffDRRProjector(geometry, renderers.Trilinear())
        projectors["DiffDRR Siddon"] = DiffDRRProjector(geometry, renderers.Siddon())
    return projectors


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call, including the device's queue."""
    _synchronise(device)
    start = time.perf_counter()
    work()
    _synchronise(device)
    return 1e3 * (time.perf_counter() - start)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forward(projector: nn.Module, mu: Tensor) -> Tensor:
    """Project one pair of views without a graph."""
    with torch.no_grad():
        return projector(mu)


def forward_and_backward(projector: nn.Module, mu: Tensor) -> None:
    """Project one pair of views and compute the gradient of its sum of squares with respect to the volume."""
    projector(mu.detach().requires_grad_()).square().sum().backward()


def rows(shape: int, device: torch.device, repetitions: int) -> list[str]:
    """Return the table's lines for one volume shape on one device."""
    spacing_mm = FIELD_OF_VIEW_MM / shape
    geometry = preset("carm", (shape,) * 3, spacing_mm, shape)
    mu = hu_to_mu(torso(0, (shape,) * 3, spacing_mm, centre_mm=160.0).hu).float().reshape(1, 1, *geometry.volume_shape)
    mu = mu.to(device)
    projectors = {name: projector.to(device) for name, projector in contenders(geometry).items()}
    images = {name: forward(projector, mu) for name, projector in projectors.items()}
    for projector in projectors.values():
        forward_and_backward(projector, mu)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in projectors}
    for _ in range(repetitions):
        for name, projector in projectors.items():
            one_way = milliseconds(lambda p=projector: forward(p, mu), device)
            both_ways = milliseconds(lambda p=projector: forward_and_backward(p, mu), device)
            times[name].append((one_way, both_ways))
    return [
        _row(shape, device, name, *map(statistics.median, zip(*times[name], strict=True)), _difference(images, name))
        for name in projectors
    ]


def _difference(images: dict[str, Tensor], name: str) -> str:
    if REFERENCE not in images:
        return "not measured"
    reference = images[REFERENCE]
    return f"{float((images[name] - reference).norm() / reference.norm()):.2%}"


def _row(shape: int, device: torch.device, name: str, one_way: float, both_ways: float, difference: str) -> str:
    return f"| {shape}³ | {device.type} | {name} | {one_way:.1f} | {both_ways:.1f} | {difference} |"


def main() -> None:
    """Print the machine's state and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, nargs="+", default=[64, 128], help="voxels along each axis")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--repetitions", type=int, default=5, help="timed calls of each projector")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    version = "not installed" if renderers is None else diffdrr_version
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"torch {torch.__version__}, DiffDRR {version}, Python {platform.python_version()}, ", end="")
    print(f"{arguments.threads} CPU threads of {os.cpu_count()} cores, load average {load}\n")
    print("| volume | device | projector | forward, ms | forward + backward, ms | relative L2 to DiffDRR trilinear |")
    print("|---|---|---|---:|---:|---:|")
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for device in map(torch.device, devices):
        for shape in arguments.shapes:
            print("\n".join(rows(shape, device, arguments.repetitions)), flush=True)


if __name__ == "__main__":
    main()
