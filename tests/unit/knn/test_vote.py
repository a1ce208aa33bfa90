import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from noisyknn.knn import search as search_module
from noisyknn.knn.torch_search import TorchSearch
from noisyknn.knn.vote import Votes, majority, poll, poll_uncertain, soft_votes


def slow_majority(voices: list[int], distances: list[float]) -> int:
    counts = Counter(voices)
    most = max(counts.values())
    nearness = []
    for label, count in counts.items():
        if count == most:
            total = 0.0
            for voice, distance in zip(voices, distances, strict=True):
                if voice == label:
                    total += distance
            nearness.append((total, label))
    return min(nearness)[1]


@pytest.mark.parametrize(
    ("voices", "distances", "winner"),
    [
        ([2, 2, 0, 1, 2], [9.0, 9.0, 0.1, 0.1, 9.0], 2),  # a majority, however far
        ([0, 2, 2, 0], [0.1, 0.2, 0.3, 0.5], 2),  # a tie: 0.5 is nearer in sum than 0.6
        ([2, 0, 0, 2], [0.1, 0.2, 0.3, 0.5], 0),
        ([2, 1, 1, 2], [1.0, 1.0, 2.0, 2.0], 1),  # a tie in sum too
        ([0, 1, 2, 0, 1], [1.0, 1.0, 0.0, 1.0, 0.5], 1),  # the nearest of all has only one voice
        ([2, 1, 0], [0.0, 0.0, 0.0], 0),  # exact duplicates
        ([2], [4.0], 2),
    ],
)
def test_majority_by_hand(voices: list[int], distances: list[float], winner: int) -> None:
    assert majority(torch.tensor([voices]), torch.tensor([distances]), classes=3).tolist() == [winner]


def test_majority_equals_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    voices = torch.randint(4, (300, 6), generator=generator)
    distances = torch.randint(4, (300, 6), generator=generator) / 4  # coarse, so that sums are often equal
    expected = [slow_majority(*pair) for pair in zip(voices.tolist(), distances.tolist(), strict=True)]
    assert majority(voices, distances, classes=4).tolist() == expected
    assert majority(voices, distances, classes=9).tolist() == expected


def test_sums_that_are_equal_are_a_tie_in_whatever_order_they_are_added() -> None:
    distances = torch.tensor([[0.1, 0.1, 0.7, 0.7, 1e3, 1e3]])  # in float32 the order of adding would decide
    for voices in ([0, 1, 1, 0, 1, 0], [1, 0, 0, 1, 1, 0], [1, 0, 1, 0, 0, 1]):
        assert majority(torch.tensor([voices]), distances, classes=2).tolist() == [0]


def line(places: list[float]) -> Tensor:
    return torch.tensor(places)[:, None]


def vote(features: Tensor, references: list[int], labels: list[int], k: int) -> Votes:
    return poll(features, torch.tensor(references), torch.tensor(labels), k, TorchSearch, classes=3)


def counts(votes: Votes, k: int) -> list[list[int]]:
    """Votes for each class, from the smoothed logarithms of their shares."""
    found: list[list[int]] = (votes.log_shares.float().exp() * (k + 1.5) - 0.5).round().int().tolist()
    return found


def test_poll_by_hand() -> None:
    votes = vote(
        line([0.0, 1.0, 2.1, 10.0, 11.0, 12.1]),
        references=[0, 1, 2, 3, 4, 5],
        labels=[0, 0, 1, 2, 2, 0],
        k=2,
    )
    #                  neighbours' labels: 0 1, 0 1, 0 0, 2 0, 2 0, 2 2
    assert votes.winner.tolist() == [0, 0, 0, 2, 2, 2]  # ties go to the nearer
    assert counts(votes, 2) == [[1, 1, 0], [1, 1, 0], [2, 0, 0], [1, 0, 1], [1, 0, 1], [0, 0, 2]]
    assert votes.log_shares[2].tolist() == pytest.approx([math.log(2.5 / 3.5), *[math.log(0.5 / 3.5)] * 2], rel=1e-3)


def test_only_references_vote_and_all_samples_are_voted_on() -> None:
    votes = vote(line([0.0, 0.1, 0.2, 5.0, 6.0, 7.0]), [3, 4, 5], labels=[1, 1, 1, 0, 2, 2], k=2)
    assert votes.winner.tolist() == [0, 0, 0, 2, 0, 2]
    assert counts(votes, 2) == [[1, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 2], [1, 0, 1], [1, 0, 1]]


