import math

import pytest
import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.methods.algorithm1 import Correction, Episode, Task, algorithm1, gamma_of, labelled
from noisyknn.methods.spec import find_method
from noisyknn.training.trainer import Trained
from tests.unit.methods.helpers import fake_train, make_task, noisy_labels, trained_of

CONFIG = Config(k=5, episodes=6, reference_start=0.4, reference_step=0.2)


def same(one: Episode, other: Episode) -> bool:
    tensors = ("labels", "voted", "evidence", "references")
    return (
        (one.index, one.gamma) == (other.index, other.gamma)
        and torch.equal(one.cumulative_loss, other.cumulative_loss)
        and all(torch.equal(getattr(one.correction, name), getattr(other.correction, name)) for name in tensors)
    )


@pytest.mark.parametrize("method", ["selknn", "iterknn"])
@pytest.mark.parametrize("done", [1, 2, 3, 5, 6])
def test_a_resumed_run_yields_what_an_undisturbed_one_does(method: str, done: int) -> None:
    task = make_task(noisy_labels(80, 3), CONFIG)
    whole = list(find_method(method).run(task, None))
    resumed = list(find_method(method).run(task, whole[done - 1]))
    assert len(whole) == 6
    assert len(resumed) == 6 - done
    assert all(map(same, whole[done:], resumed))
    assert not torch.equal(whole[0].correction.labels, whole[-1].correction.labels)


def test_each_episode_trains_on_the_labels_that_the_last_one_left() -> None:
    calls: list[tuple[list[int], float, int]] = []

    def train(labels: Tensor, gamma: float, episode: int) -> Trained:
        calls.append((labels.tolist(), gamma, episode))
        return trained_of(torch.zeros(3, 1), torch.full((3,), float(episode)))

    def correct(task: Task, labels: Tensor, trained: Trained, episode: int) -> Correction:
        assert trained.cumulative_loss.tolist() == [episode] * 3
        return Correction(
            labels=labels + 10,
            voted=labels,
            evidence=torch.zeros(len(task.given_labels), 3),
            distances=torch.zeros(len(task.given_labels)),
            references=torch.arange(3),
        )

    config = Config(episodes=3, gamma=0.8, gamma_decay=2)
    episodes = list(algorithm1(make_task(torch.tensor([0, 1, 2]), config, train), correct, None))
    assert calls == [([0, 1, 2], 0.8, 0), ([10, 11, 12], 0.4, 1), ([20, 21, 22], 0.2, 2)]
    assert [episode.correction.labels.tolist() for episode in episodes] == [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    assert [episode.gamma for episode in episodes] == [0.8, 0.4, 0.2]
    assert [episode.cumulative_loss.tolist() for episode in episodes] == [[0] * 3, [1] * 3, [2] * 3]


@pytest.mark.parametrize("method", ["selknn", "iterknn"])
def test_no_labels_are_ever_edited_in_place(method: str) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def train(labels: Tensor, gamma: float, episode: int) -> Trained:
        seen.append((labels, labels.clone()))
        return fake_train(labels, gamma, episode)

    given = noisy_labels(80, 3)
    seen.append((given, given.clone()))
    episodes = find_method(method).run(make_task(given, CONFIG, train), None)
    seen.extend((episode.correction.labels, episode.correction.labels.clone()) for episode in episodes)
    assert len(seen) == 13
    assert all(torch.equal(tensor, copy) for tensor, copy in seen)


def test_an_episode_is_handed_over_before_the_next_one_trains() -> None:
    trained: list[int] = []

    def train(labels: Tensor, gamma: float, episode: int) -> Trained:
        trained.append(episode)
        return fake_train(labels, gamma, episode)

    for episode in find_method("iterknn").run(make_task(noisy_labels(30, 2), CONFIG, train), None):
        assert trained == list(range(episode.index + 1))


def test_gamma_may_decay_as_fast_as_can_be() -> None:
    config = Config(episodes=1000, gamma_decay=1e9)
    assert [gamma_of(config, episode) for episode in (0, 1, 999)] == [1, pytest.approx(1e-9), 0]
    assert math.isfinite(gamma_of(Config(episodes=1000, gamma_decay=3), 999))


def test_gamma_may_stay() -> None:
    assert [gamma_of(Config(gamma=0.3, gamma_decay=1), episode) for episode in range(3)] == [0.3] * 3


def test_labelled_rows() -> None:
    assert labelled(torch.tensor([-1, 0, 3, -1, 2])).tolist() == [1, 2, 4]
