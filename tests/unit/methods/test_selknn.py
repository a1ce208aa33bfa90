import pytest
import torch

from noisyknn.config import Config
from noisyknn.errors import UsageError
from noisyknn.methods.iterknn import label_correction
from noisyknn.methods.selknn import select_references, selective_label_correction, selknn
from noisyknn.methods.spec import find_method
from tests.unit.methods.helpers import (
    always,
    draw_trained,
    make_task,
    noisy_labels,
    shares_of,
    slow_correction,
    slow_vote,
    trained_of,
)


def slow_references(labels: list[int], losses: list[float], count_of: dict[int, int]) -> list[int]:
    chosen = []
    for label, count in count_of.items():
        ranked = sorted((losses[row], row) for row in range(len(labels)) if labels[row] == label)
        chosen += [row for _, row in ranked[:count]]
    return sorted(chosen)


#                       0    1    2    3     4    5    6    7    8    9   10   11
LABELS = torch.tensor([0, 1, 0, 2, 0, 1, 0, 0, 1, 1, 0, 0])
LOSSES = torch.tensor([0.5, 2.0, -1.0, 9.0, 0.1, -3.0, 4.0, 0.3, 0.0, 1.0, 0.2, 0.6])


@pytest.mark.parametrize(
    ("share", "rows"),
    [
        (0.25, [2, 3, 4, 5]),  # 2 of seven zeros (1.75), 1 of four ones, 1 of the single two (0.25: at least one)
        (0.5, [2, 3, 4, 5, 7, 8, 10]),  # 4 of seven (3.5), 2 of four, the single two
        (0.9, [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]),  # 6 of seven (6.3), all four (3.6)
        (1.0, list(range(12))),
        (0.001, [2, 3, 5]),
    ],
)
def test_a_share_of_each_class_by_hand(share: float, rows: list[int]) -> None:
    assert select_references(LABELS, LOSSES, share, None).tolist() == rows


@pytest.mark.parametrize(
    ("per_class", "rows"), [(1, [2, 3, 5]), (2, [2, 3, 4, 5, 8]), (5, [0, 1, 2, 3, 4, 5, 7, 8, 9, 10])]
)
def test_a_fixed_number_per_class_by_hand(per_class: int, rows: list[int]) -> None:
    assert select_references(LABELS, LOSSES, 0.2, per_class).tolist() == rows


def test_equal_losses_are_taken_by_row() -> None:
    labels = torch.tensor([1, 0] * 40)
    losses = torch.tensor([0.0, 0.0, -1.0, 0.0] * 20)
    zeros, ones = list(range(1, 20, 2)), [*range(2, 42, 4)]
    assert select_references(labels, losses, 0.25, None).tolist() == sorted(zeros + ones)


def test_samples_without_a_label_are_never_chosen() -> None:
    labels = torch.tensor([-1, 0, -1, 1, 0, -1])
    losses = torch.tensor([-9.0, 1.0, -9.0, 1.0, 2.0, 0.0])
    assert select_references(labels, losses, 0.5, None).tolist() == [1, 3]
    assert select_references(labels, losses, 1.0, None).tolist() == [1, 3, 4]


def test_references_equal_a_slow_loop() -> None:
    labels = noisy_labels(200, 7)
    losses = torch.randint(-5, 5, (200,), generator=torch.Generator().manual_seed(1)).float()
    for share in (0.2, 0.37, 0.8):
        sizes = {label: int(share * labels.tolist().count(label) + 0.5) for label in range(7)}
        expected = slow_references(labels.tolist(), losses.tolist(), sizes)
        assert select_references(labels, losses, share, None).tolist() == expected


def test_references_keep_their_labels_and_all_others_get_their_majority() -> None:
    given, labels = noisy_labels(80, 2), noisy_labels(80, 2, seed=1)
    trained = draw_trained(labels, 3)
    task = make_task(given, Config(k=7, reference_start=0.2, reference_step=0.1))
    correction = selective_label_correction(task, labels, trained, 1)
    sizes = {label: round(0.3 * labels.tolist().count(label)) for label in (0, 1)}
    references = slow_references(labels.tolist(), trained.cumulative_loss.tolist(), sizes)
    expected, confidence = slow_correction(trained, labels.tolist(), references, keep=True, k=7)
    assert expected != labels.tolist()
    assert correction.references.tolist() == references
    assert correction.labels.tolist() == expected
    shares = shares_of(correction.evidence, 7)
    of_corrected = shares.gather(1, correction.labels[:, None])[:, 0]
    torch.testing.assert_close(of_corrected, torch.tensor(confidence), atol=2e-3, rtol=0)
    for sample, share in enumerate(shares.tolist()):
        votes = slow_vote(trained.features, references, labels.tolist(), sample, 7)
        assert [round(7 * one) for one in share] == [votes.count(label) for label in range(2)]


