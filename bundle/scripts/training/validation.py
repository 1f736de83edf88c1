"""When a training validates."""

from __future__ import annotations

import logging

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import ValidationHandler

logger = logging.getLogger(__name__)


class ValidateEpochs(ValidationHandler):
    """MONAI's handler, which validates every ``interval`` epochs, and also after the last one.

    Otherwise a training that is shorter than the interval would end without weights.
    """

    def attach(self, engine: Engine) -> None:
        """Validate after these epochs of ``engine``."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_left_over), self)

    def _is_left_over(self, engine: Engine, epoch: int) -> bool:
        return epoch == engine.state.max_epochs and epoch % self.interval != 0


class ValidateStart:
    """Handler that validates the initial weights of a training, so that worse ones are never saved.

    Attach it after the handler that resumes: a resumed training has already validated them.
    """

    def __init__(self, validator: Evaluator) -> None:
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Validate when ``engine`` starts from scratch."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Run the validator if ``engine`` has not trained yet."""
        if engine.state.epoch == 0:
            self.validator.run()
            name, metrics = self.validator.state.key_metric_name, self.validator.state.metrics
            logger.info("before training: %s %.4f", name, metrics[name])
