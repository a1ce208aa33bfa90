"""Learning rate and image size as pure functions of progress: nothing to save, nothing to resume."""

from noisyknn.config import Config

WARM_UP = 0.25
"""Share of a one-cycle episode during which the rate rises."""
LEAST_DONE = 0.01
"""Share of a one-cycle episode that counts as done from the start, so that no step has a rate of 0."""

CYCLE = 10
"""Epochs of a cycle."""

SMALLER = ((0.4, 0.5), (0.75, 0.75))
"""Stages of a progressive episode: share of its epochs at which each ends, in whole epochs, and share of the size."""
PROGRESSIVE_COST = 0.57
"""Average time of an epoch in a progressive episode, relative to an epoch with full-size images."""
LEAST_PIXELS = 8
"""Smallest height and width that images are shrunk to."""


def image_size(config: Config, epoch: int, epochs: int) -> int:
    """Height and width in pixels of the network's input in the epoch of index `epoch`, of `epochs`.

    Progressive resizing (Howard 2018; Tan and Le 2021): the network learns coarse features from small images, in a
    fraction of the time, and sees full-size images in the last epochs.
    """
    if not config.progressive:
        return config.image_size
    share = next((share for until, share in SMALLER if epoch + 1 <= until * epochs), 1.0)
    return _scaled(config.image_size, share)


def smaller_sizes(config: Config) -> list[int]:
    """Reduced heights and widths in pixels of the first epochs, ascending; empty if images keep their size."""
    sizes = {_scaled(config.image_size, share) for _, share in SMALLER} if config.progressive else set()
    return sorted(sizes - {config.image_size})


def _scaled(size: int, share: float) -> int:
    return min(max(round(size * share / 4) * 4, LEAST_PIXELS), size)


def cyclic_rate(config: Config, epoch: int, progress: float) -> float:
    """`learning_rate` for the first `config.epochs`, then one cycle: linearly from `config.lr` to a tenth of it.

    The cycle of O2U-Net (Huang et al. 2019), whose 0.01 and 0.001 are the rate before the cycle and a tenth of it.
    """
    if epoch < config.epochs:
        return learning_rate(config, epoch, progress)
    done = (epoch - config.epochs) / (CYCLE - 1)
    return config.lr * (1 - 0.9 * done)


def stretched(epochs: int, factor: float) -> int:
    """`factor` times as many epochs, at least one."""
    return max(1, round(epochs * factor))


def learning_rate(config: Config, epoch: int, progress: float, stretch: float = 1.0) -> float:
    """Learning rate when `progress`, from 0 to 1, of the epoch is done; `stretch` multiplies the configured epochs.

    ``step``: divided by 10 at each of `config.drops`, epochs counted from 0. ``one-cycle`` (Smith and Topin 2019):
    rises linearly from near 0 to `config.lr` in the first quarter of the episode, then falls linearly to 0.
    """
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(epoch >= stretched(drop, stretch) for drop in config.drops)
    done = (epoch + progress) / stretched(config.epochs, stretch)
    return config.lr * min(max(done, LEAST_DONE) / WARM_UP, (1 - done) / (1 - WARM_UP))
