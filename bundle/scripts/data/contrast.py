"""Random contrasts of a CT: density of lungs and bone, and contrast medium in the blood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scripts.intensity import AIR_HU


@dataclass(frozen=True)
class ContrastCurve:
    """Continuous, piecewise linear map of HU to HU; its first and last pieces extend beyond the nodes.

    Attributes:
        nodes_hu: increasing HU at which the slope changes.
        values_hu: values of the map at the nodes.
    """

    nodes_hu: Tensor
    values_hu: Tensor

    def __call__(self, hu: Tensor) -> Tensor:
        """Map ``hu`` of any shape."""
        return map_piecewise(hu[None], self.nodes_hu, self.values_hu[None])[0]


def map_piecewise(x: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """Apply continuous, piecewise linear maps; their first and last pieces extend beyond the nodes.

    Args:
        x: ``[B, ...]``, on any device.
        nodes: increasing, ``[K]``, on the CPU.
        values: values of the B maps at the nodes, ``[B, K]``, on the CPU.

    Returns:
        ``[B, ...]``, item b mapped by map b.
    """
    slopes = values.diff() / nodes.diff()
    # value(x) = values_0 + slope_0 (x - node_0) + sum of bend_k max(x - node_k, 0)
    parts = torch.cat([values[:, :1] - slopes[:, :1] * nodes[0], slopes[:, :1], slopes.diff()], dim=1)
    offset, slope, *bends = parts.T.to(x.device, non_blocking=True).view(-1, len(x), *[1] * (x.ndim - 1))
    mapped = torch.addcmul(offset, slope, x)
    for node, bend in zip(nodes[1:-1].tolist(), bends, strict=True):
        mapped.addcmul_(bend, (x - node).clamp_(min=0.0))
    return mapped


@dataclass(frozen=True)
class RandomContrast:
    """Distribution of plausible tissue densities, as increasing curves of HU; air stays air.

    Ten patients have ten densities of bone and of enhanced blood, which a network would otherwise memorise.

    Attributes:
        lung_hu, fat_hu, soft_hu: standard deviations of the HU of inflated lung (-800), fat (-100) and unenhanced soft
            tissue (40).
        enhancement: standard deviation of the log of the HU that contrast medium and spongy bone add to soft tissue
            (40 to 200 HU).
        bone: standard deviation of the log of the HU above 200.
    """

    lung_hu: float = 40.0
    fat_hu: float = 12.0
    soft_hu: float = 8.0
    enhancement: float = 0.4
    bone: float = 0.25

    def draw(self, generator: Generator) -> ContrastCurve:
        """Draw a curve; the same generator state gives the same one."""
        # Clipped at two standard deviations, so that the curve increases.
        n = torch.randn(5, generator=generator).clamp(-2.0, 2.0).tolist()
        lung, fat, soft = -800 + self.lung_hu * n[0], -100 + self.fat_hu * n[1], 40 + self.soft_hu * n[2]
        enhanced = soft + 160 * math.exp(self.enhancement * n[3])
        dense = enhanced + 1300 * math.exp(self.bone * n[4])
        nodes = torch.tensor([AIR_HU, -800.0, -100.0, 40.0, 200.0, 1500.0])
        return ContrastCurve(nodes, torch.tensor([AIR_HU, lung, fat, soft, enhanced, dense]))
