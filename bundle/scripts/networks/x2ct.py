"""X2CT-GAN (Ying et al. 2019): a two-view generator that lifts 2D features to 3D, and its discriminator.

The paper and the authors' released settings publish the layers and their sizes, the connections A, B and C, the
averaged features that both view decoders continue from, instance normalisation without weights, and the initialisation.
The docstrings below state our own choices. X2CT-CNN is the same generator trained without the discriminator.

The published network ignores two things. It maps pixels to voxels: only the geometry's shapes matter, not the cone and
its magnification. And because a normalisation follows the first convolution, each radiograph matters only up to scale
and offset: absolute attenuation does not reach the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.blocks.convolutions import Convolution
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator as PatchLayers
from monai.networks.utils import normal_init
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.lifting import RayReplication
from scripts.physics.tensor_shapes import require_image, require_volume


def initialise(module: nn.Module) -> None:
    """Draw every convolution's and linear layer's weights from N(0, 0.02) and set their biases to zero."""
    module.apply(normal_init)


def normalised_convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int = 3, upsample: bool = False
) -> nn.Module:
    """Return a convolution, or a transposed one that doubles the grid, with instance normalisation and ReLU.

    The authors' convolutions have biases, which the normalisation cancels; ours have none, here and below.
    """
    return Convolution(
        spatial_dims,
        in_channels,
        out_channels,
        strides=2 if upsample else 1,
        kernel_size=kernel_size,
        act="RELU",
        norm="INSTANCE",
        bias=False,
        is_transposed=upsample,
    )


def preactivated_convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Return instance normalisation, ReLU and a 2D convolution."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
    return nn.Sequential(nn.InstanceNorm2d(in_channels), nn.ReLU(), conv)


class DenseLayer(nn.Module):
    """Dense layer that appends ``growth`` channels, computed from all its input through a ``bottleneck``."""

    def __init__(self, in_channels: int, growth: int, bottleneck: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            preactivated_convolution(in_channels, bottleneck, 1), preactivated_convolution(bottleneck, growth, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, P, P]`` to ``[B, C + growth, P, P]``, the first C channels unchanged."""
        return torch.cat([x, self.layers(x)], dim=1)


