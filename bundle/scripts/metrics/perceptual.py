"""Perceptual similarity of slices, measured by a feature network, the backbone: LPIPS of pairs, FID of sets.

The bundle contains no backbone: the user names a file, or a published network, which is then downloaded. Without a
backbone nothing is measured: all values are NaN, which the tables leave empty. The meaning of a value depends on the
backbone, so only values measured with the same backbone on the same cases can be compared.
"""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.metrics.backbones import PUBLISHED
from scripts.metrics.slices import AXES, slices
from scripts.metrics.volume import check_same_shape

NOTES = (
    "`lpips_u`, `_v`, `_w`: distance between the backbone's features of each predicted and true slice across the axis, "
    "averaged over the slices; smaller is better. It is the published LPIPS only if the backbone is the published "
    "network with its learned weights.",
    "`fid_u`, `_v`, `_w`: Fréchet distance between the backbone's features of all predicted and of all true slices "
    "across the axis, over all cases together; smaller is better. Few slices make it large, so it compares methods on "
    "the same cases only. The published FID takes Inception's features, DiffuX2CT's those of MedCLIP.",
    "`lpips_…` and `fid_…` without a value were not measured: no backbone was given.",
)
"""Explanations of the columns, for readers of a table."""


class Backbone:
    """Frozen feature network, applied to slices in the networks' range, [-1, 1], batch by batch.

    Args:
        network: maps slices ``[N, channels, H, W]`` to features: vectors ``[N, D]``, a map ``[N, D, h, w]``, or several
            maps in a list or tuple. It must resize and normalise its input itself. Parameters or buffers named
            ``lin0``, ``lin1``, ... are LPIPS's learned weights, one per channel of each map.
        channels: 3 for a network of colour images, which gets the grey slice three times, or 1.
        batch_size: slices per batch.
    """

    def __init__(self, network: nn.Module, channels: int = 3, batch_size: int = 32) -> None:
        self.network, self.channels, self.batch_size = network.eval(), channels, batch_size

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the features of ``images [N, H, W]``, N at most ``batch_size``, as a list."""
        features = self.network.to(images.device)(images[:, None].repeat(1, self.channels, 1, 1))
        features = list(features) if isinstance(features, (list, tuple)) else [features]
        if not all(torch.isfinite(values).all() for values in features):
            raise ValueError(
                f"the backbone's features of slices of {tuple(images.shape[1:])} pixels hold NaN or infinity; check "
                "its file"
            )
        return features

    def linear_weights(self) -> list[Tensor]:
        """Return LPIPS's learned weights ``[D]`` of each map, in order; empty if the network holds none."""
        found = {}
        for name, values in self.network.state_dict().items():
            if match := re.match(r"lin(\d+)\b", name):
                found[int(match[1])] = values.flatten()
        return [found[i] for i in sorted(found)]


def load_backbone(source: str | Path | None, channels: int = 3) -> Backbone | None:
    """Load a backbone from a TorchScript file, or by its name in :data:`PUBLISHED`; return None for None.

    Write a file by ``torch.jit.script(module).save(path)`` (or ``trace``), where the module meets the description in
    :class:`Backbone`. For DiffuX2CT's FID, the module resizes and normalises like MedCLIP's image encoder and returns
    its embedding. ``channels`` applies to files; published networks have 3.

    Raises:
        ValueError: there is no such file or name, the file is damaged or not TorchScript, or the download failed.
    """
    if source is None:
        return None
    if source in PUBLISHED:
        network, files = PUBLISHED[source]
        return Backbone(network(*(file.load() for file in files)))
    path = _existing(source)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.jit.load does not compare the checksums
        network = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not a TorchScript file; save the network with torch.jit.script(network).save(path)"
        ) from error
    if damaged is not None:
        raise ValueError(f"{path}: damaged, wrong checksum of {damaged}; copy the file again")
    return Backbone(network, channels)


def backbone_sha256(source: str | Path) -> str:
    """Return the hexadecimal SHA-256 of the files that :func:`load_backbone` loads, several joined by ``+``."""
    if source in PUBLISHED:
        return "+".join(file.sha256 for file in PUBLISHED[source].files)
    return hashlib.sha256(_existing(source).read_bytes()).hexdigest()


