"""Direct methods and adversarial training meet the engines where diffusion does."""

import pytest
import torch
from torch import Tensor, nn

from scripts.diffusion.training import Prediction
from scripts.inference.reconstruct import DirectInferer
from scripts.losses.adversarial import DiscriminatorLoss, GeneratorLoss
from scripts.losses.diffusion import DiffusionLoss
from scripts.losses.direct import MeanSquaredLoss, X2CTLoss
from scripts.losses.mean_projection import MeanProjectionLoss
from scripts.training.gan import DiscriminatorInferer, GeneratorInferer, OfVolume, with_condition
from scripts.training.inferers import DirectTrainingInferer

IMAGE, X0 = torch.rand(2, 2, 4, 4), torch.rand(2, 1, 4, 4, 4) * 2 - 1


class Lift(nn.Module):
    """A volume from an image, and logits from a volume and an image."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain, self.seen = nn.Parameter(torch.tensor(gain)), set()

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            return (image.mean() + condition.mean()).reshape(1, 1)
        result = torch.matmul(image[:, :1], image[:, 1:])
        self.seen.add(result.dtype)
        return self.gain * result.unsqueeze(-1).expand(-1, -1, -1, -1, 4)


def test_training_hands_the_volume_to_a_loss_made_for_diffusion() -> None:
    prediction = DirectTrainingInferer()(IMAGE, Lift(), x0=X0)
    assert isinstance(prediction, Prediction) and prediction.target is X0 and prediction.output is prediction.x0
    expected = (prediction.x0 - X0).abs().mean()
    torch.testing.assert_close(DiffusionLoss(0.0)(prediction, X0), expected)
    expected.backward()


def test_reconstruction_is_clipped_and_keeps_no_graph() -> None:
    volume = DirectInferer()(IMAGE, Lift(10.0))
    assert volume.shape == (2, 1, 4, 4, 4) and volume.max() == 1 and not volume.requires_grad


@pytest.mark.parametrize("inferer", [DirectTrainingInferer, DirectInferer])
@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_network_alone_computes_in_bfloat16(inferer, amp, dtype) -> None:
    network = Lift()
    result = inferer(amp)(IMAGE, network, x0=X0)
    assert network.seen == {dtype}
    assert (result.x0 if isinstance(result, Prediction) else result).dtype == torch.float32


def test_x2cts_loss_is_ten_times_the_squared_error_and_ten_thirds_of_each_projection() -> None:
    other = torch.rand_like(X0)
    expected = 10 * (other - X0).square().mean() + 10 * MeanProjectionLoss()(other, X0)
    torch.testing.assert_close(X2CTLoss()(Prediction(other, X0, other), X0), expected)
    torch.testing.assert_close(MeanSquaredLoss()(Prediction(other, X0, other), X0), (other - X0).square().mean())
    torch.testing.assert_close(OfVolume(MeanSquaredLoss())(other, X0), (other - X0).square().mean())


def test_the_adversaries_want_opposite_things() -> None:
    real, fake = torch.full((2, 1, 3), 0.8), torch.full((2, 1, 3), 0.3)
    assert float(GeneratorLoss(0.1)(fake)) == pytest.approx(0.1 * 0.7**2)
    assert float(DiscriminatorLoss()(real, fake)) == pytest.approx(0.5 * (0.2**2 + 0.3**2))
    assert float(DiscriminatorLoss()(torch.ones(1, 1), torch.zeros(1, 1))) == 0


def test_the_volume_is_the_real_example_and_the_radiographs_reach_both_networks() -> None:
    real, target, args, kwargs = with_condition(IMAGE, X0)
    assert real is X0 and target is X0 and args == ()
    network = Lift()
    fake = GeneratorInferer()(real, network, **kwargs)
    assert torch.equal(fake, network(IMAGE))
    assert float(DiscriminatorInferer()(fake, network, **kwargs)) == pytest.approx(float(fake.mean() + IMAGE.mean()))
