import numpy as np
import pytest
import torch
from torch import Tensor

from noisyknn.calibration import calibrate as calibration_module
from noisyknn.calibration.calibrate import Calibration, aligned, calibrate
from noisyknn.calibration.noise_model import NoiseModel, symmetric
from noisyknn.evaluation import metrics
from tests.unit.calibration.made_labels import Made, make


def error(probabilities: Tensor, truth: Tensor) -> float:
    """Expected calibration error of the likeliest class."""
    confidence, label = probabilities.max(1)
    found = metrics.calibration(confidence.double().numpy(), (label == truth).numpy())
    assert found is not None
    return found.error


def noise_rate(found: Calibration, evidence: Tensor, given: Tensor) -> float:
    return 1 - float(found.posterior(evidence, given).gather(1, given[:, None]).mean())


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("sureness", [0.4, 1.0, 3.0])
def test_over_sure_evidence_becomes_probabilities_of_the_truth(rate: float, sureness: float) -> None:
    made = make(8000, 5, symmetric(5, rate))
    found = calibrate(sureness * made.logs, made.given)
    assert found.temperature == pytest.approx(1 / sureness, rel=0.15)
    assert noise_rate(found, sureness * made.logs, made.given) == pytest.approx(rate, abs=0.02)
    assert error(found.prior(sureness * made.logs), made.truth) < 0.02
    assert error(found.posterior(sureness * made.logs, made.given), made.truth) < 0.02


def test_the_matrix_of_flips_is_found() -> None:
    transition = torch.eye(4)
    transition[1] = torch.tensor([0.3, 0.7, 0.0, 0.0])
    transition[2] = torch.tensor([0.0, 0.0, 0.8, 0.2])
    made = make(12_000, 4, transition)
    found = calibrate(made.logs, made.given).noise.transition
    torch.testing.assert_close(found, transition, atol=0.04, rtol=0)


def test_of_two_classes_that_are_confused_none_swallows_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    transition = torch.tensor([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]])
    errors: dict[float, list[float]] = {}
    right: dict[float, list[float]] = {}
    for weight in (0.0, calibration_module.SIZES):
        monkeypatch.setattr(calibration_module, "SIZES", weight)
        errors[weight], right[weight] = [], []
        for seed in range(4):
            made = make(600, 3, transition, seed=seed, spread=1.0)
            found = calibrate(made.logs, made.given)
            sizes = torch.bincount(made.truth, minlength=3) / 600
            errors[weight].append(float((found.prior(made.logs).mean(0) - sizes).abs().max()))
            label = found.posterior(made.logs, made.given).argmax(1)
            right[weight].append(float((label == made.truth).float().mean()))
    free, held = errors.values()
    assert all(one < other for one, other in zip(held, free, strict=True))
    assert sum(held) < 0.85 * sum(free)
    assert sum(right[weight]) > sum(right[0.0])


def test_noise_that_is_the_same_everywhere_does_not_grow() -> None:
    made = make(8000, 5, symmetric(5, 0.4))
    assert calibrate(made.logs, made.given).noise.growth == 0


