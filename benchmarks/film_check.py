"""How often the shipped check notices films that are the wrong way round (docs/radiographs.md).

    PYTHONPATH=bundle python benchmarks/film_check.py --dataset_dir DATA --split test

DATA is the output of `prepare.json`. The films of random views of the split's patients are simulated four times: as the
network's own radiographs; with random errors of pose; with the effects of real films as well; and processed for
display. Each pair is checked as it is, and with one of its films flipped or turned, by `inference.json`'s own check.
The table gives the share of pairs with a warning about the changed film, with the right warning, and with one about the
other.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch import Tensor
from tqdm import tqdm

from scripts.data.datasets import RandomViews
from scripts.data.film_effects import RandomFilms
from scripts.exam.familiarity import read_reference
from scripts.exam.film_check import CheckFilms
from scripts.exam.orientation import FLIPS, HYPOTHESES, TURNS
from scripts.geometry import VIEWS
from scripts.intensity import hu_to_mu

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"


def pairs_of(options: argparse.Namespace) -> Iterator[tuple[str, Tensor]]:
    """Yield simulated pairs ``[2, N, N]`` of line integrals with the name of what they are."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "orientation.json")])
    parser["dataset_dir"] = options.dataset_dir
    parser["patients"][options.split]["seed"] = options.seed
    views: RandomViews = parser.get_parsed_content(f"patients#{options.split}")
    exact, posed = parser.get_parsed_content("train#projector"), parser.get_parsed_content("run#4#projector")
    geometry = views.geometry
    reference = read_reference(CONFIGS.parent / "models" / "radiographs.json")
    films, displayed = RandomFilms(geometry), RandomFilms(geometry, displayed=1.0, reference=reference)
    for number, patient in enumerate(tqdm(views.patients.sources, "patients", unit="patient")):
        for view in range(options.views):
            item = number * options.views + view
            generator = torch.Generator().manual_seed(options.seed * 1_000_003 + item)
            torch.manual_seed(item)
            mu = hu_to_mu(views.draw([patient(item)], [generator]))
            moved = posed(mu)
            yield "exact", exact(mu)[0]
            yield "wrong poses", moved[0]
            yield "and film effects", films.draw(1, torch.default_generator)(moved)[0]
            yield "for display", displayed.draw(1, torch.default_generator)(moved)[0]


class Remembered:
    """Misfits that are found once for each pair of films; pairs with one or two changed films come back often."""

    def __init__(self, misfit: Callable[[Tensor], Tensor]) -> None:
        self.misfit = misfit
        self.found: dict[bytes, float] = {}

    def __call__(self, films: Tensor) -> Tensor:
        """Return the misfits ``[B]`` of ``films [B, 2, N, N]``."""
        keys = [pair.numpy().tobytes() for pair in films]
        new = [number for number, key in enumerate(keys) if key not in self.found]
        if new:
            self.found |= zip((keys[number] for number in new), self.misfit(films[new]).tolist(), strict=True)
        return torch.tensor([self.found[key] for key in keys])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--views", type=int, default=10, help="random views of each patient")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    inference = ConfigParser()
    inference.read_config(str(CONFIGS / "inference.json"))
    inference["grid_factor"] = 1
    checker: CheckFilms = inference.get_parsed_content("film_checker")
    counts: Counter[tuple[str, str, str]] = Counter()
    for name, pair in pairs_of(options):
        misfit = Remembered(checker.misfit)
        for mistaken in range(len(VIEWS)):
            for number in (0, *FLIPS, *TURNS):
                films = pair.clone()
                films[mistaken] = HYPOTHESES[number].undo(pair[mistaken])
                said = checker.check.warnings(films.numpy(), checker.geometry, {}, VIEWS, misfit)
                own = [text for text in said if text.startswith(VIEWS[mistaken])]
                row = name, VIEWS[mistaken], HYPOTHESES[number].words or "none"
                counts[(*row, "pairs")] += 1
                counts[(*row, "warned")] += bool(own) or any("exchanged" in text for text in said)
                counts[(*row, "named")] += any(f"looks {HYPOTHESES[number].words};" in text for text in own)
                counts[(*row, "other")] += len(said) > len(own)
    print("films, view, mistake, pairs, warned, named, warned of the other film")
    for row in dict.fromkeys(key[:3] for key in counts):
        pairs = counts[(*row, "pairs")]
        print(*row, pairs, *(f"{counts[(*row, what)] / pairs:.3f}" for what in ("warned", "named", "other")), sep=", ")


if __name__ == "__main__":
    main()
