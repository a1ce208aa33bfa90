"""PENCIL: each sample has a distribution over the classes, learnt by gradient steps along with the weights.

Source: Yi and Wu, Probabilistic End-to-end Noise Correction for Learning with Noisy Labels (2019), and its official
code. Symbols: N samples, B samples of a batch, C classes, s(x) the network's probabilities, y^d = softmax(z) the
distribution.

1. Until epoch 70 of 320: cross-entropy with the given labels ỹ.
2. Until epoch 200: mean over samples and classes of s · (log s - log y^d), plus α · L_o(y^d, ỹ), plus β · mean of
   -s · log s; the logits z start at 10 for the given class and 0 for the others, and move by -λ times their gradient.
3. Until epoch 320: the first of these three terms alone, with fixed z; the rate restarts at 3.3 times the first one and
   is divided by 10 after each third.

Deviation from the paper's text, as in the official code: L_o is the cross-entropy of softmax(y^d), not of y^d, with ỹ.
Deviations from that code: it has ``lr2 // 10`` for the last rates, which is 0; here they are a tenth and a hundredth.
α 0.1 and β 0.8 are the paper's for symmetric noise on CIFAR-10, not the code's 0.4 and 0.1. With those, no label of
ten classes can flip: the gradients cancel out at y^d = 0.73 of the given class, however confident s is in another.
For C classes we use α · 10 / C and λ · C / 10, since the mean over the classes shrinks the first gradient: with
α = 0.1, no label of more than twenty classes could flip. λ is for batches of 128 and 130 epochs of the second stage,
each of which moves a sample once. A shorter second stage moves a sample several times per epoch, as many times in all:
in one large move, labels with unconfident predictions would flip to and fro. The paper has other α, β, λ and rates for
asymmetric noise (`noisyknn.paper.grid`) and for CIFAR-100. `epochs` counts all stages, and 70 and 200 keep their share
of 320: the paper's presets have 120 and 40. Momentum is Nesterov's. Samples without a label are not trained on, and get
the network's prediction.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from noisyknn.config import Config
from noisyknn.errors import UsageError
from noisyknn.methods.algorithm1 import Episode, Task, labelled
from noisyknn.methods.baselines.ce import without_votes
from noisyknn.methods.baselines.joint_optimization import BY_SGD, ON_CLOTHING1M
from noisyknn.methods.spec import MethodSpec
from noisyknn.training.losses import cross_entropy
from noisyknn.training.plan import Objective, Plan, Rate

FIRST, SECOND = 70 / 320, 200 / 320
"""Ends of the first and the second stage, as shares of all epochs."""
BATCH, SECOND_EPOCHS = 128, 130
"""Batch size, and epochs of the second stage, that λ is given for."""
CLASSES = 10
"""Number of classes that α and λ are given for."""
SURE = 10.0
"""Initial logit of the given class."""


@dataclass(frozen=True)
class Stages:
    """Epochs at which the first and the second stage end, and their total."""

    first: int
    second: int
    epochs: int

    @classmethod
    def of(cls, epochs: int) -> "Stages":
        """The stages of `epochs` epochs, at least three."""
        first = max(1, round(FIRST * epochs))
        return cls(first, min(max(first + 1, round(SECOND * epochs)), epochs - 1), epochs)

    def rate(self, lr: float, later: float) -> Rate:
        """The learning rate of each epoch; the last stage starts at `later` times `lr`."""

        def rate(epoch: int, _: float) -> float:
            if epoch < self.second:
                return lr
            thirds = math.floor(3 * (epoch - self.second) / (self.epochs - self.second))
            return later * lr * 0.1**thirds

        return rate


class PencilObjective(Objective):
    """The loss of each stage, and the label logits z that move in the second."""

    def __init__(self, given: Tensor, classes: int, config: Config) -> None:
        self._given, self._stages = given, Stages.of(config.epochs)
        self.compatibility_weight = config.compatibility_weight * CLASSES / classes
        self._entropy_weight = config.entropy_weight
        theirs = SECOND_EPOCHS / (self._stages.second - self._stages.first)
        self._moves = max(1, round(theirs))
        self.label_rate = config.label_rate * classes / CLASSES / BATCH * theirs / self._moves
        self.label_logits = SURE * F.one_hot(given.clamp_min(0), classes).float()
        self.state = {"label_logits": self.label_logits}
        self._before = self.label_logits
        self._epoch = 0

    def begin_epoch(self, epoch: int) -> None:
        """Select the stage of the epoch."""
        self._epoch = epoch
        self._before = self.label_logits.clone()  # a step repeated for lack of memory moves no label twice

    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (B,) of the stage, and the cross-entropy (B,) with the given labels."""
        given = self._given[samples]
        own = cross_entropy(logits, given)
        if self._epoch < self._stages.first:
            return own, own
        logs = logits.log_softmax(1)
        if self._epoch >= self._stages.second:
            return _divergence(logs, self.label_logits[samples]), own
        losses = _divergence(logs, self.label_logits[samples]) - self._entropy_weight * (logs.exp() * logs).mean(1)
        self._move(logs.detach(), samples, given)
        return losses, own

    def _move(self, logs: Tensor, samples: Tensor, given: Tensor) -> None:
        """Move the label logits of samples (B,) by their gradients, from the network's log-probabilities (B, C)."""
        said, z = logs.exp(), self._before[samples]
        one_hot = F.one_hot(given, z.shape[1])
        for _ in range(self._moves):
            labels = z.softmax(1)
            by_labels = labels.softmax(1) - one_hot  # gradient of L_o by y^d; the next line applies y^d = softmax(z)
            compatibility = labels * (by_labels - (labels * by_labels).sum(1, keepdim=True))
            z = z - self.label_rate * ((labels - said) / z.shape[1] + self.compatibility_weight * compatibility)
        self.label_logits[samples] = z


