import math

import pytest
import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.errors import UsageError
from noisyknn.methods.baselines.pencil import SPEC, PencilObjective, Stages, pencil
from noisyknn.presets import overridden, preset_settings
from noisyknn.training.plan import Plan
from noisyknn.training.trainer import Trained
from tests.unit.methods.helpers import make_task, trained_of

GIVEN = torch.tensor([0, 2, 1, 1])
EPOCHS = 32  # stages end at 7, 20, 32


def make_objective(given: Tensor = GIVEN, **settings: float) -> PencilObjective:
    return PencilObjective(given, 3, Config(method="pencil", epochs=EPOCHS, **settings))  # type: ignore[arg-type]


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def slow_divergence(said: list[float], z: list[float]) -> float:
    labels = softmax(z)
    return sum(p * (math.log(p) - math.log(q)) for p, q in zip(said, labels, strict=True)) / len(said)


def test_on_clothing1m_weights_and_steps_are_the_authors() -> None:
    settings, _ = preset_settings("clothing1m", method="pencil", rows=10**6, classes=14, size=256, grey=False, gpu=True)
    found = PencilObjective(torch.arange(14), 14, overridden(settings, {"method": "pencil"}))
    assert found.compatibility_weight == pytest.approx(0.08)
    moved = found.label_rate * round(130 / 6)  # in an epoch, of which the second stage has six
    assert moved == pytest.approx(3000 / 64)  # their loss is a mean over a batch: each moves by λ / 64


def test_the_first_stage_is_cross_entropy() -> None:
    objective = make_objective()
    objective.begin_epoch(6)
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    losses, tracked = objective(logits, torch.tensor([3, 1]))
    expected = [-math.log(softmax(row)[label]) for row, label in zip(logits.tolist(), [1, 2], strict=True)]
    torch.testing.assert_close(losses, torch.tensor(expected))
    assert torch.equal(losses, tracked)
    assert torch.equal(objective.label_logits, 10 * torch.eye(3)[GIVEN])


def test_the_second_stage_by_hand() -> None:
    objective = make_objective(entropy_weight=0.3, compatibility_weight=0.15, label_rate=640 / 3)
    objective.label_logits.copy_(torch.tensor([[1.0, 0, 2], [0, 0.5, 1], [3, 1, 0], [0.2, 0.1, 0]]))
    objective.begin_epoch(7)
    before = objective.label_logits.clone()
    said = [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]
    samples = [3, 1]
    losses, _ = objective(torch.tensor(said).log(), torch.tensor(samples))
    rate, moves = 640 / 3 * 3 / 10 / 128, 10  # as many times more as there are fewer epochs: 13 instead of 130
    for loss, row, sample in zip(losses.tolist(), said, samples, strict=True):
        z = before[sample].tolist()
        entropy = -sum(p * math.log(p) for p in row) / 3
        assert loss == pytest.approx(slow_divergence(row, z) + 0.3 * entropy, rel=1e-5)

        def worth(z: list[float], row: list[float] = row, at: int = sample) -> float:
            return slow_divergence(row, z) - 0.5 * math.log(softmax(softmax(z))[int(GIVEN[at])])

        for _ in range(moves):
            shifted = [
                [[v + step * (place == c) for c, v in enumerate(z)] for step in (1e-5, -1e-5)] for place in range(3)
            ]
            gradient = [(worth(above) - worth(below)) / 2e-5 for above, below in shifted]
            z = [value - rate * slope for value, slope in zip(z, gradient, strict=True)]
        assert objective.label_logits[sample].tolist() == pytest.approx(z, rel=1e-3, abs=1e-4)
    assert torch.equal(objective.label_logits[[0, 2]], before[[0, 2]])


def test_the_third_stage_leaves_the_labels_alone() -> None:
    objective = make_objective()
    objective.begin_epoch(20)
    before = objective.label_logits.clone()
    losses, _ = objective(torch.zeros(4, 3), torch.arange(4))
    assert losses.tolist() == pytest.approx([slow_divergence([1 / 3] * 3, [10, 0, 0])] * 4, rel=1e-5)
    assert torch.equal(objective.label_logits, before)