def test_a_reference_keeps_even_a_label_that_no_neighbour_has() -> None:
    features = torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]])
    labels = torch.tensor([1, 0, 0, 0, 1])
    trained = trained_of(features, torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0]))
    config = Config(k=1, references_per_class=1)
    correction = selective_label_correction(make_task(labels, config), labels, trained, 0)
    assert correction.references.tolist() == [0, 1]
    assert correction.labels.tolist() == [1, 0, 0, 0, 0]
    assert correction.voted.tolist() == [1, 0, 0, 0, 0]
    assert correction.evidence.argmax(1).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "episode"),
    [
        ({"reference_start": 1.0}, 0),
        ({"reference_start": 0.2, "reference_step": 0.1}, 8),
        ({"reference_start": 0.2, "reference_step": 0.1}, 50),
        ({"reference_start": 0.1, "reference_step": 0.3}, 3),  # 0.1 + 3 * 0.3 is a little under 1
        ({"reference_start": 0.999}, 0),  # all of a class, once rounded
        ({"references_per_class": 1000}, 0),
    ],
)
def test_where_all_are_references_it_is_iterknn(settings: dict[str, float], episode: int) -> None:
    labels = noisy_labels(60, 3)
    labels[7] = -1
    trained = draw_trained(labels, 1)
    task = make_task(labels, Config(k=5, **settings))  # type: ignore[arg-type]
    sel, it = (correct(task, labels, trained, episode) for correct in (selective_label_correction, label_correction))
    for name in ("labels", "voted", "evidence", "references"):
        assert torch.equal(getattr(sel, name), getattr(it, name))
    assert not torch.equal(sel.labels[labels >= 0], labels[labels >= 0])


def test_below_one_it_is_not_iterknn() -> None:
    labels = noisy_labels(60, 3)
    trained = draw_trained(labels, 1)
    correction = selective_label_correction(make_task(labels, Config(k=5)), labels, trained, 7)  # M = 90 %
    assert torch.equal(correction.labels[correction.references], labels[correction.references])
    assert 50 <= len(correction.references) < 60


def test_ten_episodes_follow_the_papers_schedule() -> None:
    given = torch.arange(10).repeat_interleave(100)
    trained = trained_of(torch.eye(10)[given], torch.arange(1000.0))  # so that all labels stay
    episodes = list(find_method("selknn").run(make_task(given, Config(k=5), always(trained)), None))
    assert [episode.index for episode in episodes] == list(range(10))
    shares = [len(episode.correction.references) / 1000 for episode in episodes]
    assert shares == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0]
    gammas = [episode.gamma for episode in episodes]
    assert gammas == pytest.approx(
        [1, 0.8333, 0.6944, 0.5787, 0.4823, 0.4019, 0.3349, 0.2791, 0.2326, 0.1938], abs=5e-5
    )


def test_a_single_reference_is_refused() -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    trained = trained_of(torch.zeros(3, 2), torch.arange(3.0))
    task = make_task(labels, Config(k=1, references_per_class=1))
    with pytest.raises(UsageError, match=r"episode 2: .* larger `reference_start`"):
        selective_label_correction(task, labels, trained, 1)


def test_the_methods_work_in_the_run_of_episodes() -> None:
    given = noisy_labels(90, 3)
    episodes = list(selknn(make_task(given, Config(k=5, episodes=4)), None))
    current = given
    for episode in episodes:
        references = episode.correction.references
        assert torch.equal(episode.correction.labels[references], current[references])
        expected = select_references(current, episode.cumulative_loss, 0.2 + 0.1 * episode.index, None)
        assert references.tolist() == expected.tolist()
        current = episode.correction.labels
