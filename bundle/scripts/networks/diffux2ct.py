"""DiffuX2CT (Liu et al. 2024): the implicit conditioning mechanism and the 3D denoiser as one network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.diffusion.parametrisation import Parametrisation
from scripts.diffusion.samplers import ddim_step
from scripts.diffusion.schedules import marginal, respaced_timesteps
from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import Conditioner, Denoising, GeometryBound, MakesConditioner
from scripts.networks.denoiser import Denoiser, stage_shapes
from scripts.networks.triplane import TriplaneConditioner
from scripts.physics.tensor_shapes import require_image, require_volume


class DiffuX2CT(GeometryBound):
    """Radiographs to CT by conditional diffusion.

    ``forward(image)`` is a complete reconstruction by a deterministic few-step sampler from a fixed noise volume, so
    that an exported network is a complete X-rays-to-CT program. ``forward(image, x, timesteps)`` is one evaluation of
    the denoising model, as needed in training. Samplers call :meth:`condition` and :meth:`first_estimate` once, and
    :meth:`predict_x0` at every step with its result of the previous step. This
    network ignores that estimate; :class:`~scripts.networks.correcting.SelfCorrecting` uses it.

    Args:
        conditioner: maps radiographs ``[B, 2, N, N]`` (and a disturbance, or None) to conditions h^(i).
        denoiser: predicts from x_t, t and the projected conditions.
        parametrisation: meaning of that prediction.
        alphas_cumprod: the noise schedule of training, float64 ``[T]``.
        geometry: the exam the network is trained for.
        steps: timesteps of the built-in reconstruction.
        power: their spacing; see :func:`~scripts.diffusion.schedules.respaced_timesteps`.

    Shapes: images ``[B, 2, N, N]`` in network units, volumes ``[B, 1, U, V, W]`` in [-1, 1].

    Attributes:
        reads: number of volumes the denoiser reads, including x_t.
    """

    reads = 1

    def __init__(
        self,
        conditioner: Conditioner,
        denoiser: Denoising,
        parametrisation: Parametrisation,
        alphas_cumprod: Tensor,
        geometry: BiplanarGeometry,
        steps: int = 8,
        power: float = 1.0,
    ) -> None:
        super().__init__(geometry)
        self.conditioner, self.denoiser, self.parametrisation = conditioner, denoiser, parametrisation
        self.alphas_cumprod = nn.Buffer(alphas_cumprod, persistent=False)
        self.timesteps = nn.Buffer(respaced_timesteps(len(alphas_cumprod), steps, power), persistent=False)
        noise = torch.randn(self.volume_shape, generator=torch.Generator().manual_seed(0))
        self.noise = nn.Buffer(noise.unsqueeze(0), persistent=False)

    def forward(
        self,
        image: Tensor,
        x: Tensor | None = None,
        timesteps: Tensor | None = None,
        estimate: Tensor | None = None,
        condition: list[Tensor] | None = None,
    ) -> Tensor:
        """Reconstruct from ``image`` alone, or evaluate the denoising model at ``x`` and ``timesteps [B]``.

        Without an ``estimate``, the evaluation uses the first one; without the ``condition`` that belongs to the image,
        it is computed.

        Raises:
            ValueError: a shape does not match the geometry, or only one of x and timesteps is given.
        """
        if condition is None:
            condition = self.condition(image, None)
        if x is None and timesteps is None:
            return self.reconstruct(condition)
        if x is None or timesteps is None:
            raise ValueError("the network takes both x and timesteps or neither, got only one; give both")
        if estimate is None:
            estimate = self.first_estimate(condition)
        return self.denoise(x, timesteps, condition, estimate)

    @torch.jit.export
    def condition(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Return everything the denoiser needs from ``image``, independent of x and t.

        ``z`` disturbs eq (5); without it the conditioner draws its own in training.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        require_image(image, self.image_shape)
        return self._condition(image, z)

    def _condition(self, image: Tensor, z: Tensor | None) -> list[Tensor]:
        return self.denoiser.project_condition(self.conditioner(image, z))

    @torch.jit.export
    def first_estimate(self, condition: list[Tensor]) -> Tensor:
        """Return the estimate ``[B, 1, U, V, W]`` for the first step, here zeros."""
        return torch.zeros_like(self.noise).expand(condition[0].shape[0], -1, -1, -1, -1)

    @torch.jit.export
    def denoise(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor) -> Tensor:
        """Evaluate the denoising model at ``x [B, 1, U, V, W]``, ``timesteps [B]`` and an ``estimate``.

        Raises:
            ValueError: the volume's shape does not match the geometry.
        """
        require_volume(x, self.volume_shape)
        return self._output(x, timesteps, condition, estimate)

    def _output(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor) -> Tensor:
        return self.denoiser(x, timesteps, condition)

    @torch.jit.export
    def predict_x0(self, x: Tensor, timesteps: Tensor, condition: list[Tensor], estimate: Tensor) -> Tensor:
        """Predict the clean volume from ``x``, clipped to [-1, 1]; the only part of the model that samplers see."""
        alpha, sigma = marginal(self.alphas_cumprod, timesteps, x.ndim)
        output = self.denoise(x, timesteps, condition, estimate)
        return self.meet(self.parametrisation.to_x0(output.float(), x, alpha, sigma).clamp(-1.0, 1.0), condition)

    @torch.jit.export
    def meet(self, x0: Tensor, condition: list[Tensor]) -> Tensor:
        """Return ``x0 [B, 1, U, V, W]``, changed to meet the radiographs; here unchanged."""
        return x0

    @torch.jit.export
    def reconstruct(self, condition: list[Tensor]) -> Tensor:
        """Reconstruct from the fixed noise volume, as :meth:`reconstruct_from` does."""
        return self.reconstruct_from(self.noise.expand(condition[0].shape[0], -1, -1, -1, -1), condition)

    @torch.jit.export
    def reconstruct_from(self, x: Tensor, condition: list[Tensor]) -> Tensor:
        """Reconstruct in a few deterministic steps (DDIM) from standard normal noise ``x [B, 1, U, V, W]``."""
        batch = x.shape[0]
        x0 = self.first_estimate(condition)
        for i in range(len(self.timesteps)):
            t = self.timesteps[i].expand(batch)
            x0 = self.predict_x0(x, t, condition, x0)
            if i + 1 < len(self.timesteps):
                alpha_t, sigma_t = marginal(self.alphas_cumprod, t, x.ndim)
                alpha_s, sigma_s = marginal(self.alphas_cumprod, self.timesteps[i + 1].expand(batch), x.ndim)
                x = ddim_step(x, x0, alpha_t, sigma_t, alpha_s, sigma_s)
        return x0


def diffux2ct(
    geometry: BiplanarGeometry,
    parametrisation: Parametrisation,
    alphas_cumprod: Tensor,
    channels: tuple[int, ...],
    plane_channels: tuple[int, ...],
    condition_channels: tuple[int, ...],
    patch: int = 1,
    stem_stride: int = 1,
    blocks: int = 1,
    plane_blocks: int = 2,
    heads: int = 4,
    window: int = 4,
    dropout: float = 0.2,
    steps: int = 8,
    power: float = 1.0,
    condition_kernel: int = 3,
    conditioner: MakesConditioner = TriplaneConditioner,
    network: type[DiffuX2CT] = DiffuX2CT,
) -> DiffuX2CT:
    """Build DiffuX2CT at any size, by default from the paper's parts; see the classes for the arguments.

    Args:
        conditioner: makes the conditioning network.
        network: :class:`DiffuX2CT`, or a class of :mod:`~scripts.networks.correcting`.

    Raises:
        ValueError: sizes do not fit together; the message names them.
    """
    shapes = stage_shapes(geometry.volume_shape, patch, len(channels))
    condition = conditioner(geometry, shapes, plane_channels, condition_channels, stem_stride, plane_blocks, dropout)
    denoiser = Denoiser(
        geometry.volume_shape, channels, condition_channels, patch, blocks, heads, window, dropout,
        in_channels=network.reads, condition_kernel=condition_kernel,
    )  # fmt: skip
    return network(condition, denoiser, parametrisation, alphas_cumprod, geometry, steps, power)
