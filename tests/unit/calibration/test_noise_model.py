import pytest
import torch

from noisyknn.calibration.noise_model import (
    HALF,
    NoiseModel,
    expected_counts,
    of_copies,
    posterior,
    reestimated,
    symmetric,
)

PRIOR = torch.tensor([[0.999, 0.0005, 0.0005], [0.5, 0.4, 0.1], [0.34, 0.33, 0.33]])
UNEVEN = torch.tensor([[0.9, 0.08, 0.02], [0.0, 0.7, 0.3], [0.05, 0.05, 0.9]])

STRENGTH = 20.0


def every_label(model: NoiseModel) -> torch.Tensor:
    """P(ỹ | x, y) as (N, given, true)."""
    return torch.stack([model.likelihood(PRIOR, torch.full((3,), given)) for given in range(3)], 1)


@pytest.mark.parametrize("growth", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("transition", [UNEVEN, symmetric(3, 0.4), torch.eye(3)])
def test_the_probabilities_of_all_given_labels_sum_to_one(transition: torch.Tensor, growth: float) -> None:
    likelihood = every_label(NoiseModel(transition=transition, growth=growth))
    torch.testing.assert_close(likelihood.sum(1), torch.ones(3, 3))


def test_without_growth_the_noise_is_the_matrix_on_every_image() -> None:
    likelihood = every_label(NoiseModel(transition=UNEVEN, growth=0.0))
    torch.testing.assert_close(likelihood, UNEVEN.T.expand(3, 3, 3), atol=1e-6, rtol=1e-5)


def test_ambiguous_images_are_mislabelled_more_often_and_as_what_they_look_like() -> None:
    model = NoiseModel(transition=symmetric(3, 0.1), growth=0.4)
    rate = model.rate(PRIOR)
    torch.testing.assert_close(rate[0], torch.full((3,), 0.1))  # a clear image: the matrix
    assert (rate[0] < rate[1]).all()
    assert (rate[1] < rate[2]).all()
    _, second, third = every_label(model)[1].T[0]  # true class 0: given 0, 1, 2
    assert second / third == pytest.approx((0.4 / 0.1) ** 0.4, rel=1e-4)


def test_bayes_rule_by_hand() -> None:
    prior = torch.tensor([[0.8, 0.2]])
    likelihood = torch.tensor([[0.1, 0.7]])
    assert posterior(prior, likelihood).tolist() == [pytest.approx([0.08 / 0.22, 0.14 / 0.22])]


def test_what_is_impossible_either_way_leaves_a_distribution() -> None:
    found = posterior(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert float(found.sum()) == pytest.approx(1)
    assert found.isfinite().all()


def test_the_matrix_is_counted_and_leans_on_the_average() -> None:
    beliefs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    given = torch.tensor([0, 1, 1, 1])
    assert expected_counts(beliefs, given).tolist() == [[1, 1.5], [0, 1.5]]
    right = (2.5 + HALF) / (4 + 2 * HALF)
    first, second = (1 + STRENGTH * right) / (2.5 + STRENGTH), (1.5 + STRENGTH * right) / (1.5 + STRENGTH)
    assert reestimated(beliefs, given, STRENGTH).diagonal().tolist() == pytest.approx([first, second])
    assert reestimated(beliefs, given, STRENGTH).sum(1).tolist() == pytest.approx([1, 1])


def test_wrong_labels_of_a_class_without_rows_name_the_others_as_often_as_wrong_labels_do() -> None:
    given = torch.tensor([2, 2, 2, 1, 0, 0, 0, 0])
    truth = torch.zeros(8, dtype=torch.int64)  # three labels name class 2 wrongly, one class 1
    found = reestimated(torch.nn.functional.one_hot(truth, 4).float(), given, STRENGTH)[3]
    wrong = (4 + HALF) / (8 + 2 * HALF)
    assert found.tolist() == pytest.approx([wrong / 7, wrong * 2 / 7, wrong * 4 / 7, 1 - wrong])


def test_the_right_name_stays_the_commonest_of_a_class() -> None:
    given = torch.tensor([1, 1, 1, 0, 2]).repeat(1000)
    beliefs = torch.eye(3)[torch.zeros(5000, dtype=torch.int64)]  # three fifths of the first class are named the second
    found = reestimated(beliefs, given, STRENGTH)[0]
    assert found.tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


def test_noise_is_shifted_until_a_wrong_name_is_as_common_and_flips_stay_alike() -> None:
    found = NoiseModel(transition=UNEVEN, growth=0.0).shifted(torch.tensor(0.5)).transition
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    rates = 1 - UNEVEN.diagonal()
    commonest = torch.stack([row.clone().index_fill_(0, torch.tensor(c), 0).max() for c, row in enumerate(UNEVEN)])
    most_wrong = 1 / (1 + commonest / rates)
    torch.testing.assert_close(((1 - found.diagonal()) / most_wrong).logit(), (rates / most_wrong).logit() + 0.5)
    torch.testing.assert_close(found[0, 1] / found[0, 2], UNEVEN[0, 1] / UNEVEN[0, 2])
    most = NoiseModel(transition=UNEVEN, growth=0.0).shifted(torch.tensor(50.0)).transition
    torch.testing.assert_close(most.diagonal(), 1 - most_wrong)
    torch.testing.assert_close(most.diagonal(), most.amax(1))


def test_symmetric_noise_of_four_classes() -> None:
    assert symmetric(4, 0.3)[1].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1])


def test_a_class_of_many_rows_speaks_for_itself() -> None:
    given = torch.tensor([0, 1]).repeat_interleave(10_000)
    truth = (torch.arange(20_000) >= 9000).long()  # a thousand labelled 0 are of class 1
    beliefs = torch.nn.functional.one_hot(truth, 2).float()
    found = reestimated(beliefs, given, STRENGTH)
    assert found[0].tolist() == pytest.approx([1, 0], abs=2e-3)
    assert found[1].tolist() == pytest.approx([1000 / 11_000, 10_000 / 11_000], abs=2e-3)


def test_labels_of_copies_count_as_one() -> None:
    """Rows 0, 2, 3 are one image, of which row 3 has no label; 1 is alone; 4 and 5 have no label at all."""
    images, given = torch.tensor([7, 8, 7, 7, 9, 9]), torch.tensor([0, 1, 1, -1, -1, -1])
    beliefs = torch.tensor([[0.8, 0.2], [0.3, 0.7], [0.1, 0.9], [0.5, 0.5], [0.6, 0.4], [0.6, 0.4]])
    found = of_copies(beliefs, images, given)
    odds = (0.8 / 0.2 * 0.1 / 0.9) ** 0.5
    joint = torch.tensor([odds, 1.0]) / (1 + odds)
    torch.testing.assert_close(found, torch.stack([joint, beliefs[1], joint, joint, beliefs[4], beliefs[5]]))
    assert torch.equal(found[1], beliefs[1])


def test_a_label_that_is_copied_with_its_image_says_no_more() -> None:
    beliefs = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7]])
    found = of_copies(beliefs, torch.tensor([1, 1, 2]), torch.tensor([0, 0, 1]))
    torch.testing.assert_close(found, beliefs)


def test_certain_labels_of_copies_may_contradict_each_other() -> None:
    beliefs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(of_copies(beliefs, torch.tensor([1, 1]), torch.tensor([0, 1])), torch.full((2, 2), 0.5))
