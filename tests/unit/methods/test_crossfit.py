import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from noisyknn.calibration.calibrate import calibrate
from noisyknn.config import Config
from noisyknn.errors import InputError
from noisyknn.methods.algorithm1 import Episode, Task
from noisyknn.methods.crossfit import crossfit, deal
from noisyknn.training.trainer import Trained
from tests.unit.methods.helpers import MODEL, make_task

CONFIG = Config(method="crossfit", k=5, episodes=4, folds=2)
TRUTH = torch.arange(120) % 3


class Network:
    """A stand-in for training that knows the truth a little, and the targets of what it has learnt by heart."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, int, bool]] = []
        self.stretches: list[float] = []

    def __call__(
        self, rows: Tensor, targets: Callable[[Tensor], Tensor], episode: int, *, robust: bool, stretch: float
    ) -> Trained:
        self.stretches.append(stretch)
        self.calls.append((rows, targets(torch.arange(len(TRUTH))), episode, robust))
        generator = torch.Generator().manual_seed(episode)
        features = 2 * torch.eye(3)[TRUTH] + 0.5 * torch.randn(len(TRUTH), 3, generator=generator)
        logits = 4 * features
        logits[rows] = 50 * targets(rows).float()
        loss = torch.full((len(TRUTH),), float(episode + 1))
        return Trained(
            features=features, log_probabilities=logits.log_softmax(1).half(), cumulative_loss=loss, model=MODEL
        )


def given_labels() -> Tensor:
    given = TRUTH.clone()
    given[::5] = (given[::5] + 1) % 3
    return given


def task_of(given: Tensor, network: Network, config: Config = CONFIG) -> Task:
    return make_task(given, config, train_on_targets=network)


def same(one: Episode, other: Episode) -> bool:
    tensors = ("labels", "voted", "evidence", "references")
    return (
        one.index == other.index
        and torch.equal(one.cumulative_loss, other.cumulative_loss)
        and all(torch.equal(getattr(one.correction, name), getattr(other.correction, name)) for name in tensors)
    )


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_every_class_is_spread_over_the_folds(folds: int) -> None:
    given = torch.tensor([0] * 50 + [1] * 7 + [2] * 2 + [-1] * 5)
    dealt = deal(given, torch.arange(len(given)), folds, seed=3)
    for label in (-1, 0, 1, 2):
        sizes = Counter(dealt[given == label].tolist())
        assert max(sizes.values()) - min(sizes.get(fold, 0) for fold in range(folds)) <= 1
    assert torch.equal(dealt, deal(given, torch.arange(len(given)), folds, seed=3))
    assert not torch.equal(dealt, deal(given, torch.arange(len(given)), folds, seed=4))


def test_copies_of_an_image_share_a_fold() -> None:
    digests = torch.tensor([5, -3, 7, 9, 5, 5, -3, 7, 7, 11])
    dealt = deal(torch.tensor([0, 1, 0, 0, 1, 0, -1, 1, 0, 1]), digests, folds=3, seed=0)
    for digest in set(digests.tolist()):
        assert len(set(dealt[digests == digest].tolist())) == 1
    assert set(dealt.tolist()) == {0, 1, 2}


def test_the_first_networks_learn_no_sample_that_they_judge() -> None:
    given, network = given_labels(), Network()
    folds = deal(given, torch.arange(len(given)), 2, CONFIG.seed)
    first, second, *_ = crossfit(task_of(given, network), None)
    rows, targets, *_ = network.calls[0]
    assert rows.tolist() == torch.nonzero(folds == 1)[:, 0].tolist()
    assert torch.equal(targets[rows].argmax(1), given[rows])
    assert network.calls[1][0].tolist() == torch.nonzero(folds == 0)[:, 0].tolist()
    before, after = (episode.correction.evidence[folds == 0].float() for episode in (first, second))
    torch.testing.assert_close(after, before * (after.sum() / before.sum()), rtol=2e-3, atol=1e-3)


def test_where_few_have_a_label_the_first_network_sees_them_no_more_often_than_others_see_theirs() -> None:
    given, network = given_labels(), Network()
    given[20:] = -1
    list(crossfit(task_of(given, network, replace(CONFIG, folds=4)), None))
    assert network.stretches == pytest.approx([4 / 3] * 4, rel=0.02)
    assert [len(rows) for rows, *_ in network.calls] == [15, 90, 90, 90]


@pytest.mark.parametrize(("different", "folds"), [(1, 4), (2, 4), (5, 2), (4, 3), (5, 6)])
def test_too_few_different_images_are_refused(different: int, folds: int) -> None:
    task = replace(
        task_of(given_labels(), Network(), replace(CONFIG, folds=folds, episodes=folds)),
        digests=torch.arange(len(TRUTH)) % different,
    )
    with pytest.raises(InputError, match=f"for `folds` {folds}: {different}, {different} of them with a label"):
        list(crossfit(task, None))


@pytest.mark.parametrize(("folds", "different"), [(2, 6), (3, 5), (4, 4)])
def test_as_few_different_images_as_can_be(folds: int, different: int) -> None:
    task = replace(
        task_of(given_labels(), Network(), replace(CONFIG, folds=folds)), digests=torch.arange(len(TRUTH)) % different
    )
    assert len(list(crossfit(task, None))) == 4


def test_networks_are_made_equally_sure_by_labels_that_they_have_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def halved(evidence: Tensor, given: Tensor, judges: Tensor) -> Tensor:
        calls.append((given, judges))
        return evidence / 2

    monkeypatch.setattr(sys.modules[crossfit.__module__], "aligned", halved)
    given = given_labels()
    folds = deal(given, torch.arange(len(given)), 2, CONFIG.seed)
    first, second, third, _ = crossfit(task_of(given, Network()), None)
    (learnt, one), (all_given, two), (_, three), _ = calls
    assert torch.equal(learnt, torch.where(folds == 0, given, -1))
    assert torch.equal(all_given, given)
    assert (one == 0).all()  # the first network speaks of the other fold too
    assert torch.equal(two, folds)
    assert torch.equal(three, folds)
    again = torch.where((folds == 0)[:, None], first.correction.evidence / 2, second.correction.evidence)
    assert torch.equal(second.correction.evidence, again)
    assert torch.equal(third.correction.evidence[folds == 1], second.correction.evidence[folds == 1] / 2)


def test_what_leaks_of_a_label_is_taken_back_from_the_second_episode_on(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[crossfit.__module__]
    monkeypatch.setattr(module, "aligned", lambda evidence, *_: evidence)
    given = given_labels()
    given[:3] = -1
    as_judged: list[Tensor] = []
    taken_back: list[Tensor] = []
    for leak, found in ((0.0, as_judged), (0.25, taken_back)):
        monkeypatch.setattr(module, "LEAK", leak)
        found.extend(episode.correction.evidence.float() for episode in crossfit(task_of(given, Network()), None))
    assert torch.equal(as_judged[0], taken_back[0])
    folds = deal(given, torch.arange(len(given)), 2, CONFIG.seed)
    judged = (folds == 1) & (given >= 0)
    change = taken_back[1] - as_judged[1]
    own = change.gather(1, given.clamp_min(0)[:, None])
    others = (change.sum(1, keepdim=True) - own) / (change.shape[1] - 1)
    torch.testing.assert_close((own - others)[judged], torch.full((int(judged.sum()), 1), -0.25), atol=0.01, rtol=0)
    unlabelled = (folds == 1) & (given < 0)
    assert torch.equal(taken_back[1][unlabelled], as_judged[1][unlabelled])


def test_what_is_not_judged_yet_is_learnt_as_the_last_network_sees_it() -> None:
    given, network = given_labels(), Network()
    config = replace(CONFIG, folds=3, episodes=3)
    folds = deal(given, torch.arange(len(given)), 3, CONFIG.seed)
    first, *_ = crossfit(task_of(given, network, config), None)
    rows, targets, *_ = network.calls[1]
    assert rows.tolist() == torch.nonzero(folds != 1)[:, 0].tolist()
    evidence = first.correction.evidence
    calibration = calibrate(evidence[folds == 0], given[folds == 0])
    expected = calibration.posterior(evidence, given).half()
    torch.testing.assert_close(targets[rows], expected[rows])
    assert torch.equal(first.correction.labels, expected.argmax(1))


def test_later_networks_learn_what_is_believed_of_all_folds_but_the_one_they_judge() -> None:
    given, network = given_labels(), Network()
    folds = deal(given, torch.arange(len(given)), 2, CONFIG.seed)
    episodes = list(crossfit(task_of(given, network), None))
    for index in (2, 3):
        rows, targets, *_ = network.calls[index]
        assert rows.tolist() == torch.nonzero(folds != index % 2)[:, 0].tolist()
        before = episodes[index - 1].correction.evidence
        expected = calibrate(before, given).posterior(before, given).half()
        torch.testing.assert_close(targets[rows], expected[rows])
    assert [robust for *_, robust in network.calls] == [True, False, False, False]


def test_wrong_labels_are_found() -> None:
    given = given_labels()
    *_, last = crossfit(task_of(given, Network()), None)
    assert (given == TRUTH).float().mean() == pytest.approx(0.8)
    assert (last.correction.labels == TRUTH).float().mean() > 0.97
    assert (last.correction.voted == TRUTH).float().mean() > 0.95


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_resumed_run_yields_what_an_undisturbed_one_does(done: int) -> None:
    given = given_labels()
    whole = list(crossfit(task_of(given, Network()), None))
    resumed = list(crossfit(task_of(given, Network()), whole[done - 1]))
    assert len(resumed) == 4 - done
    assert all(map(same, whole[done:], resumed))


def test_no_tensor_of_an_episode_is_changed_by_the_next() -> None:
    kept = []
    for episode in crossfit(task_of(given_labels(), Network()), None):
        tensors = [episode.cumulative_loss, *vars(episode.correction).values()]
        kept += [(tensor, tensor.clone()) for tensor in tensors]
    assert len(kept) == 24
    assert all(torch.equal(tensor, copy) for tensor, copy in kept)


def test_the_first_network_learns_no_sample_without_a_label() -> None:
    given, network = given_labels(), Network()
    given[3::10] = -1
    unlabelled = set(torch.nonzero(given < 0)[:, 0].tolist())
    first, _, third, last = crossfit(task_of(given, network), None)
    assert not unlabelled & {*network.calls[0][0].tolist()}
    assert unlabelled & {*network.calls[1][0].tolist()}
    assert unlabelled <= {*network.calls[1][0].tolist(), *network.calls[2][0].tolist()}
    assert not unlabelled & {*first.correction.references.tolist()}
    assert unlabelled & {*third.correction.references.tolist()}
    assert (first.correction.labels[given < 0] == TRUTH[given < 0]).float().mean() > 0.9
    assert (last.correction.labels[given < 0] == TRUTH[given < 0]).float().mean() > 0.9


def test_the_loss_of_a_sample_is_that_of_the_last_network_that_learnt_it() -> None:
    given = given_labels()
    folds = deal(given, torch.arange(len(given)), 2, CONFIG.seed)
    first, second, third, _ = crossfit(task_of(given, Network()), None)
    assert first.cumulative_loss[folds == 1].eq(1).all()
    assert first.cumulative_loss[folds == 0].eq(0).all()
    assert second.cumulative_loss[folds == 0].eq(2).all()
    assert third.cumulative_loss[folds == 1].eq(3).all()
    assert third.cumulative_loss[folds == 0].eq(2).all()


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_folds_take_turns(folds: int) -> None:
    config = replace(CONFIG, folds=folds, episodes=folds + 1)
    given, network = given_labels(), Network()
    dealt = deal(given, torch.arange(len(given)), folds, config.seed)
    list(crossfit(task_of(given, network, config), None))
    for index, (rows, *_) in enumerate(network.calls[:folds]):
        assert set(dealt[rows].tolist()) == {*range(folds)} - {index}


def test_where_the_first_fold_has_no_label_images_without_one_are_learnt_as_any_class() -> None:
    network, given = Network(), torch.full_like(TRUTH, -1)
    given[:4] = TRUTH[:4]
    assert (given[deal(given, torch.arange(len(given)), 5, CONFIG.seed) == 0] < 0).all()
    list(crossfit(task_of(given, network, replace(CONFIG, folds=5, episodes=5)), None))
    rows, targets, *_ = network.calls[1]
    assert len(rows) == 96
    torch.testing.assert_close(targets[4:], torch.full((116, 3), 1 / 3).half())
    assert torch.equal(targets[:4].argmax(1), TRUTH[:4])


def test_images_of_no_class_do_not_vouch_for_each_other() -> None:
    class WithStrangers(Network):
        """The last thirty samples are alike, unlike all others, and not learnt."""

        def __call__(
            self, rows: Tensor, targets: Callable[[Tensor], Tensor], episode: int, *, robust: bool, stretch: float
        ) -> Trained:
            trained = super().__call__(rows, targets, episode, robust=robust, stretch=stretch)
            trained.features[90:] = torch.tensor([-2.0, -2.0, -2.0]) + 0.1 * trained.features[90:]
            trained.cumulative_loss[90:] += 1.0
            return trained

    *_, last = crossfit(task_of(given_labels(), WithStrangers()), None)
    distances = last.correction.distances
    assert distances[90:].min() > 2 * distances[:90].max()