def ambiguous_noise(samples: int, growth: float) -> Made:
    """Labels that are wrong, and alike, the more often the harder an image is to tell."""
    made = make(samples, 4, torch.eye(4), spread=2.5)
    noise, prior = NoiseModel(transition=symmetric(4, 0.15), growth=growth), made.logs.exp()
    likelihoods = [noise.likelihood(prior, torch.full((samples,), label)) for label in range(4)]
    of_truth = torch.stack([each.gather(1, made.truth[:, None])[:, 0] for each in likelihoods], 1)
    given = torch.multinomial(of_truth, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    return Made(made.logs, made.truth, given)


def test_noise_that_grows_with_ambiguity_is_believed_once_many_labels_speak_for_it() -> None:
    many, few = ambiguous_noise(20_000, 0.2), ambiguous_noise(600, 0.2)
    found = calibrate(many.logs, many.given)
    assert found.noise.growth == pytest.approx(0.2, abs=0.11)
    wrong = float((many.given != many.truth).float().mean())
    assert noise_rate(found, many.logs, many.given) == pytest.approx(wrong, abs=0.04)
    assert calibrate(few.logs, few.given).noise.growth == 0


def test_growth_may_explain_labels_a_little_worse_for_each_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ambiguous_noise(20_000, 0.1)
    believed = calibrate(made.logs, made.given).noise.growth
    monkeypatch.setattr(calibration_module, "MISFIT", 0.0)
    assert 0 < calibrate(made.logs, made.given).noise.growth < believed


@pytest.mark.parametrize("seed", range(4))
def test_few_images_that_are_told_easily_are_not_explained_by_blurred_evidence(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are told right; a third of the labels is wrong. The labels alone cannot tell the one from the other."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 3, (150,), generator=generator)
    logs = 5.0 * torch.nn.functional.one_hot(truth, 3) + 0.7 * torch.randn(150, 3, generator=generator)
    moved = truth + torch.randint(1, 3, (150,), generator=generator)
    given = torch.where(torch.rand(150, generator=generator) < 0.3, moved % 3, truth)
    wrong, evidence = float((given != truth).float().mean()), logs.log_softmax(1)
    assert noise_rate(calibrate(evidence, given), evidence, given) == pytest.approx(wrong, abs=0.05)
    if seed == 0:  # where the likeliest explanation is the other one
        monkeypatch.setattr(calibration_module, "CONFIDENCE", 1e9)
        assert noise_rate(calibrate(evidence, given), evidence, given) < wrong - 0.1


def test_networks_of_unlike_sureness_are_made_equally_sure() -> None:
    made = make(8000, 5, symmetric(5, 0.3), spread=2.0)
    judges = torch.arange(8000) % 4
    sureness = torch.tensor([3.0, 1.0, 1.0, 0.7])[judges, None]
    mixed = made.logs * sureness
    found = aligned(mixed, made.given, judges)
    relative = found.sum(1) / made.logs.sum(1)
    each = torch.stack([relative[judges == judge].median() for judge in range(4)])
    torch.testing.assert_close(each / each.mean(), torch.ones(4), atol=0.12, rtol=0)

    def right(evidence: Tensor) -> float:
        beliefs = calibrate(evidence, made.given).posterior(evidence, made.given)
        return float((beliefs.argmax(1) == made.truth).float().mean())

    assert right(mixed) + 0.01 < right(found)
    assert abs(right(made.logs) - right(found)) < 0.003


def test_what_is_found_of_a_network_holds_for_samples_whose_labels_it_has_learnt() -> None:
    made = make(3000, 3, symmetric(3, 0.2))
    judges = torch.arange(3000) % 2
    mixed = made.logs * torch.where(judges == 0, 4.0, 1.0)[:, None]
    given = torch.where(torch.arange(3000) < 2000, made.given, -1)
    factors = aligned(mixed, given, judges).sum(1) / mixed.sum(1)
    torch.testing.assert_close(factors[2000:], factors[:1000])
    assert factors[0] < 0.5 * factors[1]


@pytest.mark.parametrize(("networks", "labelled"), [(1, 40), (3, 0)])
def test_a_single_network_and_one_without_labels_are_left_as_they_are(networks: int, labelled: int) -> None:
    evidence = 5 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).log_softmax(1).half()
    given = torch.where(torch.arange(40) < labelled, torch.arange(40) % 2, -1)
    assert torch.equal(aligned(evidence, given, torch.arange(40) % networks), evidence)


def test_of_a_handful_of_rows_no_network_is_said_to_be_much_surer_than_another() -> None:
    given = torch.arange(12) % 2
    evidence = torch.where(torch.arange(12) < 6, 8.0, 1.0)[:, None] * torch.eye(2)[given]
    found = aligned(evidence.log_softmax(1), given, torch.arange(12) // 6)
    assert found.isfinite().all()
    assert ((found / evidence.log_softmax(1)).log().abs() < 1).all()


@pytest.mark.parametrize(("samples", "classes"), [(600, 10), (40, 2)])
def test_labels_that_the_evidence_knows_nothing_of_are_doubted(samples: int, classes: int) -> None:
    """Either they are at random or nothing was learnt: none is changed, and none is said to be surely right."""
    given = torch.arange(samples) % classes
    evidence = 3 * torch.randn(samples, classes, generator=torch.Generator().manual_seed(0))
    found = calibrate(evidence, given)
    assert found.doubt == pytest.approx(0.5, abs=0.1)
    beliefs = found.posterior(evidence, given)
    assert (beliefs.argmax(1) == given).all()
    assert beliefs.amax(1).mean() == pytest.approx(0.5 + 0.5 / classes, abs=0.1)


@pytest.mark.parametrize(("samples", "classes", "rate"), [(100, 2, 0.2), (200, 10, 0.4), (2000, 10, 0.8)])
def test_labels_that_the_evidence_tells_are_not_doubted(samples: int, classes: int, rate: float) -> None:
    made = make(samples, classes, symmetric(classes, rate))
    assert calibrate(made.logs, made.given).doubt < 0.01


def test_classes_of_a_handful_of_rows_keep_labels_that_a_poor_network_denies() -> None:
    """Four rows of each of ten classes, all right; of half of them the network is sure of another class."""
    given = torch.arange(40) % 10
    said = torch.where(torch.arange(40) < 20, given, (given + 1 + torch.arange(40) // 10) % 10)
    evidence = (2.0 * torch.nn.functional.one_hot(said, 10)).log_softmax(1)
    beliefs = calibrate(evidence, given).posterior(evidence, given)
    assert (beliefs.argmax(1) == given).all()


def test_the_posterior_beats_both_the_evidence_and_the_label() -> None:
    made = make(5000, 5, symmetric(5, 0.3), spread=2.0)
    found = calibrate(made.logs, made.given)
    right = [
        float((labels == made.truth).float().mean())
        for labels in (made.given, made.logs.argmax(1), found.posterior(made.logs, made.given).argmax(1))
    ]
    assert right[2] > max(right[:2]) + 0.03


def test_a_label_that_the_image_does_not_explain_is_a_surprise() -> None:
    made = make(5000, 5, symmetric(5, 0.3), spread=2.0)
    given = made.given.clone()
    given[0] = -1
    found = calibrate(made.logs, given)
    surprise, prior = found.surprise(made.logs, given), found.prior(made.logs)
    assert surprise[0] == 1
    expected = found.chances[given[1]] / (prior[1] @ found.noise.likelihood(prior[1:], given[1:])[0])
    torch.testing.assert_close(surprise[1], expected)
    wrong = given != made.truth
    assert surprise[1:][wrong[1:]].median() > 1 > surprise[1:][~wrong[1:]].median()


def test_samples_without_a_label_are_judged_by_the_evidence_alone() -> None:
    made = make(500, 3, symmetric(3, 0.2))
    given = made.given.clone()
    given[::2] = -1
    found = calibrate(made.logs, given)
    torch.testing.assert_close(found.posterior(made.logs, given)[::2], found.prior(made.logs)[::2])
    assert found.temperature == calibrate(made.logs[1::2], given[1::2]).temperature


@pytest.mark.parametrize("rare", [5, 20])
def test_a_rare_class_is_not_swallowed(rare: int) -> None:
    """100 : 1 and rarer, with evidence that is as unsure of the rare class as networks are."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([0] * 2000 + [1] * 2000 + [2] * rare)
    logits = torch.randn(len(truth), 3, generator=generator)
    logits[torch.arange(len(truth)), truth] += 3
    logits[:, 2] -= 2
    found = calibrate(logits.log_softmax(1), truth)
    beliefs = found.posterior(logits.log_softmax(1), truth)
    assert (beliefs[-rare:].argmax(1) == 2).float().mean() >= 0.8
    assert (beliefs[:-rare].argmax(1) == truth[:-rare]).float().mean() > 0.99


def small(samples: int, classes: int) -> Made:
    return make(samples, classes, symmetric(classes, 0.1))


@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (2, 2), (3, 3), (4, 3), (50, 2), (60, 40), (600, 400)])
def test_any_number_of_rows_and_classes_gives_distributions(samples: int, classes: int) -> None:
    made = small(samples, classes)
    for evidence in (made.logs.half(), torch.zeros_like(made.logs), 1000 * made.logs)[: 1 if classes == 1000 else 3]:
        beliefs = calibrate(evidence, made.given).posterior(evidence, made.given)
        assert beliefs.isfinite().all()
        torch.testing.assert_close(beliefs.sum(1), torch.ones(samples))


def test_evidence_that_is_certain_and_wrong_leaves_numbers() -> None:
    given = torch.tensor([0, 1]).repeat(20)
    evidence = torch.full((40, 2), -50.0)
    evidence[torch.arange(40), 1 - given] = 0
    assert calibrate(evidence, given).posterior(evidence, given).isfinite().all()


def test_the_same_input_gives_the_same_bits() -> None:
    made = small(700, 4)
    one, two = (calibrate(made.logs, made.given).posterior(made.logs, made.given) for _ in range(2))
    assert np.array_equal(one.numpy(), two.numpy())


def test_beyond_a_limit_a_sample_of_the_rows_is_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(6000, 4, symmetric(4, 0.3))
    whole = calibrate(made.logs, made.given)
    monkeypatch.setattr(calibration_module, "FIT_ELEMENTS", 4 * 3000)
    half = calibrate(made.logs, made.given)
    assert half.temperature != whole.temperature
    assert half.temperature == pytest.approx(whole.temperature, rel=0.1)
    torch.testing.assert_close(half.noise.transition, whole.noise.transition, atol=0.05, rtol=0)


@pytest.mark.parametrize("limit", ["FIT_ELEMENTS", "GROWTH_ELEMENTS"])
def test_a_sample_of_rows_that_take_the_classes_in_turn_has_them_all(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(8000, 4, symmetric(4, 0.1))
    in_turn = torch.empty(8000, dtype=torch.int64)
    for label in range(4):  # as near to 0, 1, 2, 3, 0, 1, … as their numbers allow
        rows = torch.nonzero(made.truth == label)[:, 0]
        in_turn[rows] = 4 * torch.arange(len(rows)) + label
    order = in_turn.argsort()
    evidence, given, truth = made.logs[order], made.given[order], made.truth[order]
    monkeypatch.setattr(calibration_module, limit, 4 * 2000)
    right = calibrate(evidence, given).posterior(evidence, given).argmax(1) == truth
    assert float(right.float().mean()) > float((given == truth).float().mean())


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    given = torch.arange(50) % 5 - 1
    calibration = calibrate(evidence, given)
    whole = calibration.prior(evidence), calibration.posterior(evidence, given)
    monkeypatch.setattr("noisyknn.calibration.calibrate.TILE_ELEMENTS", 4 * 7)
    for one, other in zip(whole, (calibration.prior(evidence), calibration.posterior(evidence, given)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
def test_many_classes_of_few_rows_are_not_explained_by_flips_of_their_own(rate: float) -> None:
    """40 classes of 30 rows: a matrix of 1,600 flips would explain what the network confuses."""
    made = make(1200, 40, symmetric(40, rate), spread=2.2)
    found = calibrate(made.logs, made.given)
    label = found.posterior(made.logs, made.given).argmax(1)
    broken = (made.given == made.truth) & (label != made.truth)
    assert noise_rate(found, made.logs, made.given) == pytest.approx(rate, abs=0.04)
    assert float(broken.float().mean()) <= 0.003 + 0.1 * rate


@pytest.mark.parametrize(("samples", "classes", "rate"), [(4000, 2, 0.3), (3000, 10, 0.8), (20_000, 10, 0.85)])
def test_much_noise_is_found(samples: int, classes: int, rate: float) -> None:
    """Little noise and evidence that is hardly believed explain such labels almost as well."""
    made = make(samples, classes, symmetric(classes, rate), spread=2.0)
    found = calibrate(made.logs, made.given)
    assert noise_rate(found, made.logs, made.given) == pytest.approx(rate, abs=0.05)
    assert error(found.posterior(made.logs, made.given), made.truth) < 0.1


def test_classes_have_noise_of_their_own_where_held_out_labels_say_so() -> None:
    uneven = torch.eye(5)
    uneven[0, 0], uneven[0, 3] = 0.5, 0.5
    own, alike = make(4000, 5, uneven), make(4000, 5, symmetric(5, 0.1))
    assert calibrate(own.logs, own.given).strength < calibrate(alike.logs, alike.given).strength


def test_three_wrong_labels_among_thousands_are_found() -> None:
    made = make(3000, 10, torch.eye(10), spread=8.0)
    clear = torch.nonzero(made.logs.amax(1) > -1e-3)[:3, 0]
    given = made.given.clone()
    given[clear] = (made.truth[clear] + 1) % 10
    beliefs = calibrate(made.logs, given).posterior(made.logs, given)
    assert torch.equal(beliefs[clear].argmax(1), made.truth[clear])
    assert int((beliefs.argmax(1) != given).sum()) < 3 + 5


def test_weak_evidence_and_much_noise_are_told_from_labels_at_random() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(10, (5000,), generator=generator)
    logits = 1.5 * torch.eye(10)[truth] + torch.randn(5000, 10, generator=generator)
    flipped = (truth + torch.randint(1, 10, (5000,), generator=generator)) % 10
    given = torch.where(torch.rand(5000, generator=generator) < 0.8, flipped, truth)
    at_random = torch.randint(10, (5000,), generator=generator)
    evidence = logits.log_softmax(1)
    found = calibrate(evidence, given)
    assert found.doubt < 0.01
    assert found.noise.transition.diagonal().mean() == pytest.approx(0.2, abs=0.05)
    assert calibrate(evidence, at_random).doubt > 0.4
