"""CE, SL and the deep k-NN filter."""

import pytest
import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.errors import UsageError
from noisyknn.methods.baselines.ce import SPEC as CE
from noisyknn.methods.baselines.deep_knn import deep_knn, learn_what_is_left
from noisyknn.methods.baselines.sl import SPEC as SL
from noisyknn.methods.spec import MethodSpec
from noisyknn.training.trainer import Trained
from tests.unit.methods.helpers import make_task, slow_vote, trained_of

GIVEN = torch.tensor([0, 1, 2, -1, 1, 0])
LOGITS = torch.tensor([[3.0, 1, 0], [2, 1, 0], [0, 1, 4], [0, 5, 1], [0, 3, 1], [2, 0, 0]])


def trained_with(logits: Tensor) -> Trained:
    trained = trained_of(torch.zeros(len(logits), 2), torch.arange(len(logits)).float())
    return Trained(**{**trained.__dict__, "log_probabilities": logits.log_softmax(1).half()})


@pytest.mark.parametrize("method", [CE, SL])
def test_each_label_becomes_what_the_one_network_says(method: MethodSpec) -> None:
    calls = []

    def train(labels: Tensor, gamma: float, episode: int) -> Trained:
        calls.append((labels.tolist(), gamma, episode))
        return trained_with(LOGITS)

    task = make_task(GIVEN, Config(method="ce"), train)
    (episode,) = method.run(task, None)
    assert calls == [(GIVEN.tolist(), 1.0, 0)]
    assert episode.correction.labels.tolist() == [0, 0, 2, 1, 1, 0]
    assert episode.correction.references.tolist() == [0, 1, 2, 4, 5]
    assert episode.network is not None
    assert list(method.run(task, episode)) == []


def test_the_filter_leaves_out_what_its_neighbours_contradict() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(60) % 3
    given = truth.clone()
    given[[3, 10, 20]] = (truth[[3, 10, 20]] + 1) % 3
    given[[7, 8]] = -1
    logits = 4 * torch.eye(3)[truth] + torch.randn(60, 3, generator=generator)
    trained_on = []

    def train(labels: Tensor, gamma: float, episode: int) -> Trained:
        trained_on.append((labels, gamma, episode))
        return trained_with(logits)

    task = make_task(given, Config(method="deep-knn", k=5, episodes=1), train)
    (first,) = deep_knn(task, None)
    learn_what_is_left(task, first)
    centred = logits.log_softmax(1).half().float()
    centred -= centred.mean(1, keepdim=True)
    references = [row for row in range(60) if given[row] >= 0]
    for row in range(60):
        votes = slow_vote(centred, references, given.tolist(), row, 5)
        winner = max(set(votes), key=votes.count)
        label = winner if given[row] in (-1, winner) else -1
        assert int(first.correction.labels[row]) == label
    assert set(torch.nonzero(first.correction.labels < 0)[:, 0].tolist()) >= {3, 10, 20}
    assert first.network is None
    (_, gamma, _), (kept, later, episode) = trained_on
    assert (gamma, later, episode) == (1.0, 0.0, 1)
    assert kept[[3, 10, 20, 7, 8]].tolist() == [-1] * 5  # what was not given is not learnt
    assert torch.equal(kept[kept >= 0], given[kept >= 0])
    assert list(deep_knn(task, first)) == []


def test_a_filter_that_leaves_one_class_says_so() -> None:
    given = torch.tensor([0, 0, 0, 0, 1])
    task = make_task(given, Config(method="deep-knn", k=3), lambda *_: trained_with(torch.zeros(5, 3)))
    (episode,) = deep_knn(task, None)
    with pytest.raises(UsageError, match="leaves fewer than two classes"):
        learn_what_is_left(task, episode)
