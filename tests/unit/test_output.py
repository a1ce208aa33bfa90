import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

from noisyknn.data.table import LabelTable, read_labels
from noisyknn.output import (
    NEW_COLUMNS,
    Outcome,
    accuracy_figures,
    fixed_table,
    probability_table,
    statuses,
    summarise,
)

LABELS = ["b", "a", None, "b", None, "a"]
CORRECTED = [1, 1, 0, -1, -1, 1]
READABLE = [True, True, True, False, False, True]
NAN = float("nan")
PRIOR = np.array([[0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [NAN, NAN], [NAN, NAN], [1, 0]], dtype=np.float32)


def table_of(labels: object) -> LabelTable:
    frame = pd.DataFrame(
        {"path": list("uvwxyz"), "label": labels, "extra": range(6)}, index=pd.Index([9, 9, 8, 7, 6, 5])
    )
    return read_labels(frame)


def outcome_of(labels: list[int]) -> Outcome:
    return Outcome(
        labels=np.array(labels),
        confidence=np.array([0.9, 0.7, 1 / 3, NAN, NAN, 1], dtype=np.float32),
        label_score=np.array([0.9, 0.3, 0, NAN, NAN, 0], dtype=np.float32),
        prior=PRIOR,
        no_class=np.array([0.1, 0.2, 0, NAN, NAN, 0.75], dtype=np.float32),
        voted=np.array([1, 0, 0, -1, -1, 0]),
        left_out=np.zeros(6, dtype=np.bool_),
        doubt=0.25,
        flips=np.array([[0.5, 1.5], [0, 1]]),
        cumulative_loss=np.array([-1.5, 2.25, 0.123456789, NAN, NAN, 0], dtype=np.float32),
        readable=np.array(READABLE),
    )


def ints(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def test_new_columns_stand_behind_the_own_ones() -> None:
    table = table_of(LABELS)
    before = table.table.frame.copy(deep=True)
    fixed = fixed_table(table, outcome_of(CORRECTED))
    assert table.table.frame.equals(before)
    assert list(fixed.columns) == ["path", "label", "extra", *NEW_COLUMNS]
    assert fixed[["path", "label", "extra"]].equals(before)
    assert fixed["corrected_label"].tolist() == ["b", "b", "a", "b", "b", "b"]
    assert fixed["status"].tolist() == ["kept", "corrected", "filled", "unreadable", "unreadable", "corrected"]
    assert fixed["is_label_issue"].tolist() == [False, True, False, False, False, True]
    np.testing.assert_array_equal(fixed["confidence"], [0.9, 0.7, 0.333333, NAN, NAN, 1])
    np.testing.assert_array_equal(fixed["label_score"], [0.9, 0.3, NAN, NAN, NAN, 0])  # none where none was given
    np.testing.assert_array_equal(fixed["cumulative_loss"], [-1.5, 2.25, 0.123457, NAN, NAN, 0])


def test_an_unreadable_row_without_a_label_gets_the_commonest_corrected_one() -> None:
    assert fixed_table(table_of(LABELS), outcome_of([0, 0, 0, -1, -1, 1]))["corrected_label"].iloc[4] == "a"
    assert fixed_table(table_of(LABELS), outcome_of([1, 1, 0, -1, -1, 1]))["corrected_label"].iloc[4] == "b"


@pytest.mark.parametrize("dtype", [pd.ArrowDtype(pa.int16()), "Int64", "category", "object", "str"])
def test_corrected_labels_are_of_the_type_of_the_given_ones(dtype: object) -> None:
    numbers = dtype in (pd.ArrowDtype(pa.int16()), "Int64")
    names = {"a": 5, "b": 40, None: None} if numbers else {"a": "a", "b": "b", None: None}
    labels = pd.Series([names[label] for label in LABELS], dtype=dtype).array  # type: ignore[call-overload]
    fixed = fixed_table(table_of(labels), outcome_of(CORRECTED))
    assert fixed["corrected_label"].dtype == fixed["label"].dtype
    assert fixed["corrected_label"].tolist() == [names[label] for label in "bbabbb"]


def test_what_became_of_a_row() -> None:
    given, corrected = ints([0, 0, -1, 0, -1, 0]), ints([0, 1, 0, 0, 0, 0])
    outcome = Outcome(
        labels=corrected,
        confidence=np.ones(6, dtype=np.float32),
        label_score=np.array([0.5, 0.1, 0, np.nan, np.nan, 0.49], dtype=np.float32),
        prior=np.full((6, 2), 0.5, dtype=np.float32),
        no_class=np.zeros(6, dtype=np.float32),
        voted=corrected,
        left_out=np.zeros(6, dtype=np.bool_),
        doubt=0.0,
        flips=np.eye(2),
        cumulative_loss=np.ones(6, dtype=np.float32),
        readable=np.array([True, True, True, False, False, True]),
    )
    assert statuses(outcome, given, corrected) == [
        "kept",
        "corrected",
        "filled",
        "unreadable",
        "unreadable",
        "uncertain",
    ]


def test_the_summary_counts_rows_and_classes() -> None:
    summary = summarise(table_of(LABELS), outcome_of(CORRECTED), None, {"seconds": 3})
    assert summary == {
        "seconds": 3,
        "rows": 6,
        "status": {"kept": 1, "corrected": 2, "uncertain": 0, "filled": 1, "unreadable": 2},
        "estimated_noise_rate": pytest.approx(0.6),  # of the three readable rows with a label
        "expected_right": {"before": pytest.approx(0.3), "after": pytest.approx((0.9 + 0.7 + 1 / 3 + 1) / 4)},
        "no_class": 1.1,  # 1.05, rounded in float32
        "doubt": 0.25,
        "flips": [{"true": "a", "given": "b", "rows": 1.5, "share": 0.75}],
        "classes": [{"label": "a", "given": 2, "corrected": 1}, {"label": "b", "given": 2, "corrected": 5}],
    }


def test_with_the_truth_the_summary_says_how_right_it_is() -> None:
    truth = ints([1, 0, 0, 1, -1, 1])  # b, a, a, b, unknown, b
    summary = summarise(table_of(LABELS), outcome_of(CORRECTED), truth, {})
    # given: right, right, none, right, -, wrong; corrected: right, wrong, right, right, -, right
    error = summary["truth"].pop("calibration_error")
    assert error == pytest.approx((0.1 + 0.7 + (1 - 1 / 3) + 0) / 4, abs=1e-6)  # each row is alone in its bin
    assert summary["truth"] == {"given_accuracy": 3 / 5, "recovery": 4 / 5, "broken": 1 / 5, "fixed": 2 / 5}


def test_the_probabilities_stand_beside_path_and_vote() -> None:
    frame = probability_table(table_of(LABELS), outcome_of(CORRECTED))
    assert list(frame.columns) == ["path", "vote", "p(a)", "p(b)"]
    assert frame["path"].tolist() == list("uvwxyz")
    assert frame["vote"].tolist() == ["b", "a", "a", "b", "a", "a"]
    np.testing.assert_array_equal(frame[["p(a)", "p(b)"]], PRIOR)


def test_accuracy_is_of_the_rows_whose_truth_is_known() -> None:
    figures = accuracy_figures(ints([0, 0, 0, 0]), ints([0, 1, 1, 0]), ints([0, 1, -1, 2]))
    assert figures == {"given_accuracy": 1 / 3, "recovery": 2 / 3, "broken": 0, "fixed": 1 / 3}
