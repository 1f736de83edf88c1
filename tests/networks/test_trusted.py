"""Which radiographs change a volume: those that one body explains."""

import pytest
import torch

from scripts.geometry import preset
from scripts.intensity import hu_to_mu, hu_to_network, radiograph_to_network
from scripts.networks.trusted import trusted_consistency
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (32, 32, 32), 10.0, 64)


def body(bone: float) -> torch.Tensor:
    """A trunk of water, narrower above than below, with an upper border in the field and a column of ``bone`` HU."""
    u, v, w = torch.meshgrid(*[torch.arange(32) - 15.5] * 3, indexing="ij")
    size = 1 - 0.01 * w
    hu = torch.where(((u / 14) ** 2 + (v / 11) ** 2 < size**2) & (w < 12), 0.0, -1000.0)
    hu[15:18, 21:24, 4:28] = bone
    return hu[None, None]


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "trusted"),
    [
        (lambda image: image, True),
        (lambda image: 1.02 * image, True),
        (lambda image: image + 0.005 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)), True),
        (lambda image: torch.stack([image[:, 0], image[:, 1].roll(2, dims=2)], dim=1), False),  # 9.6 mm on the detector
        (lambda image: image * torch.tensor([1.0, 1.1]).reshape(2, 1, 1), False),
        (lambda image: 1.3 * image, False),
        (lambda image: image * (torch.arange(64) < 44), False),
    ],
    ids=["exact", "2 % brighter", "noisy", "one shifted", "one brighter", "both brighter", "cut off"],
)
def test_radiographs_that_no_body_explains_change_nothing(change, trusted):
    truth, volume = body(700.0), hu_to_network(body(300.0))
    image = change(radiograph_to_network(SeparableProjector(GEOMETRY)(hu_to_mu(truth))))
    meet = trusted_consistency(GEOMETRY, torch.device("cpu"))
    assert meet.trusts(volume, image).flatten().tolist() == [trusted]
    assert torch.equal(meet(volume, image), volume) is not trusted
