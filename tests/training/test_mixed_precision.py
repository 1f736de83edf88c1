"""With ``amp`` the network computes in bfloat16, and everything around it in float32."""

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from scripts.diffusion.parametrisation import V
from scripts.diffusion.samplers import DPMSolverPP2M
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.inference.precision import bfloat16_pays
from scripts.inference.reconstruct import ReconstructionInferer
from scripts.losses.diffusion import DiffusionLoss
from scripts.training.inferers import DiffusionTrainingInferer

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
ALPHAS_CUMPROD = linear_alphas_cumprod(100)


class Network(nn.Module):
    """A convolution of x with the interface the inferers need; remembers the types its convolution computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.volume_shape, self.conv, self.seen = [1, 4, 4, 4], nn.Conv3d(1, 1, 3, padding=1), set()
        self.conv.register_forward_hook(lambda module, inputs, output: self.seen.add(output.dtype))

    def forward(self, image, x, timesteps):
        return self.conv(x)

    def condition(self, image):
        return [image]

    def first_estimate(self, condition):
        return torch.zeros(len(condition[0]), *self.volume_shape)

    def predict_x0(self, x, timesteps, condition, estimate):
        return self.conv(x).float()


def train(network: nn.Module, device: str, amp: bool) -> tuple:
    """Prediction and loss of one training evaluation, seeded."""
    torch.manual_seed(0)
    image, x0 = torch.rand(2, 2, 4, 4, device=device), torch.rand(2, 1, 4, 4, 4, device=device)
    prediction = DiffusionTrainingInferer(V(), ALPHAS_CUMPROD, amp)(image, network, x0=x0)
    return prediction, DiffusionLoss(0.5)(prediction, x0)


def reconstruct(network: nn.Module, device: str, amp: bool) -> torch.Tensor:
    inferer = ReconstructionInferer(DPMSolverPP2M(), ALPHAS_CUMPROD, steps=3, amp=amp)
    return inferer(torch.rand(2, 2, 4, 4, device=device), network)


def configured(workflow: str, amp: str, inferer: str):
    """An inferer of a configuration that was given ``amp`` on the command line."""
    parser = ConfigParser()
    parser.read_config(CONFIGS / f"{workflow}.json")
    parser["amp"] = amp
    return parser.get_parsed_content(inferer)


@pytest.mark.parametrize(
    "inferer", [("train", "training_inferer"), ("train", "network_inferer"), ("inference", "network_inferer")]
)
@pytest.mark.parametrize(("word", "switch"), [("true", True), ("false", False), ("False", False)])
def test_the_command_lines_words_are_switches(inferer, word, switch):
    workflow, key = inferer
    assert configured(workflow, word, key).amp is switch


@pytest.mark.parametrize("workflow", ["train", "inference"])
def test_another_word_is_refused(workflow):
    with pytest.raises(RuntimeError) as error:
        configured(workflow, "maybe", "network_inferer")
    assert "true or false, got 'maybe'" in str(error.value.__cause__)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_training_computes_the_network_alone_in_bfloat16(device, amp, dtype):
    network = Network().to(device)
    prediction, loss = train(network, device, amp)
    assert network.seen == {dtype}
    assert {part.dtype for part in prediction[:3]} == {torch.float32} and loss.dtype == torch.float32
    loss.backward()
    assert network.conv.weight.grad.dtype == torch.float32 and network.conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_sampling_computes_the_network_alone_in_bfloat16(device, amp, dtype):
    network = Network().to(device)
    volume = reconstruct(network, device, amp)
    assert network.seen == {dtype}
    assert volume.dtype == torch.float32 and volume.shape == (2, 1, 4, 4, 4) and volume.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_changes_the_loss_by_its_rounding_only(device):
    network = Network().to(device)
    with torch.no_grad():
        losses = [train(network, device, amp)[1].item() for amp in (False, True)]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.01)


def test_autocast_ends_with_the_network():
    train(Network(), "cpu", amp=True)
    assert not torch.is_autocast_enabled("cpu")


def test_a_cpu_that_cannot_be_asked_does_not_compute_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not bfloat16_pays(torch.device("cpu")) and bfloat16_pays(torch.device("cuda"))


def test_bfloat16_is_the_default_on_gpus_and_on_the_cpus_that_compute_it():
    assert bfloat16_pays(torch.device("cuda"))
    assert bfloat16_pays(torch.device("cpu")) is bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
