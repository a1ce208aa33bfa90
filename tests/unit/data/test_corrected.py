from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noisyknn.data.corrected import read_corrected
from noisyknn.errors import InputError, UsageError


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": ["a.png", "b.png", "c.png", "d.png"],
            "truth": ["cat", "dog", None, "fox"],
            "label": ["cat", "cat", "dog", None],
            "corrected_label": ["cat", "dog", "dog", "owl"],
            "label_score": [0.9, 0.1, 0.5, None],
            "is_label_issue": [False, True, False, None],
        }
    )


def names(classes: list[object], codes: np.ndarray) -> list[object]:
    return [None if c < 0 else classes[c] for c in codes.tolist()]


def test_labels_are_indices_into_one_list_of_classes() -> None:
    found = read_corrected(frame(), truth_column="truth")
    assert found.classes == ["cat", "dog", "fox", "owl"]
    assert found.truth.tolist() == [0, 1, -1, 2]
    assert found.given.tolist() == [0, 0, 1, -1]
    assert found.corrected.tolist() == [0, 1, 1, 3]


def test_an_empty_flag_is_no_flag_and_an_empty_score_is_nan() -> None:
    found = read_corrected(frame(), truth_column="truth")
    assert found.is_issue is not None
    assert found.label_score is not None
    assert found.is_issue.tolist() == [False, True, False, False]
    np.testing.assert_array_equal(found.label_score, [0.9, 0.1, 0.5, np.nan])


def test_a_csv_says_the_same_as_the_frame(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "fixed.csv", index=False)
    from_csv = read_corrected(tmp_path / "fixed.csv", truth_column="truth")
    from_frame = read_corrected(frame(), truth_column="truth")
    for name in ("truth", "given", "corrected", "is_issue", "label_score"):
        np.testing.assert_array_equal(getattr(from_csv, name), getattr(from_frame, name))


def test_columns_of_flags_and_scores_may_be_absent() -> None:
    found = read_corrected(frame().drop(columns=["label_score", "is_label_issue"]), truth_column="truth")
    assert found.is_issue is None
    assert found.label_score is None


def test_numbers_and_text_of_the_same_value_are_the_same_label() -> None:
    table = frame().assign(truth=["3", "4", "10", "3"], label=[3, 3, 10, 4], corrected_label=[3.0, 4.0, 10.0, 10.0])
    found = read_corrected(table, truth_column="truth")
    assert names([*found.classes], found.truth) == ["3", "4", "10", "3"]
    assert names([*found.classes], found.given) == ["3", "3", "10", "4"]
    assert names([*found.classes], found.corrected) == ["3", "4", "10", "10"]


def test_the_given_label_is_never_looked_for_in_the_truth() -> None:
    table = frame().rename(columns={"label": "noisy_label", "truth": "label"})
    assert read_corrected(table, truth_column="label").given.tolist() == [0, 0, 1, -1]
    with pytest.raises(InputError, match="`label_column`"):
        read_corrected(table.drop(columns="noisy_label"), truth_column="label")
    with pytest.raises(UsageError, match="`label_column` and `truth_column` are both 'label'"):
        read_corrected(table, truth_column="label", label_column="label")


def test_truth_of_another_table_is_joined_by_path() -> None:
    other = pd.DataFrame(
        {"file": ["z.png", "d.png", "./b.png", "a.png", "c.png"], "label": ["owl", "dog", "cat", "fox", None]}
    )
    found = read_corrected(frame(), truth_column=None, truth_source=other)
    assert names([*found.classes], found.truth) == ["fox", "cat", None, "dog"]
    assert names([*found.classes], found.given) == ["cat", "cat", "dog", None]


def test_the_other_table_may_know_the_truth_of_some_rows_but_not_of_none() -> None:
    other = pd.DataFrame({"path": ["a.png", "c.png"], "label": ["cat", "dog"]})
    found = read_corrected(frame(), truth_column="label", truth_source=other)
    assert names([*found.classes], found.truth) == ["cat", None, "dog", None]
    with pytest.raises(InputError, match=r"has no path of the DataFrame, such as 'a.png'"):
        read_corrected(frame(), truth_column="label", truth_source=other.assign(path=["x", "y"]))


def test_no_row_may_have_several_truths_in_the_other_table() -> None:
    other = pd.DataFrame({"path": ["a.png", "b.png", "c.png", "d.png", "b.png"], "label": list("abcde")})
    with pytest.raises(InputError, match=r"1 path has several truths .*'b.png' in rows 2, 5"):
        read_corrected(frame(), truth_column="label", truth_source=other)


def test_a_table_without_corrected_labels_is_refused() -> None:
    with pytest.raises(InputError, match="give a table from noisyknn clean"):
        read_corrected(frame().drop(columns="corrected_label"), truth_column="truth")


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(InputError, match=r"no column 'true'.*`truth_column`"):
        read_corrected(frame(), truth_column="true")


@pytest.mark.parametrize("cells", [["True", "FALSE", "1", "0"], [1, 0, 1, 0], [True, False, True, False]])
def test_flags_as_text_and_numbers(cells: list[object]) -> None:
    found = read_corrected(frame().assign(is_label_issue=pd.Series(cells)), truth_column="truth")
    assert found.is_issue is not None
    assert found.is_issue.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("is_label_issue", ["yes", "True", "False", "2"]),
        ("label_score", ["high", "0.5", "0.5", "1.5"]),
        ("label_score", [-0.1, 0.5, 0.5, float("inf")]),
    ],
)
def test_unreadable_flags_and_scores_are_refused_with_their_rows(column: str, cells: list[object]) -> None:
    with pytest.raises(InputError, match=rf"column '{column}': .* in 2 rows: 1 \(.*\), 4 \("):
        read_corrected(frame().assign(**{column: pd.Series(cells)}), truth_column="truth")
