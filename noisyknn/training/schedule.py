"""Learning rate and image size as pure functions of progress: nothing to save, nothing to resume."""

from noisyknn.config import Config

WARM_UP = 0.25
"""Share of a one-cycle episode in which the rate rises."""
LEAST_DONE = 0.01
"""Share of a one-cycle episode that counts as done from the start, so that no step has a rate of 0."""

CYCLE = 10
"""Epochs of a cycle."""

SMALLER = ((0.4, 0.5), (0.75, 0.75))
"""Up to which share of a progressive episode images are of which share of their size, counted in whole epochs."""
PROGRESSIVE_COST = 0.57
"""Time of a progressive episode's epoch, on average, beside one of images of full size."""
LEAST_PIXELS = 8
"""Height and width below which no image is made smaller."""


def image_size(config: Config, epoch: int, epochs: int) -> int:
    """Height and width in pixels of what the network sees in that epoch of so many.

    Progressive resizing (Howard 2018; Tan and Le 2021): what is coarse is learnt from small images, in a fraction of
    the time, and the last epochs see images as they are.
    """
    if not config.progressive:
        return config.image_size
    share = next((share for until, share in SMALLER if epoch + 1 <= until * epochs), 1.0)
    return _scaled(config.image_size, share)


def smaller_sizes(config: Config) -> list[int]:
    """Heights and widths in pixels of images with which an episode may begin, where these are not all of one size."""
    sizes = {_scaled(config.image_size, share) for _, share in SMALLER} if config.progressive else set()
    return sorted(sizes - {config.image_size})


def _scaled(size: int, share: float) -> int:
    return min(max(round(size * share / 4) * 4, LEAST_PIXELS), size)


def cyclic_rate(config: Config, epoch: int, progress: float) -> float:
    """That of `learning_rate` until `config.epochs` are done, then a cycle: from `config.lr` linearly to a tenth.

    O2U-Net's (Huang et al. 2019), whose 0.01 and 0.001 are the rate before the cycle and a tenth of it.
    """
    if epoch < config.epochs:
        return learning_rate(config, epoch, progress)
    done = (epoch - config.epochs) / (CYCLE - 1)
    return config.lr * (1 - 0.9 * done)


def stretched(epochs: int, factor: float) -> int:
    """That many times as many epochs, one at least."""
    return max(1, round(epochs * factor))


def learning_rate(config: Config, epoch: int, progress: float, stretch: float = 1.0) -> float:
    """Rate of the step that comes when `progress`, from 0 to 1, of the epoch is done, of `stretch` times as many.

    ``step``: divided by 10 at each of `config.drops`, epochs counted from 0. ``one-cycle`` (Smith and Topin 2019):
    linear from near 0 up to `config.lr` in the first quarter of the episode, linear down to 0 in the rest.
    """
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(epoch >= stretched(drop, stretch) for drop in config.drops)
    done = (epoch + progress) / stretched(config.epochs, stretch)
    return config.lr * min(max(done, LEAST_DONE) / WARM_UP, (1 - done) / (1 - WARM_UP))
