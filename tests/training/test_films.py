"""``methods/films.json``: any method is trained on films by one more overlay, and on the same ones every time."""

from pathlib import Path

import pytest
import torch

METHODS = Path(__file__).parents[2] / "bundle" / "configs" / "methods"
X2CT = {"channels": 8, "dense_layers": [1, 1], "growth": 4, "bottleneck": 8, "decoder_channels": [8, 8, 8]}
SMALL_GAN = {f"network_def#{key}": value for key, value in X2CT.items()} | {"discriminator#channels": 4}


@pytest.mark.parametrize("method", [[], ["direct", "x2ct_cnn", "x2ct_gan"]], ids=["diffusion", "adversarial"])
def test_a_method_is_trained_on_films(method, workflow, overlay, tmp_path):
    files = [METHODS / f"{name}.json" for name in [*method, "films"]]
    workflow(*files, overlay(SMALL_GAN if method else {}), max_epochs=1).run()
    weights = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_images_differ_from_radiographs_and_follow_the_seed(workflow):
    made, plain = workflow(METHODS / "films.json"), workflow()
    batch, images = {"hu": torch.rand(2, 1, 16, 16, 16) * 2000 - 1000}, []
    films, radiographs = (w.parser.get_parsed_content("train#prepare_batch") for w in (made, plain))
    for seed, chosen in ((1, films), (1, films), (2, films), (1, radiographs)):
        torch.manual_seed(seed)
        images.append(chosen(batch, torch.device("cpu"))[0])
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2], atol=0.01) and not torch.allclose(images[0], images[3], atol=0.01)
