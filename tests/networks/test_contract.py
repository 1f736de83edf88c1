"""What binds every network to the geometry that it was trained for; a new one joins in `factories`."""

import dataclasses
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import product

import pytest
import torch
from tests.networks.factories import GEOMETRY, IMAGE_SHAPE, NETWORKS, VOLUME_SHAPE, normal, speaking
from tests.refusal import refused
from torch import Tensor, nn

from scripts import networks
from scripts.geometry import BiplanarGeometry, preset
from scripts.inference.weights import load_weights
from scripts.networks.contract import GeometryBound, geometry_fingerprint
from scripts.networks.error_scale import ErrorScale

OTHERS = {
    "farther source": dataclasses.replace(GEOMETRY, source_to_isocentre_mm=786.0),
    "other side": dataclasses.replace(GEOMETRY, lateral_source="left"),
    "finer voxels": GEOMETRY.with_volume(GEOMETRY.volume_shape, 19.0),
}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def make(request) -> Callable[[BiplanarGeometry], GeometryBound]:
    return request.param


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def assert_same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(state) == list(expected)
    assert [name for name in state if not torch.equal(state[name], expected[name])] == []


def test_every_network_that_is_bound_to_a_geometry_obeys_these_laws() -> None:
    rooms = [import_module(f"scripts.networks.{module.name}") for module in pkgutil.iter_modules(networks.__path__)]
    kinds = {kind for room in rooms for _, kind in inspect.getmembers(room, inspect.isclass)}
    bound = {kind for kind in kinds if issubclass(kind, GeometryBound)} - {GeometryBound}
    reads_volumes = {ErrorScale}  # no reconstruction network; see test_error_scale.py
    assert bound - reads_volumes == {type(make(GEOMETRY)) for make in NETWORKS.values()}


def test_its_shapes_are_the_geometrys_and_its_fingerprint_travels_in_the_weights(make) -> None:
    network = make(GEOMETRY)
    assert (network.image_shape, network.volume_shape) == (list(IMAGE_SHAPE), list(VOLUME_SHAPE))
    assert torch.equal(network.state_dict()["geometry"], geometry_fingerprint(GEOMETRY))


@torch.no_grad()
def test_weights_return_bit_for_bit_to_a_network_of_their_geometry(make) -> None:
    trained, fresh, image = speaking(make), speaking(make, seed=1), normal(1, *IMAGE_SHAPE)
    assert not torch.equal(fresh(image), trained(image))
    fresh.load_state_dict(trained.state_dict())
    assert_same(fresh.state_dict(), trained.state_dict())
    assert torch.equal(fresh(image), trained(image))


def test_a_parallel_beam_whose_distances_are_infinite_is_a_geometry_as_any_other(make, tmp_path) -> None:
    parallel = preset("parallel", GEOMETRY.volume_shape, 20.0, 16)
    trained, fresh = make(parallel), make(parallel)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    assert_same(load_weights(fresh, tmp_path / "model.pt").state_dict(), trained.state_dict())
    with pytest.raises(RuntimeError, match="weights trained for geometry"):
        make(GEOMETRY).load_state_dict(trained.state_dict())


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_weights_of_another_geometry_are_refused_and_change_nothing(make, other) -> None:
    network, theirs = make(GEOMETRY), make(other).state_dict()
    before = copied(network.state_dict())
    with pytest.raises(RuntimeError) as error:
        network.load_state_dict(theirs, strict=False)
    message = str(error.value)
    assert str(geometry_fingerprint(GEOMETRY).tolist()) in message
    assert str(geometry_fingerprint(other).tolist()) in message
    assert "geometry" in message and "build" in message
    assert_same(network.state_dict(), before)


def test_all_weights_are_loaded_or_none_whatever_strict_says(make) -> None:
    network, whole = make(GEOMETRY), make(GEOMETRY).state_dict()
    last = list(whole)[-1]
    partial = {name: value + 1 for name, value in whole.items() if name not in (last, "geometry")}
    before = copied(network.state_dict())
    states = ({}, partial, {**whole, "unknown": whole[last]}, {**whole, last: whole[last][None]})
    for state, strict, assign in product(states, (True, False), (True, False)):
        with pytest.raises(RuntimeError, match=r"unknown|geometry|size mismatch"):
            network.load_state_dict(state, strict=strict, assign=assign)
        assert_same(network.state_dict(), before)


def test_a_wrapper_around_a_network_refuses_another_geometry_too(make) -> None:
    wrapper, theirs = nn.ModuleDict({"module": make(GEOMETRY)}), make(OTHERS["other side"]).state_dict()
    with pytest.raises(RuntimeError, match="weights trained for geometry"):
        wrapper.load_state_dict({f"module.{name}": value for name, value in theirs.items()})
    assert torch.equal(wrapper["module"].geometry, geometry_fingerprint(GEOMETRY))


def test_an_image_of_another_shape_is_refused(make) -> None:
    network = make(GEOMETRY)
    for shape in [(1, 2, 16, 8), (1, 1, 16, 16), (2, 16, 16), (1, 2, 32, 32)]:
        with refused(ValueError, "images", "[2, 16, 16]", f"got {list(shape)}", "resample"):
            network(torch.zeros(shape))


def test_the_fingerprint_tells_every_field_of_a_geometry() -> None:
    changes = {
        "source_to_isocentre_mm": 800.0,
        "source_to_detector_mm": 1300.0,
        "detector_pixels": 32,
        "detector_spacing_mm": 1.0,
        "volume_shape": (8, 8, 16),
        "volume_spacing_mm": 10.0,
        "frontal_source": "posterior",
        "lateral_source": "left",
    }
    assert changes.keys() == {field.name for field in dataclasses.fields(BiplanarGeometry)}
    fingerprint = geometry_fingerprint(GEOMETRY)
    assert fingerprint.dtype == torch.float64
    assert fingerprint[:4].tolist() == [785.0, 1200.0, 16, pytest.approx(GEOMETRY.detector_spacing_mm)]
    assert fingerprint[4:].tolist() == [16, 16, 16, 20.0, 1, 1]
    for name, value in changes.items():
        assert not torch.equal(geometry_fingerprint(dataclasses.replace(GEOMETRY, **{name: value})), fingerprint)
