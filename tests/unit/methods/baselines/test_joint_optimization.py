import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.methods.baselines.joint_optimization import JointObjective, joint_optimization, learn_soft_labels
from noisyknn.training.plan import Plan
from noisyknn.training.trainer import Trained
from tests.unit.methods.helpers import make_task, trained_of

GIVEN = torch.tensor([0, 2, 1, 1])


def make_objective(epochs: int = 20, given: Tensor = GIVEN, **settings: Any) -> JointObjective:
    return JointObjective(given, 3, Config(method="joint-optimization", epochs=epochs, **settings))


def logits_of(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities).log()


def test_the_loss_by_hand() -> None:
    objective = make_objective(prior_weight=1.5, entropy_weight=0.25)
    objective.begin_epoch(0)
    said = [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]
    losses, tracked = objective(logits_of(*said), torch.tensor([3, 1]))
    own = [-math.log(0.25), -math.log(0.7)]  # labels 1 and 2
    means = [0.3, 0.225, 0.475]
    uniform = -sum(math.log(mean) for mean in means) / 3
    entropies = [-sum(p * math.log(p) for p in row) for row in said]
    expected = [loss + 1.5 * uniform + 0.25 * entropy for loss, entropy in zip(own, entropies, strict=True)]
    torch.testing.assert_close(losses, torch.tensor(expected))
    torch.testing.assert_close(tracked, torch.tensor(own))


def test_labels_change_after_a_third_to_the_mean_of_the_last_epochs() -> None:
    objective = make_objective(epochs=40, prior_weight=0, entropy_weight=0)  # from epoch 14 on, mean of two
    everything = torch.arange(4)
    said = [torch.rand(4, 3, generator=torch.Generator().manual_seed(epoch)).softmax(1) for epoch in range(20)]
    for epoch, probabilities in enumerate(said):
        objective.begin_epoch(epoch)
        losses, _ = objective(probabilities.log(), everything)
        labels = torch.eye(3)[GIVEN] if epoch < 14 else (said[epoch - 1] + said[epoch - 2]) / 2
        torch.testing.assert_close(losses, -(labels * probabilities.log()).sum(1))
    torch.testing.assert_close(objective.labels, (said[18] + said[19]) / 2)


def test_gradients_reach_the_network_through_all_three_losses() -> None:
    objective = make_objective(prior_weight=1, entropy_weight=1)
    objective.begin_epoch(0)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses, tracked = objective(logits, torch.arange(4))
    (found,) = torch.autograd.grad(losses.mean(), logits)
    double = logits.detach().double().requires_grad_()
    p = double.exp() / double.exp().sum(1, keepdim=True)
    total = -p[range(4), GIVEN].log().mean() - p.mean(0).log().mean() - (p * p.log()).sum(1).mean()
    (expected,) = torch.autograd.grad(total, double)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-4)
    assert not objective.labels.requires_grad
    assert tracked.shape == (4,)


def carry_out_of(said: Tensor, plans: list[Plan]) -> Callable[[Plan], Trained]:
    """A training in which the network says the same of all samples in all epochs."""

    def carry_out(plan: Plan) -> Trained:
        assert plan.episode == len(plans)
        plans.append(plan)
        for epoch in range(plan.epochs):
            plan.objective.begin_epoch(epoch)
            plan.objective(said[plan.rows].log(), plan.rows)
        trained = trained_of(torch.zeros(len(said), 2), torch.arange(len(said)).float())
        return Trained(**{**trained.__dict__, "log_probabilities": said.log().half()})

    return carry_out


SAID = torch.tensor([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.3, 0.5]])


def test_labels_in_its_episode_and_a_network_where_one_is_wanted() -> None:
    plans: list[Plan] = []
    config = Config(method="joint-optimization", epochs=20, episodes=1, lr=0.08, later_rate=2.5)
    task = make_task(torch.tensor([0, 2, -1, 1]), config, carry_out=carry_out_of(SAID, plans))
    (episode,) = joint_optimization(task, None)
    assert episode.correction.labels.tolist() == [0, 0, 1, 2]  # the third has no label and is what the network says
    assert episode.correction.voted.tolist() == episode.correction.labels.tolist()
    torch.testing.assert_close(episode.correction.evidence.float().exp(), SAID, atol=1e-3, rtol=1e-3)
    assert episode.network is None
    assert list(joint_optimization(task, episode)) == []
    learn_soft_labels(task, episode)
    assert [plan.rows.tolist() for plan in plans] == [[0, 1, 3], [0, 1, 2, 3]]
    assert [plan.epochs for plan in plans] == [20, 12]
    assert {plans[0].rate(epoch, 0.5) for epoch in range(20)} == {0.08}
    rates = [plans[1].rate(epoch, 0.5) for epoch in range(12)]
    assert rates == pytest.approx([0.2] * 4 + [0.02] * 4 + [0.002] * 4)
    losses, _ = plans[1].objective(torch.zeros(4, 3), torch.arange(4))
    torch.testing.assert_close(losses, torch.full((4,), math.log(3)))
