from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.knn.torch_search import TorchSearch
from noisyknn.methods.algorithm1 import Task
from noisyknn.models.factory import build_backbone
from noisyknn.training.losses import cross_entropy
from noisyknn.training.plan import Eq7, Plan, SoftTargets
from noisyknn.training.trainer import Trained

Train = Callable[[Tensor, float, int], Trained]
"""A stand-in for training on Eq. 7: labels (N,), gamma and episode."""


def noisy_labels(samples: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (samples,), generator=torch.Generator().manual_seed(seed))


MODEL = build_backbone("cnn5", classes=3, image_size=8, width=0.05, seed=0)


def trained_of(features: Tensor, cumulative_loss: Tensor) -> Trained:
    """What a training leaves whose network knows nothing of three classes."""
    nothing = torch.zeros(len(features), 3, dtype=torch.float16)
    return Trained(features=features, log_probabilities=nothing, cumulative_loss=cumulative_loss, model=MODEL)


def draw_trained(labels: Tensor, seed: int) -> Trained:
    """Features around a centre per label, and losses, that depend on the labels and the seed alone."""
    mixed = int((labels * torch.arange(1, len(labels) + 1)).sum()) + 100_003 * seed
    generator = torch.Generator().manual_seed(mixed)
    centres = torch.eye(16)[labels.clamp(0, 15)]
    features = centres + 0.7 * torch.randn(len(labels), 16, generator=generator)
    return trained_of(features, torch.randn(len(labels), generator=generator))


def fake_train(labels: Tensor, gamma: float, episode: int) -> Trained:
    trained = draw_trained(labels, episode)
    return trained_of(trained.features + gamma, trained.cumulative_loss)


def always(trained: Trained) -> Train:
    def train(*_: Any, **__: Any) -> Trained:
        return trained

    return train


def make_task(
    given: Tensor,
    config: Config,
    train: Train = fake_train,
    train_on_targets: Callable[..., Trained] | None = None,
    carry_out: Callable[[Plan], Trained] | None = None,
) -> Task:
    """A task whose training is a stand-in, of which there is one for each kind of plan."""

    def by_plan(plan: Plan) -> Trained:
        objective = plan.objective
        if isinstance(objective, Eq7):
            return train(objective.labels, objective.gamma, plan.episode)
        if isinstance(objective, SoftTargets):
            assert train_on_targets is not None
            robust, stretch = objective.loss is not cross_entropy, plan.epochs / config.epochs
            return train_on_targets(plan.rows, objective.targets, plan.episode, robust=robust, stretch=stretch)
        assert carry_out is not None
        return carry_out(plan)

    return Task(
        given_labels=given,
        classes=int(given.max()) + 1,
        digests=torch.arange(len(given)),
        config=config,
        train=by_plan,
        search=TorchSearch,
    )


def shares_of(evidence: Tensor, k: int) -> Tensor:
    """Shares of k votes from their smoothed logarithms."""
    classes = evidence.shape[1]
    return (evidence.float().exp() * (k + classes / 2) - 0.5) / k


def slow_vote(features: Tensor, references: list[int], labels: list[int], sample: int, k: int) -> list[int]:
    """Labels of the k references nearest to the sample."""
    distances = (features.double() - features[sample].double()).square().sum(1).tolist()
    near = sorted((distances[row], row) for row in references if row != sample)
    return [labels[row] for _, row in near[:k]]


def slow_correction(
    trained: Trained, labels: list[int], references: list[int], keep: bool, k: int
) -> tuple[list[int], list[float]]:
    """Labels and confidences after Algorithm 3, or Algorithm 2 where nothing is kept; without ties."""
    corrected, confidence = list(labels), []
    for sample in range(len(labels)):
        votes = slow_vote(trained.features, references, labels, sample, k)
        if not (keep and sample in references):
            ((winner, count), *others) = Counter(votes).most_common()
            assert not others or others[0][1] < count
            corrected[sample] = winner
        confidence.append(votes.count(corrected[sample]) / len(votes))
    return corrected, confidence
