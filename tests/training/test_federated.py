"""Federated learning by MONAI's client: every round starts from the server's weights, also after a restart."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.networks.utils import get_state_dict
from tests.fixtures import CONFIGS, TINY

from scripts.training.checkpoints import saved_checkpoints

Weights = dict[str, torch.Tensor]


class Site:
    """A hospital: a client with its own patients, which keeps the weights that each of its rounds starts with."""

    def __init__(self, tiny: Path, dataset_dir: Path, folder: Path, evaluates: bool = False) -> None:
        files = ["configs/train.json", str(tiny), "configs/federated.json"]
        values = {"dataset_dir": str(dataset_dir), "output_dir": str(folder), "amp": False}
        self.starts: list[Weights] = []
        self.algo = MonaiAlgo(
            str(CONFIGS.parent),
            send_weight_diff=False,
            config_train_filename=files,
            train_kwargs=values,
            config_evaluate_filename=files if evaluates else None,
            eval_kwargs=values | {"output_dir": str(folder / "global")},
            best_model_filepath=str(folder / "model.pt"),
        )
        self.algo.initialize({ExtraItems.CLIENT_NAME: folder.name})
        self.algo.trainer.add_event_handler(Events.STARTED, self._remember)

    def _remember(self) -> None:
        self.starts.append(copied(self.weights))

    @property
    def weights(self) -> Weights:
        return get_state_dict(self.algo.trainer.network)

    def round(self, weights: Weights) -> Weights:
        """Train on the server's weights and return the site's own."""
        self.algo.train(ExchangeObject(weights=weights))
        return copied(self.algo.get_weights().weights)

    def psnr(self, weights: Weights) -> float:
        """PSNR3D in dB on the site's validation patients."""
        return self.algo.evaluate(ExchangeObject(weights=weights)).metrics["val_psnr3d"]


def copied(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}


def average(sites: Sequence[Weights]) -> Weights:
    return {name: torch.stack([site[name] for site in sites]).mean(0) for name in sites[0]}


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def mean_psnr(sites: Sequence[Site], weights: Weights) -> float:
    """PSNR3D in dB over the patients of all sites, which have equally many."""
    return sum(site.psnr(weights) for site in sites) / len(sites)


@pytest.fixture
def sites(tiny, dataset_dir, prepared, tmp_path):
    """Two sites, and a way to open one of them again."""
    splits = {"train": ["f", "g"], "val": ["h"]}
    data = [dataset_dir, prepared(tmp_path / "data", splits, first_seed=9)]
    return lambda number, **options: Site(tiny, data[number], tmp_path / f"site{number}", **options)


def test_every_round_starts_from_the_servers_weights_bit_for_bit(sites):
    clients = [sites(0), sites(1)]
    weights = sent = copied(clients[0].weights)
    for number in range(3):
        returned = [client.round(weights) for client in clients]
        assert all(same(client.starts[number], sent) for client in clients)
        assert not any(same(site, sent) for site in returned)
        weights = sent = average(returned)
    assert [client.algo.trainer.state.epoch for client in clients] == [3, 3]
    best = clients[0].algo.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
    assert best.keys() == weights.keys()

    again = sites(0)  # as after a crash
    again.round(weights)
    assert same(again.starts[0], sent)
    assert again.algo.trainer.state.epoch == 4
    assert saved_checkpoints(Path(again.algo.train_kwargs["output_dir"]) / "checkpoints")[-1].stem.endswith("=4")


@pytest.mark.slow
def test_evaluation_measures_the_servers_weights_whatever_the_site_has_trained(sites):
    site = sites(0, evaluates=True)
    sent = copied(site.weights)
    before, own = site.psnr(sent), site.round(sent)
    assert site.psnr(sent) == before != site.psnr(own)


@pytest.mark.slow
def test_the_average_beats_each_site_alone_on_the_patients_of_both(overlay, prepared, tmp_path):
    """One site's patients have denser tissue, so that each site alone learns half of what there is."""

    def denser(hu: torch.Tensor) -> torch.Tensor:
        return torch.where(hu > -300, hu + 150, hu)

    rounds, splits = 3, {"train": ["a", "b"], "val": ["c", "d", "e"]}
    config = overlay(TINY | {"iterations_per_epoch": 100, "learning_rate": 1e-3, "planned_epochs": rounds})
    data = [
        prepared(tmp_path / "usual", splits),
        prepared(tmp_path / "dense", splits, first_seed=10, change=denser),
    ]
    clients = [Site(config, folder, tmp_path / f"client{i}", evaluates=True) for i, folder in enumerate(data)]
    start = weights = copied(clients[0].weights)
    for _ in range(rounds):
        weights = average([client.round(weights) for client in clients])
    alone = []
    for number, folder in enumerate(data):
        site, own = Site(config, folder, tmp_path / f"alone{number}"), start
        for _ in range(rounds):
            own = site.round(own)
        alone.append(mean_psnr(clients, own))
    federated = mean_psnr(clients, weights)
    print(f"federated {federated:.2f} dB, alone {alone[0]:.2f} and {alone[1]:.2f} dB")
    assert federated > max(alone) + 0.1
