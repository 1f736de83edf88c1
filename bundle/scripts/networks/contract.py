"""The interface of all networks, and the check that weights fit the geometry they were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry


class Conditioner(Protocol):
    """Part of a network that turns radiographs into conditions h^(i), independent of x_t and t."""

    def __call__(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Map ``image [B, 2, N, N]`` to h^(i) ``[B, C_i, *grid_i]``, finest first; ``z`` disturbs eq (5)."""
        ...


class MakesConditioner(Protocol):
    """Factory of the conditioner named in a network's configuration."""

    def __call__(
        self,
        geometry: BiplanarGeometry,
        grid_shapes: list[tuple[int, int, int]],
        plane_channels: tuple[int, ...],
        condition_channels: tuple[int, ...],
        stem_stride: int,
        blocks: int,
        dropout: float,
    ) -> Conditioner:
        """Build the conditioner; see :class:`~scripts.networks.triplane.TriplaneConditioner` for the arguments."""
        ...


class Denoising(Protocol):
    """Part of a network that reads x_t, t and the conditions."""

    def project_condition(self, h: list[Tensor]) -> list[Tensor]:
        """Compute everything that depends only on the conditions ``h``, once before the first step."""
        ...

    def __call__(self, x: Tensor, timesteps: Tensor, condition: list[Tensor]) -> Tensor:
        """Predict ``[B, 1, U, V, W]`` from ``x [B, reads, U, V, W]`` at ``timesteps [B]``, projected ``condition``."""
        ...


class GeometryBound(nn.Module):
    """Base class of networks trained for one geometry, which is stored in the weights and checked on loading.

    Args:
        geometry: the exam; it defines the shapes and is saved with the weights.

    Attributes:
        exam: the geometry.
        image_shape: ``[2, N, N]``.
        volume_shape: ``[1, U, V, W]``.
        geometry: fingerprint of the geometry, a buffer.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.exam = geometry
        self.image_shape = [2, geometry.detector_pixels, geometry.detector_pixels]
        self.volume_shape = [1, *geometry.volume_shape]
        self.geometry = nn.Buffer(geometry_fingerprint(geometry))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load all weights or none, regardless of ``strict``, so that no server reconstructs with untrained ones.

        Raises:
            RuntimeError: the weights are of another network or geometry; the present weights are kept.
        """
        # PyTorch copies whatever fits before it raises.
        before = {name: value.clone() for name, value in self.state_dict().items()}
        try:
            return super().load_state_dict(state_dict, strict=True, assign=assign)
        except RuntimeError:
            super().load_state_dict(before, assign=assign)
            raise

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        theirs, ours = state_dict.get(f"{prefix}geometry"), geometry_fingerprint(self.exam)
        if theirs is not None and not _is_same(theirs, ours):
            lists[-1].append(
                f"weights trained for geometry {theirs.tolist()}, the network is built for {ours.tolist()} (source to "
                "isocentre and detector in mm, pixels, pitch, volume shape, spacing, source sides); build it with the "
                "geometry of the weights"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)


def geometry_fingerprint(geometry: BiplanarGeometry) -> Tensor:
    """Return the geometry as numbers, float64 ``[10]``, in the order of the error message above."""
    sign = {"anterior": 1, "posterior": -1, "right": 1, "left": -1}
    return torch.tensor(
        [
            geometry.source_to_isocentre_mm,
            geometry.source_to_detector_mm,
            geometry.detector_pixels,
            geometry.detector_spacing_mm,
            *geometry.volume_shape,
            geometry.volume_spacing_mm,
            sign[geometry.frontal_source],
            sign[geometry.lateral_source],
        ],
        dtype=torch.float64,
    )


def _is_same(theirs: Tensor, ours: Tensor) -> bool:
    if theirs.is_meta:  # no values to compare, and no weights to misuse
        return True
    return theirs.shape == ours.shape and torch.allclose(theirs.to(ours), ours, rtol=1e-6)
