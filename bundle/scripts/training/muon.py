"""Muon: orthogonalised momentum for kernels, and AdamW for everything else.

Gradients of convolution kernels are close to low rank: a few directions dominate a step, and all others hardly learn.
Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) gives all directions the same size: where the momentum has
the singular value decomposition U S V^T, the step is U V^T. PyTorch's class takes matrices only, and computes them in
bfloat16, which is slow on most CPUs. This one flattens kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SMALLEST = 16
"""Fewest rows and columns of a kernel for Muon. Smaller ones are mostly a network's last layer."""
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """Optimizer of all parameters of a network: kernels by Muon, everything else by AdamW.

    A kernel ``[O, I, ...]`` is taken as a matrix of O rows. Those with fewer than :data:`SMALLEST` rows or columns are
    left to AdamW. Steps are scaled so that AdamW's learning rates and weight decay suit both (Liu et al. 2025,
    arXiv:2502.16982, eq (4)).

    Args:
        params: parameters or groups of them.
        momentum: of the kernels' gradients, in Nesterov's form.
        named: arguments of ``torch.optim.AdamW``.
    """

    def __init__(self, params: Any, momentum: float = 0.95, **named: Any) -> None:
        super().__init__(params, **named)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        learning = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        kernels = [(p, p.grad, group) for p, group in learning if _is_matrix(p)]
        for p, _, _ in kernels:
            p.grad = None  # hides it from AdamW
        loss = super().step(closure)
        for p, gradient, group in kernels:
            p.grad = gradient
            self._step_kernel(p, gradient, group["lr"], group["weight_decay"])
        return loss

    def _step_kernel(self, p: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[p]
        if not state:  # AdamW expects a step in every state that it loads
            state["step"], state["momentum_buffer"] = torch.tensor(0.0), torch.zeros_like(gradient)
        state["step"] += 1
        average = state["momentum_buffer"].lerp_(gradient, 1 - self.momentum)
        rows = gradient.lerp(average, self.momentum).movedim(1, -1)  # a view if channels come last in memory
        matrix = rows.flatten(1)
        update = orthogonalised(matrix).view(rows.shape).movedim(-1, 1)
        p.mul_(1 - lr * weight_decay).add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * lr)


def _is_matrix(p: Tensor) -> bool:
    return p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= SMALLEST


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return U V^T of ``matrix`` = U S V^T, with singular values from 0.7 to 1.2 instead of 1, by Newton-Schulz.

    With X the matrix divided by its norm and G = X X^T, one iteration is X <- P X, G <- P G P, P = a + b G + c G^2. All
    of these commute, so the loop needs only the smaller, symmetric matrices.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    x = matrix / matrix.norm().clamp(min=1e-7)
    gram, one = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = one
    for _ in range(_ITERATIONS):
        polynomial = _A * one + _B * gram + _C * gram @ gram
        product, gram = polynomial @ product, polynomial @ gram @ polynomial
    return product @ x