def test_shares_count_the_neighbours_there_are() -> None:
    votes = vote(line([0.0, 1.0, 2.5, 4.5]), [0, 1, 2], labels=[0, 1, 1, 1], k=100)
    assert counts(votes, 2) == [[0, 2, 0], [1, 1, 0], [1, 1, 0], [0, 2, 0]]
    assert votes.winner.tolist() == [1, 0, 1, 1]


def test_samples_without_a_label_are_voted_on_but_never_vote() -> None:
    votes = vote(line([0.0, 0.1, 0.2, 0.3, 9.0]), [0, 3, 4], labels=[2, -1, -1, 2, 1], k=2)
    assert votes.winner.tolist() == [2, 2, 2, 2, 2]
    assert counts(votes, 2) == [[0, 1, 1], [0, 0, 2], [0, 0, 2], [0, 1, 1], [0, 0, 2]]


def test_a_sample_is_as_far_as_the_neighbours_that_its_class_has() -> None:
    """Two rows of class 1 near each other are no strangers, though most of their neighbours are far."""
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3, 2.0, 2.1])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = [0, 0, 0, 0, 1, 1]
    votes = vote(features, list(range(6)), labels, k=4)
    assert votes.distances[4].item() == pytest.approx(math.sin(0.05) + math.sin(0.85), rel=1e-4)
    whole = (math.sin(0.05) + math.sin(0.1) + math.sin(0.15) + math.sin(1.0)) / 2  # chords are twice the sine
    assert votes.distances[0].item() == pytest.approx(whole, rel=1e-4)
    beliefs = torch.nn.functional.one_hot(torch.tensor(labels), 3).half()
    everyone = torch.arange(6)
    soft = poll_uncertain(features, everyone, everyone, beliefs, 4, TorchSearch, everyone)
    torch.testing.assert_close(soft.distances, votes.distances)


def test_tiles_are_joined_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(57, 3, generator=generator)
    labels = torch.randint(3, (57,), generator=generator)
    whole = poll(features, torch.arange(57), labels, 5, TorchSearch, classes=3)
    monkeypatch.setattr(search_module, "QUERIES", 10)
    tiled = poll(features, torch.arange(57), labels, 5, TorchSearch, classes=3)
    assert torch.equal(whole.winner, tiled.winner)
    assert torch.equal(whole.log_shares, tiled.log_shares)
    for sample in range(57):
        distances = (features - features[sample]).square().sum(1)
        distances[sample] = torch.inf
        near = distances.argsort()[:5]
        assert whole.winner[sample] == slow_majority(labels[near].tolist(), distances[near].sqrt().tolist())
        assert counts(whole, 5)[sample] == torch.bincount(labels[near], minlength=3).tolist()


def test_the_uncertain_vote_on_the_samples_that_are_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    features, beliefs = torch.randn(40, 3, generator=generator), torch.rand(40, 3, generator=generator)
    beliefs /= beliefs.sum(1, keepdim=True)
    references, samples = torch.arange(0, 40, 2), torch.tensor([7, 3, 8])
    clear = references[3:]
    votes = poll_uncertain(features, references, clear, beliefs, 5, TorchSearch, samples)
    unit = features / features.norm(dim=1, keepdim=True)
    for place, sample in enumerate(samples.tolist()):
        others = references[references != sample]
        near = others[(features[others] - features[sample]).norm(dim=1).argsort()[:5]]
        expected = ((beliefs[near].sum(0) + 0.5) / 6.5).log()
        torch.testing.assert_close(votes.log_shares[place].float(), expected, atol=2e-3, rtol=0)
        assert votes.winner[place] == expected.argmax()
        others = clear[clear != sample]
        near = others[(features[others] - features[sample]).norm(dim=1).argsort()[:5]]
        assert votes.distances[place] == pytest.approx(float((unit[near] - unit[sample]).norm(dim=1).mean()), rel=1e-5)


def test_uncertain_neighbours_share_their_voices_out() -> None:
    beliefs = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]).half()
    rows = torch.tensor([[0, 1], [1, 2], [2, 2]])
    assert soft_votes(beliefs, rows).tolist() == [[1.5, 0.25, 0.25], [0.5, 0.25, 1.25], [0.0, 0.0, 2.0]]


def test_votes_of_the_certain_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    labels, rows = (torch.randint(high, (40, 6), generator=generator) for high in (4, 40))
    beliefs = torch.nn.functional.one_hot(labels[:, 0], 4).half()
    monkeypatch.setattr("noisyknn.knn.search.TILE_ELEMENTS", 100)
    voices = labels[:, 0][rows]
    expected = [[row.count(label) for label in range(4)] for row in voices.tolist()]
    assert soft_votes(beliefs, rows).int().tolist() == expected