def pencil(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Run all three stages in one episode; its network is the classifier."""
    if last is None:
        given, config = task.given_labels, task.config
        objective = PencilObjective(given, task.classes, config)
        stages = Stages.of(config.epochs)
        plan = Plan(
            episode=0,
            rows=labelled(given),
            objective=objective,
            epochs=config.epochs,
            rate=stages.rate(config.lr, config.later_rate),
        )
        trained = task.train(plan)
        told = trained.log_probabilities.argmax(1)
        labels = torch.where(given >= 0, objective.label_logits.argmax(1), told)
        correction = without_votes(labels, trained.log_probabilities, plan.rows)
        yield Episode(
            index=0,
            gamma=0.0,
            cumulative_loss=trained.cumulative_loss,
            correction=correction,
            network=trained.model,
        )


def _divergence(logs: Tensor, label_logits: Tensor) -> Tensor:
    """Mean over the classes of s · (log s - log y^d) (B,), from log s and z, both (B, C)."""
    return (logs.exp() * (logs - label_logits.log_softmax(1))).mean(1)


def _check(config: Config) -> None:
    if config.epochs < 3:
        raise UsageError(f"`epochs` {config.epochs} is too few for pencil, which has three stages; give 3 or more")


SPEC = MethodSpec(
    run=pencil,
    settings=frozenset({"policy", "compatibility_weight", "entropy_weight", "label_rate", "later_rate"}),
    words=lambda _: "",
    defaults={**BY_SGD, "lr": 0.06, "later_rate": 10 / 3},
    clothing1m={
        **ON_CLOTHING1M,
        "compatibility_weight": 0.08 * (14 / CLASSES),
        "label_rate": 3000 * (BATCH / 64) * (CLASSES / 14) * (6 / SECOND_EPOCHS),
    },
    objective=lambda config: f"α {config.compatibility_weight:g}, β {config.entropy_weight:g}, λ {config.label_rate:g}",
    check=_check,
)
"""On Clothing1M, the source's α 0.08 and λ 3000 are for its 14 classes, so these factors undo the scaling of
`PencilObjective`. We assume batches of 64 and a second stage of 6 epochs, as long as ours."""
