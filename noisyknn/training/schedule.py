"""The learning rate as a pure function of progress: nothing to save, nothing to resume."""

from noisyknn.config import Config

WARM_UP = 0.25
"""Share of a one-cycle episode in which the rate rises."""
LEAST_DONE = 0.01
"""Share of a one-cycle episode that counts as done from the start, so that no step has a rate of 0."""


def learning_rate(config: Config, epoch: int, progress: float) -> float:
    """Rate of the step that comes when `progress`, from 0 to 1, of the epoch is done.

    ``step``: divided by 10 at each of `config.drops`, epochs counted from 0. ``one-cycle`` (Smith and Topin 2019):
    linear from near 0 up to `config.lr` in the first quarter of the episode, linear down to 0 in the rest.
    """
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(epoch >= drop for drop in config.drops)
    done = (epoch + progress) / config.epochs
    return config.lr * min(max(done, LEAST_DONE) / WARM_UP, (1 - done) / (1 - WARM_UP))