def test_a_network_that_is_sure_moves_labels_to_the_other_class_however_few_the_epochs() -> None:
    for epochs in (5, 32, 320):
        objective = PencilObjective(GIVEN, 3, Config(method="pencil", epochs=epochs))
        stages = Stages.of(epochs)
        for epoch in range(epochs):
            objective.begin_epoch(epoch)
            objective(torch.tensor([[8.0, 0, 0]] * 4), torch.arange(4))
            if epoch < stages.first:
                assert objective.label_logits.argmax(1).tolist() == GIVEN.tolist()
        assert objective.label_logits.argmax(1).tolist() == [0, 0, 0, 0]


def test_labels_of_which_the_network_is_unsure_do_not_flip_to_and_fro_however_few_the_epochs() -> None:
    """Both schedules end where the divergence and the compatibility with the given label are least."""
    said = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]).log()
    given, ends = torch.tensor([1, 1, 0]), []
    for epochs in (20, 320):
        objective = PencilObjective(given, 3, Config(method="pencil", epochs=epochs))
        for epoch in range(epochs):
            objective.begin_epoch(epoch)
            objective(said, torch.arange(3))
        ends.append(objective.label_logits.softmax(1))
    torch.testing.assert_close(ends[0], ends[1], atol=0.02, rtol=0)


def test_labels_of_many_classes_move_as_those_of_ten_do() -> None:
    given = torch.tensor([0, 37, 99])
    objective = PencilObjective(given, 100, Config(method="pencil", epochs=40))
    sure = torch.zeros(3, 100)
    sure[:, 5] = 14
    for epoch in range(40):
        objective.begin_epoch(epoch)
        objective(sure, torch.arange(3))
    assert objective.label_logits.argmax(1).tolist() == [5, 5, 5]


def test_a_step_that_is_taken_again_moves_no_label_twice() -> None:
    once, twice = make_objective(), make_objective()
    for objective, times in ((once, 1), (twice, 2)):
        objective.begin_epoch(10)
        for _ in range(times):
            objective(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.arange(4))
    assert torch.equal(once.label_logits, twice.label_logits)
    assert not torch.equal(once.label_logits, 10 * torch.eye(3)[GIVEN])


def test_stages_and_rates_keep_their_shape() -> None:
    assert Stages.of(320) == Stages(70, 200, 320)
    assert [Stages.of(epochs) for epochs in (3, 4, 10)] == [Stages(1, 2, 3), Stages(1, 2, 4), Stages(2, 6, 10)]
    rate = Stages.of(32).rate(0.06, 10 / 3)
    assert [rate(epoch, 0.5) for epoch in (0, 19, 20, 23, 24, 27, 28, 31)] == pytest.approx(
        [0.06, 0.06, 0.2, 0.2, 0.02, 0.02, 0.002, 0.002]
    )
    with pytest.raises(UsageError, match="`epochs` 2 is too few for pencil"):
        SPEC.check(Config(method="pencil", epochs=2))


def test_labels_are_the_learnt_ones_or_where_none_was_given_the_networks() -> None:
    given = torch.tensor([0, 2, -1, 1])
    said = torch.tensor([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]])

    def carry_out(plan: Plan) -> Trained:
        assert (plan.episode, plan.epochs, plan.rows.tolist()) == (0, EPOCHS, [0, 1, 3])
        for epoch in range(plan.epochs):
            plan.objective.begin_epoch(epoch)
            plan.objective(said[plan.rows].log(), plan.rows)
        trained = trained_of(torch.zeros(4, 2), torch.zeros(4))
        return Trained(**{**trained.__dict__, "log_probabilities": said.log().half()})

    task = make_task(given, Config(method="pencil", epochs=EPOCHS), carry_out=carry_out)
    (episode,) = pencil(task, None)
    assert episode.correction.labels.tolist() == [0, 0, 1, 1]
    assert episode.network is not None
    assert list(pencil(task, episode)) == []
