import torch

from noisyknn.config import Config
from noisyknn.methods.iterknn import iterknn, label_correction
from noisyknn.methods.spec import find_method
from tests.unit.methods.helpers import (
    always,
    draw_trained,
    fake_train,
    make_task,
    noisy_labels,
    shares_of,
    slow_correction,
    slow_vote,
    trained_of,
)


def test_every_label_becomes_the_majority_of_all_others() -> None:
    given, labels = noisy_labels(60, 2), noisy_labels(60, 2, seed=1)  # an odd k of two classes leaves no ties
    trained = draw_trained(labels, 0)
    task = make_task(given, Config(k=7))
    correction = label_correction(task, labels, trained, 0)
    expected, confidence = slow_correction(trained, labels.tolist(), list(range(60)), keep=False, k=7)
    assert expected != labels.tolist()
    assert correction.labels.tolist() == expected
    assert correction.references.tolist() == list(range(60))
    shares = shares_of(correction.evidence, 7)
    torch.testing.assert_close(shares.amax(1), torch.tensor(confidence), atol=2e-3, rtol=0)
    for sample, share in enumerate(shares.tolist()):
        votes = slow_vote(trained.features, list(range(60)), labels.tolist(), sample, 7)
        assert [round(7 * one) for one in share] == [votes.count(label) for label in range(2)]


def test_all_votes_are_on_the_labels_before_the_correction() -> None:
    features = torch.tensor([[0.0], [1.0], [2.1], [3.3], [4.6]])  # each but the last is nearest to the one before it
    trained = trained_of(features, torch.zeros(5))
    labels = torch.tensor([1, 0, 1, 0, 1])
    correction = label_correction(make_task(labels, Config(k=1)), labels, trained, 0)
    assert correction.labels.tolist() == [0, 1, 0, 1, 0]
    assert labels.tolist() == [1, 0, 1, 0, 1]


def test_samples_without_a_label_get_one_and_vote_from_then_on() -> None:
    features = torch.tensor([[0.0], [0.1], [0.3], [9.0], [9.1], [9.3]])
    given = torch.tensor([1, -1, 1, 0, 0, -1])
    trained = trained_of(features, torch.zeros(6))
    task = make_task(given, Config(k=1, episodes=2), always(trained))
    first, second = iterknn(task, None)
    assert first.correction.references.tolist() == [0, 2, 3, 4]
    assert first.correction.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert first.correction.evidence.argmax(1).tolist() == [1, 1, 1, 0, 0, 0]
    assert second.correction.references.tolist() == [0, 1, 2, 3, 4, 5]


def test_losses_play_no_part() -> None:
    given = noisy_labels(50, 3)
    task = make_task(given, Config(k=5))
    trained = draw_trained(given, 0)
    other = trained_of(trained.features, trained.cumulative_loss.flip(0))
    one, two = (label_correction(task, given, each, 0) for each in (trained, other))
    assert torch.equal(one.labels, two.labels)


def test_it_is_a_registered_method() -> None:
    given = noisy_labels(40, 3)
    episodes = list(find_method("iterknn").run(make_task(given, Config(k=5, episodes=3, method="iterknn")), None))
    assert [len(episode.correction.references) for episode in episodes] == [40, 40, 40]
    expected = label_correction(make_task(given, Config(k=5)), given, fake_train(given, 1.0, 0), 0)
    assert torch.equal(episodes[0].correction.labels, expected.labels)
