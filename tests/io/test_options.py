"""Options as Fire leaves them: numbers, booleans, and strings for all else."""

import math

import numpy as np
import pytest
import torch
from tests.refusal import refused

from scripts.io.options import SEEDS, as_bool, require_number, require_seed, require_whole


@pytest.mark.parametrize(("given", "meant"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_a_switch_is_understood_in_python_and_in_json(given, meant):
    assert as_bool(given) is meant


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_what_is_no_switch_is_refused(value):
    with refused(ValueError, "switch", "true or false", "got"):
        as_bool(value)


@pytest.mark.parametrize("value", [0, -1, np.int64(3), 0.1, np.float32(0.5), math.inf])
def test_numbers_pass_and_whole_ones_where_they_are_asked_for(value):
    require_number(val=value)
    if isinstance(value, float | np.floating):
        with refused(ValueError, "--seed", "whole number", "got"):
            require_whole(seed=value)
    else:
        require_whole(seed=value)


@pytest.mark.parametrize("value", ["abc", "1", None, True, [1], 1.0])
def test_what_is_no_whole_number_is_refused_by_name(value):
    with refused(ValueError, "--seed", "whole number", "got"):
        require_whole(steps=1, seed=value)


@pytest.mark.parametrize("value", ["abc", "0.1", None, False, [0.1]])
def test_what_is_no_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match="--val takes a number, got"):
        require_number(test=0.1, val=value)


@pytest.mark.parametrize("value", [-1, SEEDS, 99999999999999999999999, pytest.param(10**10_000, id="long")])
def test_what_no_generator_takes_is_refused_by_name(value):
    for seed in (0, SEEDS - 1):
        require_seed(seed=seed)
        torch.manual_seed(seed), np.random.seed(seed)
    with refused(ValueError, "--seed", "0 to 4294967295", "got"):
        require_seed(seed=value)
    with refused(ValueError, "--seed", "whole number", "'x'"):
        require_seed(seed="x")
