"""What every network promises its callers, and what binds its weights to the geometry it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry


class ReconstructsVolumes(Protocol):
    """A whole reconstruction in one call: what evaluation, deployment and the direct methods need."""

    def forward(self, image: Tensor) -> Tensor:
        """Volumes ``[B, 1, U, V, W]`` of ``image [B, 2, N, N]``, both in network units."""
        ...

    def __call__(self, image: Tensor) -> Tensor:
        """Run :meth:`forward` and the module's hooks."""
        ...


class DenoisesVolumes(Protocol):
    """What a sampler's loop asks of a diffusion network: the condition and a first estimate once, x_0 at every step.

    Attributes:
        reads: volumes that the denoiser is shown, x_t among them.
        volume_shape: ``[1, U, V, W]``.
    """

    reads: int
    volume_shape: list[int]

    def condition(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Everything the denoiser needs to know of ``image [B, 2, N, N]``; the batch comes first in each tensor."""
        ...

    def first_estimate(self, condition: list[Tensor]) -> Tensor:
        """The volume ``[B, 1, U, V, W]`` that stands for the answer of the step before the first."""
        ...

    def predict_x0(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor) -> Tensor:
        """The clean volume seen in ``x [B, 1, U, V, W]`` at ``timesteps [B]``, given the ``estimate`` so far."""
        ...


class Conditioner(Protocol):
    """Makes conditions h^(i) of radiographs: the network's half that does not depend on x_t and t."""

    def __call__(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """``[B, C_i, *grid_i]``, finest first, of ``image [B, 2, N, N]``; ``z`` disturbs eq (5) where there is one."""
        ...


class MakesConditioner(Protocol):
    """The one way in which networks build the conditioner that their configuration names."""

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
        """See :class:`~scripts.networks.triplane.TriplaneConditioner` for the arguments."""
        ...


class Denoising(Protocol):
    """The other half: what the conditions become once, and what the denoiser makes of x_t with them."""

    def project_condition(self, h: list[Tensor]) -> list[Tensor]:
        """Whatever can be computed of the conditions ``h`` before the first step."""
        ...

    def __call__(self, x: Tensor, timesteps: Tensor, condition: list[Tensor]) -> Tensor:
        """The output for ``x [B, reads, U, V, W]`` at ``timesteps [B]``, given :meth:`project_condition`'s answer."""
        ...


class GeometryBound(nn.Module):
    """A network that is trained for one geometry, which its weights carry with them.

    Args:
        geometry: the exam; it gives the shapes and travels in the weights.

    Attributes:
        exam: that geometry.
        image_shape: ``[2, N, N]``.
        volume_shape: ``[1, U, V, W]``.
        geometry: its fingerprint, a buffer.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.exam = geometry
        self.image_shape = [2, geometry.detector_pixels, geometry.detector_pixels]
        self.volume_shape = [1, *geometry.volume_shape]
        self.geometry = nn.Buffer(geometry_fingerprint(geometry))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load all weights or none, whatever ``strict`` says: a server that asks for less serves untrained ones.

        Raises:
            RuntimeError: weights of another network or geometry; this network keeps those it had.
        """
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
    """The geometry as numbers, float64 ``[10]``, kept in the weights so that they cannot be used with another one."""
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
    """Weights on the device without data, `meta`, are of any geometry."""
    if theirs.is_meta:
        return True
    return theirs.shape == ours.shape and torch.allclose(theirs.to(ours), ours, rtol=1e-6)
