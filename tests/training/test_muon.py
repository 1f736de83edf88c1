"""Muon: what a step is, which parameters take it, and that a run can be resumed."""

import copy
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from scripts.training.muon import SMALLEST, Muon, orthogonalised

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
MUON = CONFIGS / "methods" / "muon.json"


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    """A parameter with a random gradient, both always the same."""
    generator = torch.Generator().manual_seed(seed)
    made = nn.Parameter(torch.randn(shape, generator=generator))
    made.grad = torch.randn(shape, generator=generator)
    return made


@pytest.mark.parametrize("shape", [(16, 200), (200, 16), (40, 40)])
def test_singular_vectors_stay_and_singular_values_become_about_one(shape):
    values = torch.logspace(0, -1, min(shape), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(torch.randn(*shape, dtype=torch.float64), full_matrices=False)
    in_their_basis = u.T @ orthogonalised(u * values @ vh) @ vh.T
    diagonal = in_their_basis.diagonal()
    assert diagonal.min() > 0.65 and diagonal.max() < 1.25
    torch.testing.assert_close(in_their_basis, diagonal.diag(), atol=1e-10, rtol=0)


def test_no_gradient_gives_no_step():
    assert not orthogonalised(torch.zeros(16, 20)).any()


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_matrices_take_the_steps_of_pytorchs_muon(shape):
    """PyTorch computes in bfloat16, which has a rounding error of 0.4 %."""
    ours, theirs = parameter(*shape), parameter(*shape)
    start = ours.detach().clone()
    settings = {"lr": 1e-2, "weight_decay": 0.1}
    optimizers = Muon([ours], **settings), torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **settings)
    for seed in range(5):
        ours.grad, theirs.grad = (parameter(*shape, seed=seed).grad for _ in range(2))
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()


@pytest.mark.parametrize("shape", [(16,), (), (SMALLEST - 1, 30), (30, SMALLEST - 1), (8, 4, 3, 3, 3)])
def test_everything_else_takes_the_steps_of_adamw(shape):
    ours, theirs, kernel = parameter(*shape), parameter(*shape), parameter(16, 16)
    settings = {"lr": 1e-2, "weight_decay": 0.1, "fused": True}
    optimizers = Muon([ours, kernel], **settings), torch.optim.AdamW([theirs], **settings)
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(ours, theirs)


def test_a_kernel_is_a_matrix_of_its_outputs_in_any_order_in_memory():
    kernel, matrix = parameter(16, 4, 3, 3, 3), parameter(16, 4, 3, 3, 3)
    kernel.data = kernel.data.to(memory_format=torch.channels_last_3d)
    kernel.grad = kernel.grad.to(memory_format=torch.channels_last_3d)
    flat = nn.Parameter(matrix.detach().flatten(1))
    flat.grad = matrix.grad.flatten(1)
    optimizer = Muon([kernel, flat], lr=1e-2)
    optimizer.step()
    torch.testing.assert_close(kernel.detach().flatten(1), flat.detach())
    assert kernel.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("shape", [(16, 400), (400, 16), (64, 8, 3, 3, 3)])
def test_the_root_mean_square_of_a_step_is_a_fifth_of_the_learning_rate(shape):
    """So that AdamW's learning rates suit it; singular values from 0.7 to 1.2 make it a little smaller or larger."""
    kernel = parameter(*shape)
    before = kernel.detach().clone()
    Muon([kernel], lr=1e-2, weight_decay=0.0).step()
    assert (kernel - before).square().mean().sqrt().item() == pytest.approx(0.2 * 1e-2, rel=0.3)


def test_gradients_are_kept_and_parameters_without_one_stay():
    kernel, idle = parameter(16, 16), parameter(16, 16)
    gradient, before, idle.grad = kernel.grad.clone(), idle.detach().clone(), None
    Muon([kernel, idle], lr=1e-2, weight_decay=0.1).step()
    assert torch.equal(kernel.grad, gradient) and torch.equal(idle, before)


def test_a_loaded_state_goes_on_exactly():
    def steps(parameters: list[nn.Parameter], optimizer: Muon, seeds: range) -> None:
        for seed in seeds:
            for p in parameters:
                p.grad = parameter(*p.shape, seed=seed).grad
            optimizer.step()

    unbroken = [parameter(16, 20), parameter(16)]
    optimizer = Muon(unbroken, lr=1e-2, fused=True)
    steps(unbroken, optimizer, range(3))
    resumed = [nn.Parameter(p.detach().clone()) for p in unbroken]
    again = Muon(resumed, lr=1e-2, fused=True)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameters, each in ((unbroken, optimizer), (resumed, again)):
        steps(parameters, each, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(unbroken, resumed, strict=True))


def test_the_overlay_trains_with_it_and_resumes(workflow, tmp_path):
    workflow(MUON, max_epochs=1).run()
    made = workflow(MUON, max_epochs=2)
    assert type(made.parser.get_parsed_content("optimizer")) is Muon
    made.run()
    state = torch.load(tmp_path / "out" / "checkpoints" / "checkpoint_epoch=2.pt", weights_only=True)["optimizer"]
    assert any("momentum_buffer" in each for each in state["state"].values())


def test_the_overlay_does_not_disturb_an_evaluation():
    """A study of methods reads their overlays for training and for evaluation."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "inference.json"), str(CONFIGS / "evaluate.json"), str(MUON)])
    parser.get_parsed_content("inferer")


def test_after_a_finetuning_the_frozen_parts_stay(workflow):
    made = workflow(CONFIGS / "finetune.json", MUON, initial_weights=None, frozen="conditioner.stem").parser
    optimizer, network = made.get_parsed_content("optimizer"), made.get_parsed_content("network")
    before = [p.detach().clone() for p in network.conditioner.stem.parameters()]
    for p in network.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(network.conditioner.stem.parameters(), before, strict=True))
