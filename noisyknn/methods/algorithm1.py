"""Algorithm 1 of the paper: train, correct, train again on the corrected labels.

Source: Kong et al., KNN-enhanced Deep Learning Against Noisy Labels. Symbols: N samples, D features, C classes.

Readings and deviations, for the whole paper:

- Cumulative loss (Section 3.4, O2U-Net): the per-sample loss minus the epoch's mean, summed over the epochs of an
  episode; it restarts with each episode.
- Line 10: γ is divided by 1.2 after each episode.
- Eq. 4: the neighbourhood is ordinary k-NN, the vote is unweighted, no sample is its own neighbour, and k is capped at
  R - 1 of R references.
- Algorithm 2: IterKNN votes with the current labels; a sample without a label does not vote.
- Eqs. 5 and 6: a class keeps at least one reference; the earlier row wins among equal losses.
- Features: the globally pooled output of the last convolutional stage, averaged over the mirror image where training
  flips images.
- An epoch is split into batches of even size: BatchNorm cannot train on a single sample.
- The strengths of augmentation, the widths of ``cnn5`` and the width factor are ours.
- CIFAR-100: the second drop, after epoch 120 of 120, has no effect.
- Clothing1M: the 48,000 clean training images are unused; crops come from the centre square of 256 pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.knn.search import Search
from noisyknn.methods.spec import find_method
from noisyknn.models.backbone import Backbone
from noisyknn.training.plan import Plan, eq7_plan
from noisyknn.training.trainer import Trained


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Result of one label correction."""

    labels: Tensor
    """(N,) corrected labels ŷ', class indices; -1 for a sample that is left out of training."""
    voted: Tensor
    """(N,) the majority class of the neighbours, a reference's own class, or the prediction where no neighbours vote;
    -1 before the first vote."""
    evidence: Tensor
    """(N, C) float16: log-probabilities of the classes, not yet calibrated (`noisyknn.calibration`)."""
    distances: Tensor
    """(N,) mean distance to the neighbours, large for samples unlike the training data; 0 where unknown."""
    references: Tensor
    """(R,) rows that voted."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One finished round of Algorithm 1."""

    index: int
    """0 for the first."""
    gamma: float
    """Weight of the given labels in training."""
    cumulative_loss: Tensor
    """See `Trained`."""
    correction: Correction
    network: Backbone | None = None
    """The classifier, if the method itself ends with one; None if one must be trained on the corrected labels."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The input of a method."""

    given_labels: Tensor
    """(N,) given labels ỹ, class indices; -1 for a sample without a label."""
    classes: int
    digests: Tensor
    """(N,) int64: the same number for copies of an image."""
    config: Config
    train: Callable[[Plan], Trained]
    """Trains a network by a plan and runs it on every sample."""
    search: Search


Correct = Callable[[Task, Tensor, Trained, int], Correction]
"""Corrects the current labels (N,) after the episode with this index."""
MakePlan = Callable[[Config, Tensor, Tensor, float, int], Plan]
"""Plans the training of an episode; arguments as for `eq7_plan`."""


def algorithm1(task: Task, correct: Correct, last: Episode | None, make_plan: MakePlan = eq7_plan) -> Iterator[Episode]:
    """Lines 1 to 12: yield each episode as it ends; the last one's labels are the result."""
    config, given = task.config, task.given_labels
    labels = given if last is None else last.correction.labels  # line 1
    for index in range(0 if last is None else last.index + 1, config.episodes):  # line 2
        gamma = gamma_of(config, index)  # line 10
        trained = task.train(make_plan(config, given, labels, gamma, index))  # lines 3 to 8
        correction = correct(task, labels, trained, index)  # line 9
        yield Episode(index=index, gamma=gamma, cumulative_loss=trained.cumulative_loss, correction=correction)
        labels = correction.labels


def final_network(task: Task, last: Episode, corrected: Tensor) -> Backbone:
    """Line 13: a classifier trained on the corrected labels (N,), unless the method makes its own."""
    if last.network is not None:
        return last.network
    spec = find_method(task.config.method)
    if spec.final_network is not None:
        return spec.final_network(task, last)
    return task.train(eq7_plan(task.config, task.given_labels, corrected, 0.0, task.config.episodes)).model


def gamma_of(config: Config, episode: int) -> float:
    """Weight γ of the given labels in the episode with this index (line 10)."""
    return config.gamma * config.gamma_decay**-episode  # may underflow to 0; the power itself would overflow


def labelled(labels: Tensor) -> Tensor:
    """Rows (R,) that have a label."""
    return torch.nonzero(labels >= 0)[:, 0]