def _existing(source: str | Path) -> Path:
    if not Path(source).is_file():
        raise ValueError(
            f"{source}: no such backbone; give a TorchScript file, or the name of a network to download: "
            f"{', '.join(PUBLISHED)}"
        )
    return Path(source)


class Perceptual:
    """LPIPS (Zhang et al. 2018, doi:10.1109/CVPR.2018.00068) of slices with a given backbone.

    At every pixel of every feature map the two feature vectors are scaled to unit length; their squared difference is
    summed over the channels with LPIPS's learned weights (all 1 if the backbone holds none), averaged over the pixels
    and summed over the maps, as in its authors' code. With their network, input scaling and weights (``alexnet``) this
    is the published LPIPS; with anything else it is our own distance of the same form.

    MONAI's ``PerceptualLoss`` is not used: it runs code that it downloads or needs ``lpips`` and ``torchvision``, takes
    a local file for one network only, a torchvision ResNet-50, and chooses slices at random.

    Args:
        backbone: network that returns maps, not vectors; None to measure nothing and return NaN.
    """

    def __init__(self, backbone: Backbone | None = None) -> None:
        self.backbone = backbone
        self.weights = [] if backbone is None else backbone.linear_weights()

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean ``[B, 3]`` over the slices across each axis of volumes ``[B, 1, U, V, W]`` in [-1, 1]."""
        check_same_shape("lpips", prediction, target)
        backbone = self.backbone
        if backbone is None:
            return torch.full((len(target), len(AXES)), math.nan)
        columns = []
        for axis in range(len(AXES)):
            pairs = [slices(v, axis).flatten(0, 1).split(backbone.batch_size) for v in (prediction, target)]
            distances = torch.cat([self._distances(backbone(p), backbone(t)) for p, t in zip(*pairs, strict=True)])
            columns.append(distances.view(len(target), -1).mean(1))
        return torch.stack(columns, dim=1)

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Return the same values of one case by column name."""
        return {f"lpips_{axis}": value for axis, value in zip(AXES, self(prediction, target)[0].tolist(), strict=True)}

    def _distances(self, prediction: list[Tensor], target: list[Tensor]) -> Tensor:
        """Return the distance ``[N]`` between the features of N pairs of slices."""
        pairs = list(zip(prediction, target, strict=True))
        weights = self.weights or [torch.ones(t.shape[1]) for _, t in pairs]
        shapes = [tuple(t.shape[1:]) for _, t in pairs]
        if any(len(shape) != 3 for shape in shapes) or [shape[0] for shape in shapes] != [len(w) for w in weights]:
            raise ValueError(
                "lpips: the backbone must give feature maps [N, D, h, w], and as many linear weights as channels or "
                f"none; got features [N, *] of {shapes} and {[len(w) for w in weights]} weights"
            )
        total = torch.zeros(len(target[0]), device=target[0].device)
        for (p, t), w in zip(pairs, weights, strict=True):
            difference = (F.normalize(p, dim=1, eps=1e-10) - F.normalize(t, dim=1, eps=1e-10)).square()
            total += (difference * w.to(difference).view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total


class Features(NamedTuple):
    """Features of cases, of each an array ``[n, D]`` per axis: of the truth, and of every estimate by its key."""

    truth: list[list[Tensor]]
    estimates: dict[Hashable, list[list[Tensor]]]


class SliceFeatures:
    """FID (Heusel et al. 2017, arXiv:1706.08500) of every estimate against the truth, from all slices of all cases.

    Features are kept on the CPU in float32: a set of 100 cases of 128^3 voxels with 512 features takes 79 MB, and there
    is one set for the truth and one for every estimate.

    Args:
        backbone: network that returns vectors, or one map, which is averaged over its pixels; None to measure nothing
            and return NaN.
    """

    def __init__(self, backbone: Backbone | None = None) -> None:
        self.backbone = backbone
        self.truth: list[list[Tensor]] = []
        self.estimates: dict[Hashable, list[list[Tensor]]] = {}

    def add(self, target: Tensor, estimates: Mapping[Hashable, Tensor]) -> None:
        """Add one case: its truth and every estimate of it, volumes ``[B, 1, U, V, W]`` in [-1, 1], by any keys.

        Use the same keys for every case, and add only cases for which all estimates exist, so that all sets hold the
        same cases.
        """
        truth, features = self._features(target), {key: self._features(volume) for key, volume in estimates.items()}
        self.truth.append(truth)
        for key, of_axes in features.items():
            self.estimates.setdefault(key, []).append(of_axes)

    @property
    def features(self) -> Features:
        """Return the features so far, for :meth:`join`."""
        return Features(self.truth, self.estimates)

    def join(self, shares: Iterable[Features]) -> None:
        """Replace the features by those of several sets of cases, one set after another."""
        self.truth, self.estimates = [], {}
        for share in shares:
            self.truth += share.truth
            for key, cases in share.estimates.items():
                self.estimates.setdefault(key, []).extend(cases)

    def finish(self) -> dict[Hashable, dict[str, float]]:
        """Return the columns ``fid_u``, ``fid_v``, ``fid_w`` of every estimate by its key."""
        return {
            key: {f"fid_{name}": self._distance(cases, axis) for axis, name in enumerate(AXES)}
            for key, cases in self.estimates.items()
        }

    def _distance(self, cases: list[list[Tensor]], axis: int) -> float:
        if self.backbone is None:
            return math.nan
        estimate, truth = (torch.cat([of_axes[axis] for of_axes in each]) for each in (cases, self.truth))
        return frechet_distance(estimate, truth).item()

    def _features(self, volume: Tensor) -> list[Tensor]:
        """Return one array ``[n, D]`` per axis; empty without a backbone."""
        backbone = self.backbone
        if backbone is None:
            return []
        batches = [slices(volume, axis).flatten(0, 1).split(backbone.batch_size) for axis in range(len(AXES))]
        return [torch.cat([_vectors(backbone(images)) for images in of_axis]) for of_axis in batches]


def _vectors(features: list[Tensor]) -> Tensor:
    """Return the features of N slices, vectors or one map, as vectors ``[N, D]``."""
    if len(features) != 1 or features[0].ndim not in (2, 4):
        raise ValueError(
            "fid: the backbone must give one vector [N, D] or one map [N, D, h, w] per slice, got shapes "
            f"{[tuple(values.shape) for values in features]}; use one made for FID"
        )
    return features[0].flatten(2).mean(2).float().cpu() if features[0].ndim == 4 else features[0].float().cpu()


def frechet_distance(features_a: Tensor, features_b: Tensor) -> Tensor:
    """Return the squared Fréchet distance between Gaussians fitted to two sets, a float64 scalar.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``. With the centred features as factors, ``C_a = X^T X`` and
    ``C_b = Y^T Y``, the trace of the root is the sum of the singular values of ``X Y^T``: no matrix root is needed, and
    sets smaller than D, which have singular covariances, are as exact as large ones.

    MONAI's ``get_fid_score`` is not used: if the covariances are singular it adds 1e-6 to their diagonals, prints that
    it does, and is then 0.1 to 0.4 % off for 20 sparse vectors of 64 features; with 192 of 512 it takes 100 times as
    long.

    Args:
        features_a: ``[N, D]``, N at least 2.
        features_b: ``[M, D]``, M at least 2.
    """
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise ValueError(
            "frechet_distance: features are [N, D] and [M, D], of one backbone, got "
            f"{tuple(features_a.shape)} and {tuple(features_b.shape)}"
        )
    if min(len(features_a), len(features_b)) < 2:
        raise ValueError(
            f"frechet_distance: a covariance needs at least 2 vectors, got {len(features_a)} and {len(features_b)}; "
            "give more slices"
        )
    (mean_a, x), (mean_b, y) = _mean_and_factor(features_a.double()), _mean_and_factor(features_b.double())
    spread = x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()
    return ((mean_a - mean_b).square().sum() + spread).clamp(min=0)


def _mean_and_factor(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean ``[D]`` and a factor ``X [min(N, D), D]`` of the sample covariance ``X^T X``."""
    mean = features.mean(0)
    return mean, torch.linalg.qr((features - mean) / math.sqrt(len(features) - 1), mode="r").R
