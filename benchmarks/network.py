"""Costs of `train.json`'s network, and of the paper's at that size and its own: parameters, multiply-adds, memory.

    PYTHONPATH=bundle python benchmarks/network.py

Nothing is computed: the networks run on tensors without storage, so the paper's size can be counted on any machine.
Memory is that of float tensors at batch 1, without weights. Inference: the peak of live tensors. Training: the tensors
that the forward pass keeps for the backward pass, without gradients and optimiser state. An allocator needs somewhat
more than either, and CUDA's autocast, which keeps group norms in float32, needs more than the CPU's used here.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"
SIZES = {
    "default": ["train.json"],
    "icm": ["train.json", "methods/icm.json"],
    "paper": ["train.json", "methods/paper.json"],
}
PARTS = {
    "stem, interleaved convolution": ("conditioner.stem", "conditioner.interleaved"),
    "plane encoder": ("conditioner.encoder",),
    "view modulators, learnable embedding": ("conditioner.fusion", "conditioner.embedding"),
    "plane decoder": ("conditioner.decoder",),
    "implicit decoder": ("conditioner.implicit",),
    "lifting": ("conditioner.lift",),
    "condition convolutions": ("denoiser.condition_down", "denoiser.condition_up"),
    "U-Net encoder": ("denoiser.time", "denoiser.stem", "denoiser.down"),
    "window attention": ("denoiser.attention",),
    "U-Net decoder": ("denoiser.bottom", "denoiser.up", "denoiser.head"),
}


class LiveBytes(TorchDispatchMode):
    """Counter of the bytes of live storages made under it, and of their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, weakref.ref] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.alive:
            return
        size = storage.nbytes()

        def gone(_: weakref.ref) -> None:
            del self.alive[key]
            self.now -= size

        self.alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def build(files: list[str]) -> nn.Module:
    """Build the network defined by configuration files."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / file) for file in files])
    return parser.get_parsed_content("network_def")


def parameters(network: nn.Module) -> dict[str, int]:
    """Count the parameters of each part, 0 if the network lacks it; every parameter belongs to one part."""
    modules = dict(network.named_modules())
    counts = {
        part: sum(p.numel() for name in names if name in modules for p in modules[name].parameters())
        for part, names in PARTS.items()
    }
    total = sum(p.numel() for p in network.parameters())
    if sum(counts.values()) != total:
        raise RuntimeError(f"the parts hold {sum(counts.values())} parameters, the network {total}; correct PARTS")
    return counts | {"**all parameters**": total}


def multiply_adds(work: Callable[[], object]) -> int:
    """Count the multiply-adds of the matrix products, convolutions and attention in ``work``."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() // 2


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the peak memory of tensors made by ``work``, without a graph."""
    with torch.no_grad(), LiveBytes() as live:
        work()
    return live.peak


def saved_bytes(network: nn.Module, work: Callable[[], object]) -> int:
    """Return the memory that ``work`` keeps for its backward pass, without weights and tables of ``network``."""
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    size = sum(storage.nbytes() for storage in kept.values())
    del result
    return size


def measure(files: list[str]) -> dict[str, str]:
    """Return the table's column for one configuration."""
    network = build(files)
    column = {part: f"{count / 1e6:.2f} M" for part, count in parameters(network).items()}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(mode.from_tensor(parameter.detach()))
            for name, buffer in module._buffers.items():
                module._buffers[name] = mode.from_tensor(buffer)
        image = torch.empty(1, *network.image_shape)
        x, t = torch.empty(1, *network.volume_shape), torch.zeros(1, dtype=torch.int64)
        network.eval()
        with torch.no_grad():
            if network(image).shape != x.shape:
                raise RuntimeError("the network does not reconstruct a volume of its own shape")
            condition = network.condition(image)
            estimate = network.first_estimate(condition)
        column["multiply-adds of condition(), once"] = f"{multiply_adds(lambda: network.condition(image)) / 1e9:.1f} G"
        once = multiply_adds(lambda: network.denoise(x, t, condition, estimate))
        column["multiply-adds of denoise(), per step"] = f"{once / 1e9:.1f} G"
        for name, amp in (("float32", False), ("bfloat16 autocast", True)):
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                network.eval()
                inference = peak_bytes(lambda: network.denoise(x, t, network.condition(image), estimate))
                network.train()
                training = saved_bytes(network, lambda: network(image, x, t))
            column[f"inference, {name}"] = f"{inference / 2**30:.2f} GiB"
            column[f"training step, {name}"] = f"{training / 2**30:.2f} GiB"
    return column


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="configurations to count")
    sizes = parser.parse_args().sizes
    columns = [measure(SIZES[name]) for name in sizes]
    print(f"torch {torch.__version__}, batch 1\n")
    print(f"| | {' | '.join(sizes)} |")
    print(f"|---|{'---:|' * len(sizes)}")
    for row in columns[0]:
        print(f"| {row} | {' | '.join(column[row] for column in columns)} |")


if __name__ == "__main__":
    main()
