"""What holds on a CPU holds on a GPU: the same data, one training, the same volumes, whatever the precision allows."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

from scripts.data.augment import RandomDeformation, WholeBody
from scripts.data.contrast import RandomContrast
from scripts.data.datasets import RandomViews, StreamSampler
from scripts.data.patients import Always, EndlessPhantoms, Mixture
from scripts.geometry import preset
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector

pytestmark = pytest.mark.cuda
GEOMETRY = preset("carm", (32, 32, 32), 10.0, 64)
ONE_EPOCH = {"max_epochs": 1, "val_interval": 9}


def views(device: str) -> RandomViews:
    """Of one prepared patient and of endless phantoms, all on the device."""
    body = WholeBody.of(torso(0, (45, 35, 45), 10.0).hu, 10.0, device)
    sources = [Always(body), EndlessPhantoms(20.0, device=device)]
    return RandomViews(Mixture(sources, torch.ones(2)), GEOMETRY, RandomDeformation(), RandomContrast(), length=8)


@pytest.fixture
def trained(workflow, tmp_path):
    """A workflow on the GPU that has run, with the given overrides, in a folder named so."""

    def run(name: str = "out", **overrides):
        made = workflow(device=torch.device("cuda"), output_dir=str(tmp_path / name), **overrides)
        made.run()
        return made

    return run


def mean_loss(made) -> float:
    return made.trainer.state.metrics["mean_train_loss"]


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


def test_both_devices_draw_the_same_items():
    on_cpu, on_gpu = (data.__getitems__(range(8)) for data in map(views, ("cpu", "cuda")))
    for here, there in zip(on_cpu, on_gpu, strict=True):
        assert there["hu"].is_cuda
        torch.testing.assert_close(there["hu"].cpu(), here["hu"], atol=0.5, rtol=1e-4)


def test_an_item_is_the_same_in_every_batch():
    data = views("cuda")
    together = data.__getitems__(range(8))
    for i in reversed(range(8)):
        torch.testing.assert_close(data[i]["hu"], together[i]["hu"], atol=0.1, rtol=1e-5)


def test_a_batch_of_the_data_loader_is_on_the_device():
    data = views("cuda")
    (batch, _) = DataLoader(data, batch_size=4, sampler=StreamSampler(data))
    assert batch["hu"].is_cuda and batch["hu"].shape == (4, 1, 32, 32, 32)


def test_both_devices_project_and_back_project_alike():
    projector, generator = SeparableProjector(GEOMETRY), torch.Generator().manual_seed(0)
    mu, image = torch.rand(2, 1, 32, 32, 32, generator=generator), torch.rand(2, 2, 64, 64, generator=generator)
    seen, spread = projector(mu), projector.adjoint(image)
    projector.cuda()
    for there, here in ((projector(mu.cuda()), seen), (projector.adjoint(image.cuda()), spread)):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3 * here.abs().max().item())


# ---------------------------------------------------------------------------------------------------------------------
# Network and sampler
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(workflow):
    """The tiny network of train.json and inputs of its denoising model, on the GPU."""
    made = workflow(device=torch.device("cuda"))
    net = made.parser.get_parsed_content("network").eval()
    generator = torch.Generator().manual_seed(0)
    image, x = (torch.rand(2, *s, generator=generator).cuda() for s in (net.image_shape, net.volume_shape))
    return net, (image, x, torch.tensor([900, 100], device="cuda"))


@torch.no_grad()
def test_bfloat16_in_channels_last_is_float32_up_to_its_precision(network):
    net, inputs = network
    expected = net(*inputs)
    for weight in net.parameters():
        if weight.ndim == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast("cuda", torch.bfloat16):
        found = net(*inputs).float()
    assert (found - expected).norm() < 0.03 * expected.norm()


@torch.no_grad()
def test_the_compiled_denoiser_is_the_plain_one(network):
    net, inputs = network
    torch.testing.assert_close(torch.compile(net)(*inputs), net(*inputs), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_both_devices_sample_the_same_volume(workflow):
    made = workflow(device=torch.device("cuda"), amp=False)
    net, inferer = map(made.parser.get_parsed_content, ("network", "network_inferer"))
    net.eval()
    image = torch.rand(2, *net.image_shape, generator=torch.Generator().manual_seed(0))
    on_gpu = inferer(image.cuda(), net)
    assert on_gpu.is_cuda and on_gpu.dtype == torch.float32
    torch.testing.assert_close(on_gpu.cpu(), inferer(image, net.cpu()), rtol=0, atol=0.02)


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def test_training_in_mixed_precision_stays_on_the_device_in_float32(trained):
    made = trained(phantom_share=0.5)
    assert math.isfinite(mean_loss(made)) and math.isfinite(made.evaluator.state.metrics["val_psnr3d"])
    state = made.parser.get_parsed_content("network").state_dict()
    assert all(value.is_cuda and value.dtype != torch.bfloat16 for value in state.values())


def test_the_optimizer_is_fused(trained):
    optimizer = trained(**ONE_EPOCH).parser.get_parsed_content("optimizer")
    assert optimizer.param_groups[0]["fused"]
    assert all(state["exp_avg"].is_cuda for state in optimizer.state.values())


def test_views_of_workers_come_pinned_and_train_alike(trained):
    on_device, by_workers = trained("device", amp=False, **ONE_EPOCH), trained("workers", num_workers=2, **ONE_EPOCH)
    (batch, *_) = by_workers.parser.get_parsed_content("train#dataloader")
    assert batch["hu"].is_pinned()
    assert mean_loss(by_workers) == pytest.approx(mean_loss(on_device), rel=0.02)


def test_gpu_and_cpu_train_alike(trained, workflow):
    made = workflow(device=torch.device("cpu"), amp=False, **ONE_EPOCH, **{"stage1_def#dropout": 0.0, "rollout": 0.0})
    made.run()
    on_gpu = trained("gpu", amp=False, **ONE_EPOCH, **{"stage1_def#dropout": 0.0, "rollout": 0.0})
    assert mean_loss(on_gpu) == pytest.approx(mean_loss(made), rel=0.3)  # the noise of each device is its own


def test_the_compiled_network_trains_like_the_plain_one(trained):
    options = {"amp": False, "stage1_def#dropout": 0.0} | ONE_EPOCH
    plain, compiled = (trained(f"{on}", compile=on, **options) for on in (False, True))
    assert mean_loss(compiled) == pytest.approx(mean_loss(plain), rel=0.05)


def test_an_epoch_repeated_from_the_checkpoint_before_it_gives_the_same_weights(trained, tmp_path):
    unbroken = trained()
    (tmp_path / "out" / "checkpoints" / "checkpoint_epoch=3.pt").unlink()
    resumed = trained()
    states = [made.parser.get_parsed_content("network_def").state_dict() for made in (resumed, unbroken)]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=0, msg=name)
