"""When a training validates: every so many epochs, and at the end."""

from unittest.mock import create_autospec

import pytest
from ignite.engine import Engine
from monai.engines import Evaluator

from scripts.training.validation import ValidateEpochs


@pytest.mark.parametrize(
    ("interval", "epochs", "expected"), [(10, 5, [5]), (2, 5, [2, 4, 5]), (1, 2, [1, 2]), (5, 5, [5])]
)
def test_the_last_epoch_is_always_validated_and_none_twice(interval, epochs, expected):
    validator, engine = create_autospec(Evaluator, instance=True), Engine(lambda *_: None)
    ValidateEpochs(interval, validator).attach(engine)
    engine.run([0], max_epochs=epochs)
    assert [run.args for run in validator.run.call_args_list] == [(epoch,) for epoch in expected]