class DenseEncoder(nn.Module):
    """Encoder of a radiograph to features at every level, finest first; each stage halves the grid.

    Args:
        channels: channels of the finest level.
        dense_layers: dense layers of each stage; all stages but the last end by halving their channels.
        growth: channels that each dense layer appends.
        bottleneck: channels inside a dense layer.
        stem_stride: pixels per cell of the finest level.

    Attributes:
        channels: channels of every level.
    """

    def __init__(
        self, channels: int, dense_layers: tuple[int, ...], growth: int, bottleneck: int, stem_stride: int
    ) -> None:
        super().__init__()
        stem = nn.Conv2d(1, channels, 7, stem_stride, bias=False)
        self.stem = nn.Sequential(nn.ReflectionPad2d(3), stem, nn.InstanceNorm2d(channels), nn.ReLU())
        self.stages = nn.ModuleList()
        self.channels = [channels]
        for i, layers in enumerate(dense_layers):
            stage: list[nn.Module] = [preactivated_convolution(channels, channels, 3, stride=2)]
            for _ in range(layers):
                stage.append(DenseLayer(channels, growth, bottleneck))
                channels += growth
            if i + 1 < len(dense_layers):
                stage.append(preactivated_convolution(channels, channels // 2, 1))
                channels //= 2
            self.stages.append(nn.Sequential(*stage))
            self.channels.append(channels)

    def forward(self, view: Tensor) -> list[Tensor]:
        """Map ``[B, 1, N, N]`` to ``[B, C_i, P / 2^i, P / 2^i]`` for each level i from 0, P = N / stem_stride."""
        features = [self.stem(view)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class PooledLift(nn.Module):
    """Connection-A: a fully connected layer maps the view's pooled features to the coarsest volume."""

    def __init__(self, in_channels: int, channels: int, side: int, dropout: float) -> None:
        super().__init__()
        self.shape = [channels, side, side, side]
        self.draw = nn.Linear(in_channels, channels * side**3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C_in, P, P]`` to ``[B, C, side, side, side]``."""
        return F.relu(self.dropout(self.draw(x.mean(dim=[2, 3])))).reshape([-1] + self.shape)


class ReplicatedLift(nn.Module):
    """Connection-B: features are copied along the depth axis, which comes first, and convolved."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.flat = normalised_convolution(2, in_channels, channels, kernel_size=1)
        self.deep = normalised_convolution(3, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C_in, P, P]`` to ``[B, C, P, P, P]``."""
        return self.deep(self.flat(x).unsqueeze(2).expand(-1, -1, x.shape[2], -1, -1))


class ViewBranch(nn.Module):
    """Encoder of one radiograph that lifts every level to 3D.

    Args:
        side: cells along each side of the coarsest volume.
        decoder_channels: channels of the lifted levels, finest first; see :class:`DenseEncoder` for the others.
    """

    def __init__(
        self,
        channels: int,
        dense_layers: tuple[int, ...],
        growth: int,
        bottleneck: int,
        stem_stride: int,
        decoder_channels: tuple[int, ...],
        side: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = DenseEncoder(channels, dense_layers, growth, bottleneck, stem_stride)
        pairs = list(zip(self.encoder.channels, decoder_channels, strict=True))
        self.coarsest = PooledLift(*pairs[-1], side, dropout)
        self.finer = nn.ModuleList(ReplicatedLift(c_in, c) for c_in, c in pairs[:-1])

    def forward(self, view: Tensor) -> list[Tensor]:
        """Map ``[B, 1, N, N]`` to ``[B, C_i, P / 2^i, P / 2^i, P / 2^i]`` for each level i from 0, depth axis first."""
        features = self.encoder(view)
        lifted: list[Tensor] = []
        for i, lift in enumerate(self.finer):
            lifted.append(lift(features[i]))
        lifted.append(self.coarsest(features[-1]))
        return lifted


class DecoderLevel(nn.Module):
    """Decoder level that refines features, doubles their grid and merges them with the next finer level."""

    def __init__(self, in_channels: int, channels: int, convolutions: int) -> None:
        super().__init__()
        self.refine = nn.Sequential(*(normalised_convolution(3, in_channels, in_channels) for _ in range(convolutions)))
        self.upsample = normalised_convolution(3, in_channels, channels, upsample=True)
        self.merge = normalised_convolution(3, 2 * channels, channels)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """Map ``[B, C_in, P, P, P]`` and ``finer [B, C, 2P, 2P, 2P]`` to ``[B, C, 2P, 2P, 2P]``."""
        return self.merge(torch.cat([self.upsample(self.refine(x)), finer], dim=1))


def frontal_to_volume_axes(x: Tensor) -> Tensor:
    """Permute the frontal branch's axes (v, u, w), depth first, to the volume's (u, v, w); its own inverse.

    The axes of the lateral branch, also depth first, are (u, v, w), like the volume's.
    """
    return x.transpose(2, 3)


class X2CTGenerator(GeometryBound):
    """X2CT-GAN's generator; the defaults are the paper's sizes for 128 pixels and voxels.

    Each view's branch lifts its features along its own depth axis. At every level the features of both views' decoders
    are permuted to the volume's axes and averaged (connection C): both continue from the average, and a third decoder
    merges the averages of all levels to the volume.

    Our choices: the lower bound of the output is air, -1, whereas the authors end with a ReLU on data with air at 0. We
    omit the view decoders' own outputs, since no published loss reads them. The first convolution halves a detector
    that is twice as fine as the volume. As in the authors' programs, instance normalisation uses the image's own
    statistics both in training and in evaluation.

    Args:
        geometry: the exam; its volume must be a cube with as many voxels per side as the detector has pixels, or half.
        channels: channels of the first convolution.
        dense_layers: dense layers of the encoders' stages, each of which halves the grid.
        growth: channels that each dense layer appends.
        bottleneck: channels inside a dense layer.
        decoder_channels: channels of the decoders' levels, finest first; one level more than there are stages.
        view_convolutions: convolutions per level of the view decoders between merging and upsampling.
        fused_convolutions: convolutions per level of the decoder that merges the averages.
        dropout: rate in connection A.

    Shapes: images ``[B, 2, N, N]`` in network units, volumes ``[B, 1, U, V, W]`` in network units, at least -1.

    Raises:
        ValueError: the geometry or the number of levels does not fit the network.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        channels: int = 64,
        dense_layers: tuple[int, ...] = (6, 12, 24, 16, 6),
        growth: int = 32,
        bottleneck: int = 128,
        decoder_channels: tuple[int, ...] = (16, 16, 32, 64, 128, 256),
        view_convolutions: int = 2,
        fused_convolutions: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(geometry)
        stages = len(dense_layers)
        stem_stride, side = _fit(geometry, stages)
        if len(decoder_channels) != stages + 1:
            raise ValueError(
                f"X2CT: {stages} dense_layers need {stages + 1} decoder_channels, got {len(decoder_channels)}; give "
                "one for the full grid and one for each stage"
            )
        encoder = (channels, dense_layers, growth, bottleneck, stem_stride)
        self.frontal, self.lateral = (ViewBranch(*encoder, decoder_channels, side, dropout) for _ in range(2))
        self.frontal_decoder = _decoder(decoder_channels, view_convolutions)
        self.lateral_decoder = _decoder(decoder_channels, view_convolutions)
        self.fused_decoder = _decoder(decoder_channels, fused_convolutions)
        first = decoder_channels[0]
        refine = (normalised_convolution(3, first, first) for _ in range(fused_convolutions))
        self.head = nn.Sequential(*refine, nn.Conv3d(first, 1, 7, padding=3))
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``[B, 1, U, V, W]`` from ``image [B, 2, N, N]``.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        require_image(image, self.image_shape)
        frontal, lateral = self.frontal(image[:, :1]), self.lateral(image[:, 1:])
        average = (frontal_to_volume_axes(frontal[-1]) + lateral[-1]) / 2
        fused = average
        for i, (decode_frontal, decode_lateral, fuse) in enumerate(
            zip(self.frontal_decoder, self.lateral_decoder, self.fused_decoder)  # noqa: B905 (TorchScript)
        ):
            f = decode_frontal(frontal_to_volume_axes(average), frontal[-2 - i])
            average = (frontal_to_volume_axes(f) + decode_lateral(average, lateral[-2 - i])) / 2
            fused = fuse(fused, average)
        return self.head(fused).clamp(min=-1.0)


def _decoder(channels: tuple[int, ...], convolutions: int) -> nn.ModuleList:
    """Return decoder levels from the coarsest, which is not refined; ``channels`` are finest first."""
    pairs = reversed(list(zip(channels[1:], channels[:-1], strict=True)))
    return nn.ModuleList(DecoderLevel(*pair, convolutions if i else 0) for i, pair in enumerate(pairs))


def _fit(geometry: BiplanarGeometry, stages: int) -> tuple[int, int]:
    """Return pixels per cell of the finest level, and cells along each side of the coarsest volume."""
    shape, pixels = geometry.volume_shape, geometry.detector_pixels
    if len(set(shape)) > 1 or pixels not in (shape[0], 2 * shape[0]):
        raise ValueError(
            f"X2CT: the volume must be a cube with as many voxels per side as pixels, or half, got volume_shape "
            f"{shape} and detector_pixels {pixels}; choose a geometry with such shapes"
        )
    if shape[0] % 2**stages or shape[0] < 2 ** (stages + 1):
        raise ValueError(
            f"X2CT: {stages} stages halve the grid to at least 2 cells, so the volume's side must be a multiple of "
            f"{2**stages} from {2 ** (stages + 1)}, got {shape[0]}; choose such a volume or fewer dense_layers"
        )
    return pixels // shape[0], shape[0] // 2**stages


class PatchDiscriminator(nn.Module):
    """X2CT-GAN's discriminator: judges patches of a volume together with the replicated radiographs.

    MONAI's patch discriminator with the published sizes as defaults: kernel 4, 64 / 128 / 256 channels at stride 2, 512
    at stride 1, then the logits; instance normalisation, LeakyReLU 0.2, weights from N(0, 0.02). MONAI pads the last
    convolution by one cell instead of the authors' two, so the logits lack their outermost layer of patches.

    Args:
        geometry: the exam.
        channels: channels of the first convolution; each further one has twice as many.
        layers: convolutions between the first and the logits; the last of them keeps the grid's spacing.
    """

    def __init__(self, geometry: BiplanarGeometry, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.volume_shape = [1, *geometry.volume_shape]
        self.replicate = RayReplication(geometry)
        self.patches = PatchLayers(3, channels, in_channels=3, num_layers_d=layers, norm="INSTANCE", padding=2)

    def forward(self, volume: Tensor, image: Tensor) -> Tensor:
        """Return one logit per patch ``[B, 1, *]`` for ``volume [B, 1, U, V, W]`` as the CT of ``image [B, 2, N, N]``.

        Raises:
            ValueError: the shape of the volume or image does not match the geometry.
        """
        require_volume(volume, self.volume_shape)
        return self.patches(torch.cat([volume, self.replicate(image)], dim=1))[-1]
