"""Algorithm 1 of the paper: train, correct, train again on the corrected labels.

Source: Kong et al., KNN-enhanced Deep Learning Against Noisy Labels. Symbols: N samples, D features, C classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.knn.search import Search
from noisyknn.models.backbone import Backbone
from noisyknn.training.trainer import Plan, Trained


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What one label correction found."""

    labels: Tensor
    """(N,) corrected labels ŷ', class indices; -1 for a sample that is left out of what is learnt from."""
    voted: Tensor
    """(N,) the class that most neighbours have, or a reference's own, or that the network says where no neighbours
    vote; -1 where nobody has voted yet."""
    evidence: Tensor
    """(N, C) float16: how likely each class is by what was learnt of the sample, as log-probabilities that have yet to
    be calibrated (`noisyknn.calibration`)."""
    distances: Tensor
    """(N,) mean distance to the neighbours, large where a sample is like nothing that was learnt; 0 where unknown."""
    references: Tensor
    """(R,) rows that voted."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One finished round of Algorithm 1."""

    index: int
    """0 for the first."""
    gamma: float
    """Weight of the given labels while it was trained."""
    cumulative_loss: Tensor
    """As in Trained."""
    correction: Correction
    network: Backbone | None = None
    """The classifier, where the method itself ends with one; None where one is trained on the corrected labels."""


class Train(Protocol):
    """Trains a network anew from its initial weights (Algorithm 1, lines 3 to 8)."""

    def __call__(self, labels: Tensor, gamma: float, episode: int) -> Trained:
        """Train on the loss of Eq. 7: current labels (N,), -1 for none, mixed with the given ones by gamma."""
        ...


class TrainOnTargets(Protocol):
    """Trains a network anew on samples that may belong to several classes, each with a probability."""

    def __call__(
        self, rows: Tensor, targets: Callable[[Tensor], Tensor], episode: int, *, robust: bool, stretch: float
    ) -> Trained:
        """Train on the samples `rows` (R,); `targets` gives the probabilities (B, C) of samples (B,).

        The loss has to be `robust` where the targets are labels that may be wrong, taken for certain. There are
        `stretch` times as many epochs as configured.
        """
        ...


class CarryOut(Protocol):
    """Trains a network anew in any other way."""

    def __call__(self, plan: Plan, episode: int) -> Trained:
        """Train as the plan says."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a method works on."""

    given_labels: Tensor
    """(N,) given labels ỹ, class indices; -1 for a sample without a label."""
    classes: int
    digests: Tensor
    """(N,) int64: the same number for copies of an image."""
    config: Config
    train: Train
    train_on_targets: TrainOnTargets
    carry_out: CarryOut
    search: Search


class Method(Protocol):
    """Corrects labels in episodes."""

    def __call__(self, task: Task, last: Episode | None) -> Iterator[Episode]:
        """Yield each episode as it ends; go on after `last` where a run is resumed."""
        ...


Correct = Callable[[Task, Tensor, Trained, int], Correction]
"""Corrects the current labels (N,) after the episode of that index."""


def iterate(task: Task, correct: Correct, last: Episode | None) -> Iterator[Episode]:
    """Algorithm 1, lines 1 to 11; line 13, the training on the final labels, is the pipeline's."""
    labels = task.given_labels if last is None else last.correction.labels  # line 1
    for index in range(0 if last is None else last.index + 1, task.config.episodes):  # line 2
        gamma = gamma_of(task.config, index)  # line 10
        trained = task.train(labels, gamma, index)  # lines 3 to 8
        correction = correct(task, labels, trained, index)  # line 9
        yield Episode(index=index, gamma=gamma, cumulative_loss=trained.cumulative_loss, correction=correction)
        labels = correction.labels


def one_network(task: Task, last: Episode | None) -> Iterator[Episode]:
    """A single episode on the given labels, after which each sample is what the network says."""
    if last is None:
        trained = task.train(task.given_labels, 1.0, 0)
        logs = trained.log_probabilities
        correction = without_votes(logs.argmax(1), logs, labelled(task.given_labels))
        yield Episode(
            index=0,
            gamma=1.0,
            cumulative_loss=trained.cumulative_loss,
            correction=correction,
            network=trained.model,
        )


def without_votes(labels: Tensor, evidence: Tensor, references: Tensor) -> Correction:
    """Labels (N,) that no neighbours have voted on, from evidence (N, C) and the rows (R,) that were learnt."""
    return Correction(
        labels=labels,
        voted=labels.clone(),
        evidence=evidence,
        distances=torch.zeros(len(labels), device=labels.device),
        references=references,
    )


def gamma_of(config: Config, episode: int) -> float:
    """Weight of the given labels in the episode of that index (line 10: decayed after each)."""
    return config.gamma * config.gamma_decay**-episode  # may underflow to 0; the power itself would overflow


def labelled(labels: Tensor) -> Tensor:
    """Rows (R,) that have a label."""
    return torch.nonzero(labels >= 0)[:, 0]
