"""An early warning when one side of an adversarial game has won."""

import logging
from collections.abc import Mapping

LINES = 10
"""Logged lines in a row without an error of the discriminator, until it is said."""
SURE = 0.99
"""Share of logits on the right side from which no error is seen."""


class Balance:
    """Follows the metrics of `seqjax.ops.gan.health` from line to line, and says once when a discriminator wins.

    A discriminator that is never wrong leaves the generator hardly any gradient. It is a warning and no end: some
    losses and critics recover, and relativistic ones have no right side.
    """

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}

    def watch(self, step: int, figures: Mapping[str, float]) -> None:
        """The metrics of a logged step, by name."""
        for name in figures:
            if "real_accuracy" not in name:
                continue
            both = (figures[name], figures[name.replace("real_accuracy", "fake_accuracy")])
            self._lines[name] = self._lines.get(name, 0) + 1 if min(both) >= SURE else 0
            if self._lines[name] == LINES:
                logging.getLogger(__name__).warning(
                    "step %d: %s and its fake_accuracy have been %.2f or more in %d logged lines: the discriminator "
                    "wins, and the generator learns little from it. A penalty on its slope, augmentation of what it "
                    "sees, or a lower learning rate of its own may help.",
                    step,
                    name,
                    SURE,
                    LINES,
                )
