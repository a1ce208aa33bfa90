"""Plans: how to train one network. Small functions make them from the configuration.

Shapes: N samples, R training samples, B samples of a batch, C classes.
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
"""Learning rate of a step, from the epoch's index and the share of that epoch, 0 to 1, that is done."""


class Objective(ABC):
    """What a network is trained on; it may change during training."""

    state: Mapping[str, Tensor] = {}
    """Everything that changes, updated in place; checkpoints save it."""

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027  # most objectives stay the same
        """Prepare for the epoch with this index."""

    @abstractmethod
    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Training losses (B,) and the losses (B,) to track, from float32 logits (B, C) of samples (B,)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one network is trained."""

    episode: int
    """Index of the episode, from 0; for the final training, the number of episodes."""
    rows: Tensor
    """(R,) samples to train on."""
    objective: Objective
    epochs: int
    rate: Rate
    tracked_from: int = 0
    """Index of the epoch from which losses accumulate."""
    start: Backbone | None = None
    """The network to continue training, in place; None starts from the initial weights."""
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
        """See `Objective`."""
        return mixed_loss(logits, self.labels[samples], self.given[samples], self.gamma, self.loss)


@dataclass(frozen=True)
class SoftTargets(Objective):
    """The expected loss under soft labels; it tracks the loss of the given label."""

    targets: Callable[[Tensor], Tensor]
    """Class probabilities (B, C) of samples (B,)."""
    given: Tensor
    """(N,) given labels, -1 for none; such a sample tracks its expected loss."""
    loss: LossFn

    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        given, expected = self.given[samples], expected_loss(logits, self.targets(samples), self.loss)
        return expected, torch.where(given >= 0, self.loss(logits, given.clamp_min(0)), expected)


def eq7_plan(config: Config, given: Tensor, labels: Tensor, gamma: float, episode: int) -> Plan:
    """Train on Eq. 7 with current labels (N,), -1 for samples to leave out, and given labels (N,), -1 for none."""
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
    """Train on the samples `rows` (R,) with soft labels; `targets` maps samples (B,) to probabilities (B, C).

    `robust` selects the configured loss, for targets that are the given labels; otherwise it is cross-entropy.
    Training takes `stretch` times the configured epochs, and the schedule keeps its shape.
    """
    return Plan(
        episode=episode,
        rows=rows,
        objective=SoftTargets(targets, given, configured_loss(config) if robust else cross_entropy),
        epochs=stretched(config.epochs, stretch),
        rate=partial(learning_rate, config, stretch=stretch),
    )


def configured_loss(config: Config) -> LossFn:
    """The configured loss J."""
    if config.loss == "ce":
        return partial(cross_entropy, label_smoothing=config.label_smoothing)
    return partial(
        symmetric_cross_entropy,
        alpha=config.alpha,
        beta=config.beta,
        log_zero=config.log_zero,
        label_smoothing=config.label_smoothing,
    )
