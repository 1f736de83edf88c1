"""Published feature networks by name: LPIPS's AlexNet, and RadImageNet's ResNet-50.

Their weights are not part of the bundle. Asking for a network by name downloads them from their publishers into
PyTorch's own cache. They are accepted only with the SHA-256 below, and read as tensors (``weights_only``) into the
architectures below, so no downloaded code runs. MONAI's ``PerceptualLoss`` gets the same networks through
``torch.hub.load``, which runs downloaded code, and through ``lpips`` and ``torchvision``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightsFile:
    """A ``state_dict`` on the web, accepted only with one digest."""

    url: str
    sha256: str

    @property
    def path(self) -> Path:
        """Path in PyTorch's cache, ``$TORCH_HOME/hub/checkpoints``."""
        return Path(torch.hub.get_dir(), "checkpoints", f"{self.sha256[:16]}-{self.url.rpartition('/')[2]}")

    def load(self) -> dict[str, Tensor]:
        """Return the tensors by name, downloaded if they are not in the cache.

        Raises:
            ValueError: the download failed, or its content is different.
        """
        if not self.path.exists():
            print(f"downloading {self.url}", flush=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(self.url, str(self.path), hash_prefix=self.sha256)
            except (OSError, RuntimeError) as error:
                raise ValueError(
                    f"{self.url}: download failed: {error}; without a network, download it elsewhere and save it as "
                    f"{self.path}"
                ) from error
        found = hashlib.sha256(self.path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{self.path}: its SHA-256 must be {self.sha256}, got {found}; delete it to download it again"
            )
        return torch.load(self.path, map_location="cpu", weights_only=True)


class LpipsAlexNet(nn.Module):
    """AlexNet (Krizhevsky 2014, arXiv:1404.5997) up to its five ReLU maps, with LPIPS's input scaling and weights.

    Args:
        alexnet: ``state_dict`` of torchvision's AlexNet; the classifier is left out.
        linear: ``state_dict`` of LPIPS v0.1, with ``lin<i>.model.1.weight``, each ``[1, D, 1, 1]``.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, alexnet: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        prefix = "features."
        self.features.load_state_dict({k[len(prefix) :]: v for k, v in alexnet.items() if k.startswith(prefix)})
        for i in range(5):
            self.register_buffer(f"lin{i}", linear[f"lin{i}.model.1.weight"])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps ``[N, D, h, w]`` of images ``[N, 3, H, W]`` in [-1, 1]."""
        if min(x.shape[-2:]) < 31:
            raise ValueError(f"alexnet: its kernels need slices of at least 31 x 31 pixels, got {tuple(x.shape[-2:])}")
        x, maps = (x - self.shift) / self.scale, []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(x)
        return maps


class RadImageNetResNet50(nn.Module):
    """RadImageNet's ResNet-50 (Mei et al. 2022, doi:10.1148/ryai.210315) up to its last map, with its input scaling.

    As in Keras, convolutions have biases, and the first one of a block has the stride, not the second one as in
    torchvision.

    Args:
        weights: ``state_dict`` published by MONAI; without it, the weights are random.
    """

    mean: Tensor

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3), _norm(64)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        # Means of blue, green and red over ImageNet. The order of the channels does not matter for a grey image.
        self.register_buffer("mean", torch.tensor([0.406, 0.456, 0.485]).view(3, 1, 1), persistent=False)
        if weights is not None:
            self.load_state_dict(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map ``[N, 2048, H / 32, W / 32]`` of grey images ``[N, 3, H, W]`` in [-1, 1]."""
        x = self.pool(self.bn1(self.conv1((x + 1) / 2 - self.mean)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, stride), _norm(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), _norm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1), _norm(outputs)
        shortcut = (nn.Conv2d(inputs, outputs, 1, stride), _norm(outputs)) if project else ()
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(inputs, width, stride, project=True)
    return nn.Sequential(first, *(_Bottleneck(4 * width, width, 1, project=False) for _ in range(blocks - 1)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1.001e-5)


class Published(NamedTuple):
    """Network for images of 3 channels, built from the ``state_dict`` of each of its files."""

    network: Callable[..., nn.Module]
    files: tuple[WeightsFile, ...]


PUBLISHED = {
    "alexnet": Published(
        LpipsAlexNet,
        (
            WeightsFile(
                "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            ),
            WeightsFile(
                "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
                "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            ),
        ),
    ),
    "radimagenet_resnet50": Published(
        RadImageNetResNet50,
        (
            WeightsFile(
                "https://huggingface.co/MONAI/checkpoints/resolve/main/RadImageNet-ResNet50_notop.pth",
                "2457479b254569e5a81ba48fee6c5b2b84b7a729e507aaa2466101aedb8e5c37",
            ),
        ),
    ),
}
"""Networks that users can ask for, by name."""
