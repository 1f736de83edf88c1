"""Every network of the bundle at a small size, for the laws that all of them obey: a new one joins by one entry."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from scripts.diffusion.bridge import bridge_alphas_cumprod
from scripts.diffusion.parametrisation import X0
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.geometry import BiplanarGeometry, preset
from scripts.networks.axon import (
    AttenuationLifting,
    ControlledBridge,
    CorrectionDenoiser,
    DisplacementDenoiser,
    TriplaneLifting,
    axon_bridge,
)
from scripts.networks.cnn3d import CNN3D
from scripts.networks.contract import GeometryBound
from scripts.networks.correcting import SelfConsistent, SelfCorrecting
from scripts.networks.diff2ct import diff2ct
from scripts.networks.diffux2ct import DiffuX2CT, diffux2ct
from scripts.networks.expanded import ExpandedConditioner
from scripts.networks.icm_reg import ICMReg
from scripts.networks.lifted import JointConditioner, LiftedConditioner
from scripts.networks.lifting import ReplicatedAttenuation
from scripts.networks.psr import PSR
from scripts.networks.refined import Refined, refined
from scripts.networks.upon import SuperResolved
from scripts.networks.upsampler import Upsampler
from scripts.networks.x2ct import X2CTGenerator
from scripts.networks.xctrsnet import XCTRSNet

GEOMETRY = preset("carm", (16, 16, 16), 20.0, 16)
IMAGE_SHAPE, VOLUME_SHAPE = (2, 16, 16), (1, 16, 16, 16)
_SIZES = {"channels": (8, 16), "patch": 2, "heads": 2, "window": 2, "steps": 2, "dropout": 0.0}
_PLANES = {"plane_channels": (4, 6, 8), "condition_channels": (4, 8), "plane_blocks": 1}


def _conditioned(geometry: BiplanarGeometry, **parts) -> DiffuX2CT:
    return diffux2ct(geometry, X0(), linear_alphas_cumprod(), **_SIZES, **_PLANES, **parts)


def _diff2ct(geometry: BiplanarGeometry, **parts) -> DiffuX2CT:
    return diff2ct(geometry, X0(), linear_alphas_cumprod(), condition_channels=6, **_SIZES, **parts)


def _bridge(geometry: BiplanarGeometry, **parts) -> DiffuX2CT:
    return axon_bridge(geometry, bridge_alphas_cumprod(), condition_channels=(4, 6), **_SIZES, **parts)


def _controlled(geometry: BiplanarGeometry) -> ControlledBridge:
    return ControlledBridge(_bridge(geometry), geometry, steps=2)


def _super_resolved(geometry: BiplanarGeometry) -> SuperResolved:
    coarse = geometry.with_volume((8, 8, 8), 2 * geometry.volume_spacing_mm)
    return SuperResolved(_controlled(coarse), Upsampler(4, 1), geometry)


def _refined(geometry: BiplanarGeometry) -> Refined:
    coarse = geometry.with_volume((8, 8, 8), 2 * geometry.volume_spacing_mm)
    base = _conditioned(coarse, network=SelfCorrecting, conditioner=LiftedConditioner)
    return refined(geometry, base, (8, 8), (1, 1), plane_channels=(8, 8), lifted_channels=4, passes=2)


_X2CT = {"channels": 8, "dense_layers": (1, 1), "growth": 4, "bottleneck": 8, "decoder_channels": (8, 8, 8)}
_ICM = {"channels": (8, 16), "plane_channels": (8, 8, 16), "condition_channels": (8, 8), "patch": 2, "stem_stride": 1}
_TRIPLANE = partial(TriplaneLifting, plane_channels=(8, 16, 16), stem_stride=1)
_REPLICATED = partial(AttenuationLifting, spread=ReplicatedAttenuation)

DIRECT: dict[str, Callable[[BiplanarGeometry], GeometryBound]] = {
    "icm_reg": partial(ICMReg, **_ICM),
    "x2ct": partial(X2CTGenerator, dropout=0.0, **_X2CT),
    "x_ctrsnet": partial(XCTRSNet, channels=(8, 8, 16)),
    "psr": partial(PSR, width=1 / 64),
    "cnn3d": partial(CNN3D, channels=(8, 8, 8, 8, 16, 8)),
}
DIFFUSION: dict[str, Callable[[BiplanarGeometry], DiffuX2CT]] = {
    "diffux2ct": _conditioned,
    "diffux2ct, expanded": partial(_conditioned, conditioner=ExpandedConditioner),
    "correcting, implicit": partial(_conditioned, network=SelfCorrecting),
    "correcting, lifted": partial(_conditioned, network=SelfCorrecting, conditioner=LiftedConditioner),
    "consistent": partial(_conditioned, network=SelfConsistent, conditioner=LiftedConditioner),
    "correcting, both": partial(_conditioned, network=SelfCorrecting, conditioner=JointConditioner),
    "diff2ct": _diff2ct,
    "diff2ct, correcting": partial(_diff2ct, network=SelfCorrecting),
    "axon": _bridge,
    "axon, replicated": partial(_bridge, lifting=_REPLICATED),
    "axon, implicit": partial(_bridge, lifting=_TRIPLANE),
    "axon, displacement": partial(_bridge, objective=DisplacementDenoiser),
    "axon, correcting": partial(_bridge, objective=CorrectionDenoiser, network=SelfCorrecting),
    "axon, controlled": _controlled,
}
NETWORKS = {**DIRECT, **DIFFUSION, "axon, super-resolved": _super_resolved, "refined": _refined}


def speaking(
    make: Callable[[BiplanarGeometry], nn.Module], geometry: BiplanarGeometry = GEOMETRY, seed: int = 0
) -> nn.Module:
    """A network in evaluation mode in which every branch speaks; the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make(geometry)
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return network.eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
