"""The overlays of `configs/methods`: each is a few lines over a full configuration and builds the network it names."""

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.diffusion.parametrisation import Epsilon
from scripts.geometry import preset
from scripts.inference.reconstruct import ReconstructionInferer, SuperResolvingInferer
from scripts.losses.objective import Objective
from scripts.networks.axon import (
    BridgeDenoiser,
    ControlledBridge,
    DisplacementDenoiser,
    TriplaneLifting,
)
from scripts.networks.correcting import SelfConsistent
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.networks.expanded import ExpandedConditioner
from scripts.networks.lifted import JointConditioner, LiftedConditioner
from scripts.networks.lifting import BackProjectedAttenuation, ReplicatedAttenuation
from scripts.networks.triplane import (
    LearnableEmbedding,
    NoEmbedding,
    ResidualFusion,
    SumFusion,
    TriplaneConditioner,
    ViewModulators,
)
from scripts.networks.upon import SuperResolved
from scripts.training.inferers import RefiningTrainingInferer

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"
ABLATIONS = {
    "ablation_no_projection": (ViewModulators, LearnableEmbedding),
    "ablation_no_modulators": (SumFusion, LearnableEmbedding),
    "ablation_no_embedding": (ViewModulators, NoEmbedding),
    "ablation_resnet_fusion": (ResidualFusion, LearnableEmbedding),
}


def configuration(*overlays: str, base: str = "train") -> ConfigParser:
    files = [CONFIGS / f"{base}.json", *(CONFIGS / "methods" / f"{name}.json" for name in overlays)]
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    return parser


def parts(network: torch.nn.Module) -> tuple[type, type]:
    kinds = {type(fusion) for fusion in network.conditioner.fusion}
    assert len(kinds) == 1
    return kinds.pop(), type(network.conditioner.embedding)


