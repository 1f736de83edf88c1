"""``methods/films.json``: any method is trained on films by one more overlay, and on the same ones every time."""

from pathlib import Path

import pytest
import torch
from tests.refusal import refused

from scripts.training.prepare_batch import SomeExams

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
    made, plain = workflow(METHODS / "films.json", film_share=1.0), workflow()
    batch, images = {"hu": torch.rand(2, 1, 16, 16, 16) * 2000 - 1000}, []
    films, radiographs = (w.parser.get_parsed_content("train#prepare_batch") for w in (made, plain))
    for seed, chosen in ((1, films), (1, films), (2, films), (1, radiographs)):
        torch.manual_seed(seed)
        images.append(chosen(batch, torch.device("cpu"))[0])
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2], atol=0.01) and not torch.allclose(images[0], images[3], atol=0.01)


def test_the_share_of_films_is_that_asked_for_and_the_rest_stays_as_it_is():
    image, film = torch.zeros(1000, 2, 3, 3), torch.ones(1000, 2, 3, 3)
    torch.manual_seed(0)
    made = SomeExams(torch.ones_like, 0.3)(image)
    is_film = made.flatten(1).mean(1)
    assert set(is_film.tolist()) == {0.0, 1.0} and 0.26 < is_film.mean() < 0.34
    for share, all_of in ((0, image), (1, film)):
        assert torch.equal(SomeExams(torch.ones_like, share)(image), all_of)
    for wrong in (-0.1, 1.1):
        with refused(ValueError, "share of films", str(wrong)):
            SomeExams(torch.ones_like, wrong)


def test_films_of_another_field_need_their_own_values_or_none(workflow, overlay):
    wider = overlay({"geometry#detector_spacing_mm": 60.0})
    with pytest.raises(Exception, match="film"):
        workflow(METHODS / "films.json", wider).parser.get_parsed_content("train#prepare_batch")
    workflow(METHODS / "films.json", wider, film_reference="").parser.get_parsed_content("train#prepare_batch")
