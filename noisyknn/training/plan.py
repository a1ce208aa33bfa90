"""Plans: how one network is trained, made by small functions from the configuration.

Shapes: N samples, R samples that are learnt, B samples of a batch, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.models.backbone import Backbone
from noisyknn.training.losses import LossFn, cross_entropy, expected_loss, mixed_loss, symmetric_cross_entropy
from noisyknn.training.schedule import learning_rate, stretched

Rate = Callable[[int, float], float]
"""Learning rate of the step that comes when a share, from 0 to 1, of the epoch of that index is done."""


class Objective(ABC):
    """What a network is trained towards; it may learn as the network does."""

    state: Mapping[str, Tensor] = {}
    """All that the objective has learnt so far, changed in place: checkpoints keep it."""

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027  # most objectives stay the same
        """Get ready for the epoch of that index."""

    @abstractmethod
    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Training losses (B,) and the losses (B,) to track, from float32 logits (B, C) of samples (B,)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one network is trained."""

    episode: int
    """Index of the episode, from 0; that of the final training is the number of episodes."""
    rows: Tensor
    """(R,) the samples that it learns from."""
    objective: Objective
    epochs: int
    rate: Rate
    tracked_from: int = 0
    """Index of the epoch from which losses accumulate."""
    start: Backbone | None = None
    """The network to continue training, which is changed; one with its initial weights if not given."""
    after_epoch: Callable[[int, Backbone, Tensor], None] = lambda *_: None
    """Called after each epoch with its index, the network and the cumulative losses (N,)."""


@dataclass(frozen=True)
class Eq7(Objective):
    """The paper's Eq. 7: (1 - γ) · J(ŷ) + γ · J(ỹ); it tracks J(ŷ)."""

    labels: Tensor
    """(N,) current labels ŷ."""
    given: Tensor
    """(N,) given labels ỹ; the current label where none was given."""
    gamma: float
    loss: LossFn

    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """As `Objective`."""
        return mixed_loss(logits, self.labels[samples], self.given[samples], self.gamma, self.loss)


@dataclass(frozen=True)
class SoftTargets(Objective):
    """The expected loss where each sample may belong to several classes; it tracks the loss of the given label."""

    targets: Callable[[Tensor], Tensor]
    """Probabilities of the classes (B, C) of samples (B,)."""
    given: Tensor
    """(N,) given labels, -1 for none: there the expected loss is tracked."""
    loss: LossFn

    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """As `Objective`."""
        given, expected = self.given[samples], expected_loss(logits, self.targets(samples), self.loss)
        return expected, torch.where(given >= 0, self.loss(logits, given.clamp_min(0)), expected)


def eq7_plan(config: Config, given: Tensor, labels: Tensor, gamma: float, episode: int) -> Plan:
    """Train on Eq. 7 with current labels (N,), -1 for a sample that is left out, and given labels (N,), -1 for none."""
    return Plan(
        episode=episode,
        rows=torch.nonzero(labels >= 0)[:, 0],
        objective=Eq7(labels, torch.where(given >= 0, given, labels), gamma, configured_loss(config)),
        epochs=config.epochs,
        rate=partial(learning_rate, config),
    )


def soft_target_plan(
    config: Config,
    given: Tensor,
    rows: Tensor,
    targets: Callable[[Tensor], Tensor],
    episode: int,
    *,
    robust: bool,
    stretch: float,
) -> Plan:
    """Train the samples `rows` (R,) towards probabilities (B, C), which `targets` gives for samples (B,).

    `robust` takes the configured loss, for targets that are labels as given; otherwise cross-entropy. There are
    `stretch` times the configured epochs, and the schedule keeps its shape.
    """
    return Plan(
        episode=episode,
        rows=rows,
        objective=SoftTargets(targets, given, configured_loss(config) if robust else cross_entropy),
        epochs=stretched(config.epochs, stretch),
        rate=partial(learning_rate, config, stretch=stretch),
    )


def configured_loss(config: Config) -> LossFn:
    """The loss J that the configuration names."""
    if config.loss == "ce":
        return partial(cross_entropy, label_smoothing=config.label_smoothing)
    return partial(
        symmetric_cross_entropy,
        alpha=config.alpha,
        beta=config.beta,
        log_zero=config.log_zero,
        label_smoothing=config.label_smoothing,
    )