@pytest.mark.parametrize("path", sorted((CONFIGS / "methods").glob("*.json")), ids=lambda path: path.stem)
def test_an_overlay_changes_only_what_the_training_configuration_has(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40
    known = {key for base in ("train", "inference", "evaluate") for key in configuration(base=base).config}
    for below in ("axon_bridge", "refined"):  # other overlays stand on these
        known |= {key for key in json.loads((CONFIGS / "methods" / f"{below}.json").read_text()) if below != path.stem}
    text = path.read_text()
    for key in json.loads(text):
        outer = key.removeprefix("+").split("#")[0]
        assert outer in known or f'"@{outer}' in text or f"@{outer}." in text, f"{path.name} adds {outer!r}, unread"


@pytest.mark.parametrize("base", ["train", "inference"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_builds_a_network_with_its_parts_and_all_else_as_before(name: str, base: str) -> None:
    plain, parser = configuration("icm", base=base), configuration("icm", name, base=base)
    network = parser.get_parsed_content("network_def")
    assert parts(network) == ABLATIONS[name]
    assert parts(plain.get_parsed_content("network_def")) == (ViewModulators, LearnableEmbedding)
    before, after = plain.config["stage1_def"], parser.config["stage1_def"]
    assert {k: v for k, v in after.items() if k != "conditioner"} == before


@pytest.mark.parametrize("base", ["train", "inference"])
def test_the_x2ct_style_ablation_conditions_by_expansion(base: str) -> None:
    network = configuration("icm", "ablation_expanded_conditioning", base=base).get_parsed_content("network_def")
    assert type(network.conditioner) is ExpandedConditioner


def test_without_the_projection_loss_its_weight_is_zero_and_otherwise_not() -> None:
    assert configuration("icm", "ablation_no_projection").get_parsed_content("loss").projection_weight == 0
    assert configuration("icm").get_parsed_content("loss").projection_weight > 0
    assert configuration("icm", "ablation_no_modulators").get_parsed_content("loss").projection_weight > 0


@pytest.mark.parametrize("overlays", [("paper", "ablation_resnet_fusion"), ("icm", "paper", "ablation_no_modulators")])
def test_the_papers_setting_is_built_also_with_an_ablation(overlays: tuple[str, ...]) -> None:
    parser = configuration(*overlays)
    assert parser.get_parsed_content("geometry") == preset("carm", (128, 128, 128), 2.0, 256)
    assert type(parser.get_parsed_content("parametrisation")) is Epsilon
    assert parser.get_parsed_content("learning_rate") == 2e-4
    steps = len(parser.get_parsed_content("alphas_cumprod"))
    assert parser.get_parsed_content("loss").projection_weight == pytest.approx(1 / steps)
    network = parser.get_parsed_content("network_def")
    assert network.image_shape == [2, 256, 256]
    assert network.volume_shape == [1, 128, 128, 128]
    assert type(network.parametrisation) is Epsilon
    assert {m.p for m in network.denoiser.modules() if isinstance(m, torch.nn.Dropout)} == {0.2}
    assert network.denoiser.stages == 3
    assert network.denoiser.fold.patch == 1
    assert parts(network) == ABLATIONS[next(name for name in overlays if name in ABLATIONS)]


@pytest.mark.parametrize("base", ["train", "inference"])
@pytest.mark.parametrize(
    ("overlays", "conditioner"),
    [((), LiftedConditioner), (("correcting_icm",), TriplaneConditioner), (("correcting_both",), JointConditioner)],
)
def test_by_default_a_network_corrects_itself_whatever_conditions_it(base, overlays, conditioner) -> None:
    network = configuration(*overlays, base=base).get_parsed_content("network_def")
    assert type(network) is SelfConsistent
    assert type(network.conditioner) is conditioner


AXON = ("axon_bridge", "axon_control", "axon_super_resolution")


@pytest.mark.parametrize("base", ["train", "inference"])
@pytest.mark.parametrize(
    ("stages", "kind", "first"),
    [
        (1, DiffuX2CT, lambda network: network),
        (2, ControlledBridge, lambda network: network.conditioner.base),
        (3, SuperResolved, lambda network: network.base.conditioner.base),
    ],
)
def test_axons_stages_are_nested_overlays_and_the_third_doubles_the_grid(stages: int, kind, first, base: str) -> None:
    parser = configuration(*AXON[:stages], "detector_64" if stages == 3 else "grid_32", base=base)
    network = parser.get_parsed_content("network_def")
    assert type(network) is kind
    bridge = first(network)
    assert bridge.volume_shape == [1, 32, 32, 32]
    assert type(bridge.denoiser) is BridgeDenoiser and type(bridge.conditioner.spread) is BackProjectedAttenuation
    inferer = parser.get_parsed_content("network_inferer")
    assert type(inferer) is (SuperResolvingInferer if stages == 3 else ReconstructionInferer)
    assert inferer.alphas_cumprod[-1] == 0


@pytest.mark.parametrize("below", [(), ("icm",), ("diff2ct",), ("axon_bridge",)])
def test_the_refining_stage_stands_on_any_diffusion_network_and_trains_with_its_own_objective(below) -> None:
    parser = configuration(*below, "refined", "refined_256")
    assert type(parser.get_parsed_content("loss")) is Objective
    assert parser.get_parsed_content("stage1_geometry") == preset("carm", (64, 64, 64), 5.0, 128)
    assert type(parser.get_parsed_content("training_inferer")) is RefiningTrainingInferer


def test_axons_ablations_change_the_lifting_or_the_objective() -> None:
    def first(name: str) -> torch.nn.Module:
        return configuration("axon_bridge", f"ablation_axon_{name}", "grid_32").get_parsed_content("network_def")

    assert type(first("replication").conditioner.spread) is ReplicatedAttenuation
    assert type(first("triplane").conditioner) is TriplaneLifting
    assert type(first("displacement").denoiser) is DisplacementDenoiser


@pytest.mark.parametrize("name", AXON)
def test_only_axon_takes_one_view(name: str) -> None:
    overlays = AXON[: AXON.index(name) + 1]
    assert configuration(*overlays, base="inference").get_parsed_content("one_view") is True
    assert configuration(base="inference").get_parsed_content("one_view") is False
    assert configuration(*overlays).get_parsed_content("view_dropout") > 0
    assert configuration().get_parsed_content("view_dropout") == 0
