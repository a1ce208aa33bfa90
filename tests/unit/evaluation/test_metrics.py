import itertools

import numpy as np
import numpy.typing as npt
import pytest

from noisyknn.evaluation import metrics

TRUTH = np.array([0, 0, 0, 1, 1, 2, 2, 2])
GIVEN = np.array([0, 1, 0, 1, -1, 2, 0, -1])
CORRECTED = np.array([0, 0, 2, 1, 1, 2, 1, 0])


def draw(seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, 300), rng.integers(-1, 5, 300), rng.integers(-1, 6, 300)


def test_shares_by_hand() -> None:
    assert metrics.given_accuracy(TRUTH, GIVEN) == 4 / 8
    assert metrics.recovery(TRUTH, CORRECTED) == 5 / 8
    assert metrics.broken(TRUTH, GIVEN, CORRECTED) == 1 / 8
    assert metrics.fixed(TRUTH, GIVEN, CORRECTED) == 2 / 8


@pytest.mark.parametrize("seed", range(5))
def test_recovery_is_what_was_right_less_the_broken_plus_the_fixed(seed: int) -> None:
    truth, given, corrected = draw(seed)
    expected = (
        metrics.given_accuracy(truth, given)
        - metrics.broken(truth, given, corrected)
        + metrics.fixed(truth, given, corrected)
    )
    assert metrics.recovery(truth, corrected) == pytest.approx(expected)


def test_issue_metrics_by_hand_leave_out_rows_without_a_label() -> None:
    flags = np.array([True, True, False, True, True, False, False, True])
    found = metrics.issue_metrics(TRUTH, GIVEN, flags)
    assert [found.precision, found.recall, found.f1] == pytest.approx([1 / 3, 1 / 2, 2 / 5])


def test_issue_metrics_that_are_not_defined_are_none() -> None:
    no_flag = np.zeros(8, dtype=bool)
    assert metrics.issue_metrics(TRUTH, GIVEN, no_flag) == metrics.IssueMetrics(precision=None, recall=0, f1=0)
    assert metrics.issue_metrics(TRUTH, TRUTH, ~no_flag) == metrics.IssueMetrics(precision=0, recall=None, f1=0)
    nothing = metrics.IssueMetrics(precision=None, recall=None, f1=None)
    assert metrics.issue_metrics(TRUTH, TRUTH, no_flag) == nothing
    assert metrics.issue_metrics(TRUTH, np.full(8, -1), no_flag) == nothing


def test_auroc_is_the_chance_that_a_wrong_label_scores_lower() -> None:
    truth, given, _ = draw(1)
    score = np.round(np.random.default_rng(2).random(300), 1)  # rounded, so that there are ties
    score[::17] = np.nan
    known = [i for i in range(300) if given[i] >= 0 and not np.isnan(score[i])]
    wrong = [score[i] for i in known if given[i] != truth[i]]
    right = [score[i] for i in known if given[i] == truth[i]]
    wins = [1.0 if w < r else 0.5 if w == r else 0.0 for w, r in itertools.product(wrong, right)]
    assert metrics.auroc(truth, given, score) == pytest.approx(sum(wins) / len(wins))


def test_auroc_of_perfect_scores_is_one() -> None:
    assert metrics.auroc(TRUTH, GIVEN, np.where(GIVEN == TRUTH, 0.9, 0.1)) == 1


def test_auroc_without_both_kinds_is_none() -> None:
    score = np.linspace(0, 1, 8)
    assert metrics.auroc(TRUTH, TRUTH, score) is None
    assert metrics.auroc(TRUTH, (TRUTH + 1) % 3, score) is None
    assert metrics.auroc(TRUTH, GIVEN, np.full(8, np.nan)) is None


def test_class_metrics_against_a_slow_loop() -> None:
    truth, given, corrected = draw(3)
    found = metrics.class_metrics(truth, given, corrected)
    assert [one.label for one in found] == [0, 1, 2, 3, 4]
    for one in found:
        rows = [(g, k) for t, g, k in zip(truth, given, corrected, strict=True) if t == one.label]
        called_so = [t for t, k in zip(truth, corrected, strict=True) if k == one.label]
        assert one.rows == len(rows)
        assert one.given_accuracy == pytest.approx(sum(g == one.label for g, _ in rows) / len(rows))
        assert one.recovery == pytest.approx(sum(k == one.label for _, k in rows) / len(rows))
        assert one.broken == pytest.approx(sum(g == one.label != k for g, k in rows) / len(rows))
        assert one.fixed == pytest.approx(sum(g != one.label == k for g, k in rows) / len(rows))
        assert one.corrected_precision == pytest.approx(sum(t == one.label for t in called_so) / len(called_so))


