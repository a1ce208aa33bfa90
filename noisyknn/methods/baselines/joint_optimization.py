"""Joint Optimization: labels are the mean of the network's recent predictions, and the network trains on them.

Source: Tanaka et al., Joint Optimization Framework for Learning with Noisy Labels (2018), and its official code.
Symbols: N samples, B samples of a batch, C classes, s(x) the network's probabilities.

First step, at a constant rate: minimise over the weights

    mean CE(soft labels, s) + α · Σ_c p_c · log(p_c / mean_batch s_c) + β · mean entropy(s),   p uniform

The soft labels are the given ones at first and, from epoch 70 of 200 on, the mean of s over the last 10 epochs, as
computed in training. Second step: a new network trains on the soft labels, starting at 2.5 times the rate, divided by
10 after each third of 120 epochs.

The second step runs only if its network is wanted. Deviations: `epochs` counts the first step, and 70, 10 and 120 keep
their share of 200, since the presets of Kong et al. have 120 and 40; momentum is Nesterov's; the constant Σ p log p is
left out, as in the official code; if a batch is split to fit a GPU's memory, each part has its own mean. α, β and the
rate are the source's for 70 % symmetric noise; for 40 % asymmetric noise it has 0.8, 0.4 and 0.03. Samples without a
label join in the second step.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from noisyknn.config import Config
from noisyknn.methods.algorithm1 import Episode, Task, labelled
from noisyknn.methods.baselines.ce import ONE_EPISODE, without_votes
from noisyknn.methods.spec import MethodSpec
from noisyknn.models.backbone import Backbone
from noisyknn.training.losses import cross_entropy, expected_loss
from noisyknn.training.plan import Objective, Plan

BEGIN, WINDOW, SECOND = 70 / 200, 10 / 200, 120 / 200
"""Start of the label updates, epochs averaged, and length of the second step, as shares of the first step."""
LEAST = 1e-7


class JointObjective(Objective):
    """The loss of the first step, and the soft labels."""

    def __init__(self, given: Tensor, classes: int, config: Config) -> None:
        self._prior_weight, self._entropy_weight = config.prior_weight, config.entropy_weight
        self._begin = max(1, round(BEGIN * config.epochs))
        self._given = given
        self._labels = F.one_hot(given.clamp_min(0), classes).float()
        window = max(1, min(round(WINDOW * config.epochs), self._begin))
        self._recent = self._labels.new_zeros(window, len(given), classes)
        self._slot = 0
        self.state = {"recent": self._recent}

    @property
    def labels(self) -> Tensor:
        """Mean prediction (N, C) for each training sample over the last epochs."""
        return self._recent.mean(0)

    def begin_epoch(self, epoch: int) -> None:
        """Update the soft labels from the last epochs."""
        if epoch >= self._begin:
            self._labels = self.labels
        self._slot = epoch % len(self._recent)

    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (B,), whose mean is the batch's loss, and the cross-entropy (B,) with the given labels."""
        logs = logits.log_softmax(1)
        said = logs.exp()
        self._recent[self._slot, samples] = said.detach()
        uniform = -said.mean(0).clamp_min(LEAST).log().mean()
        entropy = -(said * logs).sum(1)
        own = -(self._labels[samples] * logs).sum(1)
        losses = own + self._prior_weight * uniform + self._entropy_weight * entropy
        return losses, cross_entropy(logits, self._given[samples])


def joint_optimization(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Run the first step, which finds the labels."""
    if last is None:
        yield _first_step(task)


def _first_step(task: Task) -> Episode:
    given, config = task.given_labels, task.config
    objective = JointObjective(given, task.classes, config)
    plan = Plan(episode=0, rows=labelled(given), objective=objective, epochs=config.epochs, rate=lambda *_: config.lr)
    trained = task.train(plan)
    evidence = objective.labels.clamp_min(LEAST).log().half()
    evidence = torch.where((given >= 0)[:, None], evidence, trained.log_probabilities)
    correction = without_votes(evidence.argmax(1), evidence, plan.rows)
    return Episode(index=0, gamma=0.0, cumulative_loss=trained.cumulative_loss, correction=correction)


class SecondStep(Objective):
    """Cross-entropy with the soft labels."""

    def __init__(self, soft: Tensor) -> None:
        self._soft = soft

    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (B,), twice."""
        expected = expected_loss(logits, self._soft[samples], cross_entropy)
        return expected, expected


def learn_soft_labels(task: Task, last: Episode) -> Backbone:
    """The second step: train a new network on the first one's soft labels."""
    soft = last.correction.evidence.float().softmax(1)
    epochs, rate = max(1, round(SECOND * task.config.epochs)), task.config.later_rate * task.config.lr
    plan = Plan(
        episode=task.config.episodes,
        rows=torch.arange(len(soft), device=soft.device),
        objective=SecondStep(soft),
        epochs=epochs,
        rate=lambda epoch, _: rate * 0.1 ** math.floor(3 * epoch / epochs),
    )
    return task.train(plan).model


BY_SGD = {**ONE_EPISODE, "optimizer": "sgd", "weight_decay": 1e-4, "batch_size": 128}
"""The optimiser of this source and of PENCIL's."""
ON_CLOTHING1M = {"optimizer": "adam", "lr": 2e-3, "weight_decay": 5e-3, "batch_size": 64, "later_rate": 1.0}
"""The optimiser of Kong et al. for all methods in Section 4.7. α and β stay those for CIFAR-10."""
SPEC = MethodSpec(
    run=joint_optimization,
    settings=frozenset({"policy", "prior_weight", "entropy_weight", "later_rate"}),
    words=lambda _: "",
    defaults={**BY_SGD, "lr": 0.08, "later_rate": 2.5},
    clothing1m=ON_CLOTHING1M,
    objective=lambda config: f"α {config.prior_weight:g}, β {config.entropy_weight:g}",
    final_network=learn_soft_labels,
)
