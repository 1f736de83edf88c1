"""An exam travels with its image through MONAI's collation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from pydicom.dataset import Dataset as Header

from scripts.exam.acquisition import acquisitions_of
from scripts.exam.exam import Exam, FilmFile, ViewInput, exam_of, to_meta
from scripts.geometry import VIEWS, preset

HEADER = Header()
HEADER.PatientID = "one"


def acquired(geometry):
    film = FilmFile("a/frontal.dcm", None, (70, 80), "counts")
    taken = acquisitions_of(geometry)
    inputs = [ViewInput(taken["frontal"], 0.25, 1.0, ("one", "two"), film), ViewInput(taken["lateral"], 0.0, 0.5, ())]
    return Exam(
        name="demo",
        views=VIEWS,
        affine=geometry.volume_affine(),
        files={"a/frontal.dcm": "digest"},
        options={"acquisition": {"centre": [1, 2]}},
        inputs=dict(zip(VIEWS, inputs, strict=True)),
        headers={"frontal": HEADER},
        is_lossy=True,
        truth="ct.nii.gz",
        truth_sha256="digest of it",
        warnings=("beware",),
        films={"lateral": np.arange(12.0).reshape(3, 4)},
    )


def collated(image):
    (batch,) = DataLoader(Dataset([{"image": image}]), batch_size=1)
    return decollate_batch(batch)[0]["image"]


@pytest.mark.parametrize("travel", [lambda image: image, collated])
@pytest.mark.parametrize("name", ["carm", "parallel"])
def test_every_field_is_the_same_after_the_journey(name, travel):
    exam = acquired(preset(name, (8, 8, 8), 40.0, 12))
    found = exam_of(travel(MetaTensor(torch.zeros(2, 12, 12), meta=to_meta(exam))))
    plain = [field for field in vars(exam) if field not in ("affine", "films")]
    assert {field: getattr(found, field) for field in plain} == {field: getattr(exam, field) for field in plain}
    np.testing.assert_array_equal(found.affine, exam.affine)
    assert list(found.films) == ["lateral"]
    np.testing.assert_array_equal(found.films["lateral"], exam.films["lateral"])


def test_an_exam_without_films_has_none_after_the_journey():
    exam = Exam("case", ("frontal",), np.eye(4), {"geometry.json": "digest"})
    found = exam_of(collated(MetaTensor(torch.zeros(2, 12, 12), meta=to_meta(exam))))
    assert (found.films, found.inputs, found.headers, found.truth) == ({}, {}, {}, None)


def test_a_parallel_beam_stays_at_infinity():
    given = acquired(preset("parallel", (8, 8, 8), 40.0, 12)).inputs["frontal"]
    assert ViewInput.from_dict(given.to_dict() | {"source_to_isocentre_mm": "inf"}) == given
    assert given.acquisition.source_to_isocentre_mm == math.inf


def test_exams_with_other_films_travel_together():
    first, second = acquired(preset("carm", (8, 8, 8), 40.0, 12)), Exam("b", VIEWS, np.eye(4), {"b": "digest"})
    second = replace(second, films={"frontal": np.ones((5, 6), np.uint8), "lateral": np.zeros((7, 8))})
    items = [{"image": MetaTensor(torch.zeros(2, 12, 12), meta=to_meta(exam))} for exam in (first, second)]
    (batch,) = DataLoader(Dataset(items), batch_size=2)
    for exam, item in zip((first, second), decollate_batch(batch), strict=True):
        found = exam_of(item["image"])
        assert (found.name, found.files, found.headers) == (exam.name, exam.files, exam.headers)
        assert found.films.keys() == exam.films.keys()
        assert all(np.array_equal(found.films[view], exam.films[view]) for view in exam.films)
        assert all(found.films[view].dtype == exam.films[view].dtype for view in exam.films)