def test_a_class_that_no_row_is_corrected_to_has_no_precision() -> None:
    (first, second) = metrics.class_metrics(np.array([0, 2]), np.array([0, 2]), np.array([0, 0]))
    assert (first.label, first.corrected_precision, first.recovery) == (0, 0.5, 1)
    assert (second.label, second.corrected_precision, second.recovery, second.broken) == (2, None, 0, 1)


def test_evaluate_leaves_out_rows_without_a_truth() -> None:
    unknown = np.array([-1, -1])
    found = metrics.evaluate(
        np.concatenate([TRUTH, unknown]),
        np.concatenate([GIVEN, [0, 1]]),
        np.concatenate([CORRECTED, [0, 1]]),
        is_issue=np.array([True, True, False, True, True, False, False, True, True, True]),
        label_score=np.array([0.9, 0.2, 0.8, 0.7, np.nan, 0.1, 0.3, np.nan, 0.5, 0.5]),
    )
    assert (found.rows, found.evaluated_rows) == (10, 8)
    assert (found.given_accuracy, found.recovery, found.broken, found.fixed) == (0.5, 0.625, 0.125, 0.25)
    assert [found.precision, found.recall, found.f1] == pytest.approx([1 / 3, 1 / 2, 2 / 5])
    assert found.auroc == 6 / 8  # wrong rows score .2 and .3, right ones .9, .8, .7 and .1
    assert found.per_class == metrics.class_metrics(TRUTH, GIVEN, CORRECTED)


def test_evaluate_without_flags_and_scores() -> None:
    found = metrics.evaluate(TRUTH, GIVEN, CORRECTED)
    assert (found.precision, found.recall, found.f1, found.auroc) == (None, None, None, None)


def test_evaluate_needs_a_truth() -> None:
    with pytest.raises(ValueError, match="no row"):
        metrics.evaluate(np.array([-1]), np.array([0]), np.array([0]))


def test_calibration_against_a_slow_loop() -> None:
    generator = np.random.default_rng(0)
    confidence, right = generator.random(500), generator.random(500) < 0.6
    confidence[:3] = (0, 1 / 15, 1)  # the borders belong to the bin below, but 0 to the first
    found = metrics.calibration(confidence, right)
    assert found is not None
    error = 0.0
    for low in range(15):
        rows = [i for i, c in enumerate(confidence) if low / 15 < c <= (low + 1) / 15 or (c == 0 and low == 0)]
        gap = abs(sum(confidence[i] for i in rows) - sum(bool(right[i]) for i in rows))
        error += gap / 500
        (own,) = [one for one in found.table if one.low == pytest.approx(low / 15)]
        assert own.rows == len(rows)
    assert found.error == pytest.approx(error)


def test_calibration_of_perfect_and_of_hopeless_confidence() -> None:
    right = np.array([True, True, False, False])
    perfect, hopeless = (metrics.calibration(confidence.astype(float), right) for confidence in (right, ~right))
    assert perfect is not None
    assert hopeless is not None
    assert (perfect.error, hopeless.error) == (0, 1)


def test_rows_without_a_confidence_do_not_count() -> None:
    found = metrics.calibration(np.array([np.nan, 1.0, 1.0]), np.array([False, True, False]))
    assert found is not None
    assert [(one.rows, one.accuracy) for one in found.table] == [(2, 0.5)]
    assert metrics.calibration(np.array([np.nan]), np.array([True])) is None


def test_a_rule_is_judged_on_rows_whose_truth_is_known() -> None:
    found = metrics.rule_metrics("rule", np.array([0, 1, -1, 2]), np.array([0, 0, 0, 2]), np.array([0, 1, 1, 1]))
    assert (found.recovery, found.broken, found.fixed) == (2 / 3, 1 / 3, 1 / 3)
