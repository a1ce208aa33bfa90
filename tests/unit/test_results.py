import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

from noisyknn.data.table import LabelTable, read_labels
from noisyknn.results import NEW_COLUMNS, Outcome, accuracy_figures, fixed_table, statuses, summarise

LABELS = ["b", "a", None, "b", None, "a"]
CORRECTED = [1, 1, 0, -1, -1, 1]
READABLE = [True, True, True, False, False, True]
NAN = float("nan")


def table_of(labels: object) -> LabelTable:
    frame = pd.DataFrame(
        {"path": list("uvwxyz"), "label": labels, "extra": range(6)}, index=pd.Index([9, 9, 8, 7, 6, 5])
    )
    return read_labels(frame)


def outcome_of(labels: list[int]) -> Outcome:
    return Outcome(
        labels=np.array(labels),
        confidence=np.array([0.1, 0.7, 1 / 3, NAN, NAN, 1], dtype=np.float32),
        given_score=np.array([0.1, 0.3, 0, NAN, NAN, 1], dtype=np.float32),
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
    np.testing.assert_array_equal(fixed["confidence"], [0.1, 0.7, 0.333333, NAN, NAN, 1])
    np.testing.assert_array_equal(fixed["label_score"], [0.1, 0.3, NAN, NAN, NAN, 1])  # none where none was given
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
    given, corrected = ints([0, 0, -1, 0, -1]), ints([0, 1, 0, 0, 0])
    outcome = Outcome(
        labels=corrected,
        confidence=np.ones(5, dtype=np.float32),
        given_score=np.ones(5, dtype=np.float32),
        cumulative_loss=np.ones(5, dtype=np.float32),
        readable=np.array([True, True, True, False, False]),
    )
    assert statuses(outcome, given, corrected) == ["kept", "corrected", "filled", "unreadable", "unreadable"]


def test_the_summary_counts_rows_and_classes() -> None:
    summary = summarise(table_of(LABELS), outcome_of(CORRECTED), None, {"seconds": 3})
    assert summary == {
        "seconds": 3,
        "rows": 6,
        "status": {"kept": 1, "corrected": 2, "filled": 1, "unreadable": 2},
        "classes": [{"label": "a", "given": 2, "corrected": 1}, {"label": "b", "given": 2, "corrected": 5}],
    }


def test_with_the_truth_the_summary_says_how_right_it_is() -> None:
    truth = ints([1, 0, 0, 1, -1, 1])  # b, a, a, b, unknown, b
    summary = summarise(table_of(LABELS), outcome_of(CORRECTED), truth, {})
    # given: right, right, none, right, -, wrong; corrected: right, wrong, right, right, -, right
    assert summary["truth"] == {"given_accuracy": 3 / 5, "recovery": 4 / 5, "broken": 1 / 5, "fixed": 2 / 5}


def test_accuracy_is_of_the_rows_whose_truth_is_known() -> None:
    figures = accuracy_figures(ints([0, 0, 0, 0]), ints([0, 1, 1, 0]), ints([0, 1, -1, 2]))
    assert figures == {"given_accuracy": 1 / 3, "recovery": 2 / 3, "broken": 0, "fixed": 1 / 3}
