"""The tables of a prepared data set: a split is what they list, and nothing is left out in silence."""

import json

import pytest
from tests.refusal import refused

from scripts.cases.manifest import case_folders


@pytest.fixture
def dataset(tmp_path):
    """A data set whose training cases are not there."""
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["b", "a"], "val": ["v"], "test": []}))
    return tmp_path


def test_a_split_lists_its_own_cases_in_order_whether_they_exist_or_not(dataset):
    assert case_folders(dataset, "train") == [dataset / "cases" / name for name in "ba"]
    assert case_folders(dataset, "val") == [dataset / "cases" / "v"]


def test_an_unknown_split_is_refused(dataset):
    with refused(ValueError, "train, val, test", "--split", "'vla'"):
        case_folders(dataset, "vla")


def test_an_empty_split_is_refused(dataset):
    with refused(ValueError, "splits.json", "'test'", "no case"):
        case_folders(dataset, "test")


def test_a_folder_that_is_no_prepared_data_set_is_refused(tmp_path):
    with refused(ValueError, "splits.json", "not found", "prepare.json"):
        case_folders(tmp_path, "val")
