"""How good a correction is, measured against the true labels.

Labels are class indices (N,), -1 where there is none. Shares are of all rows given, so `recovery` is `given_accuracy`
minus `broken` plus `fixed`. A figure that is not defined, such as the precision of no flag at all, is None.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class IssueMetrics:
    """How well flags find the rows whose given label is wrong."""

    precision: float | None
    recall: float | None
    f1: float | None


_NO_ISSUES = IssueMetrics(precision=None, recall=None, f1=None)


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """The rows of one true class."""

    label: int
    """Index of the class."""
    rows: int
    given_accuracy: float
    recovery: float
    """At the same time the recall of the corrected labels."""
    precision: float | None
    """Share of the rows corrected to this class that are of it."""
    broken: float
    fixed: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that is known of one correction."""

    rows: int
    evaluated_rows: int
    """Rows whose true label is known; the figures are of these."""
    given_accuracy: float
    recovery: float
    broken: float
    fixed: float
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    per_class: tuple[ClassMetrics, ...]


def given_accuracy(truth: Labels, given: Labels) -> float:
    """Share of rows whose given label is the true one."""
    return float(np.mean(given == truth))


def recovery(truth: Labels, corrected: Labels) -> float:
    """Share of rows whose corrected label is the true one."""
    return float(np.mean(corrected == truth))


def broken(truth: Labels, given: Labels, corrected: Labels) -> float:
    """Share of rows that were right and were made wrong."""
    return float(np.mean((given == truth) & (corrected != truth)))


def fixed(truth: Labels, given: Labels, corrected: Labels) -> float:
    """Share of rows that were wrong, or without a label, and were made right."""
    return float(np.mean((given != truth) & (corrected == truth)))


def issue_metrics(truth: Labels, given: Labels, is_issue: Flags) -> IssueMetrics:
    """Precision, recall and F1 of the flags (N,), among rows with a given label."""
    labelled = given >= 0
    if not labelled.any():
        return _NO_ISSUES
    wrong = given[labelled] != truth[labelled]
    figures = precision_recall_fscore_support(
        wrong, is_issue[labelled], average="binary", pos_label=True, zero_division=math.nan
    )[:3]
    precision, recall, f1 = (None if math.isnan(figure) else float(figure) for figure in figures)
    return IssueMetrics(precision=precision, recall=recall, f1=f1)


def auroc(truth: Labels, given: Labels, label_score: Scores) -> float | None:
    """Area under the ROC curve of `label_score` (N,), low for bad labels, among rows with a label and a score.

    It is the chance that a wrong label scores lower than a right one; None where labels are all wrong or all right.
    """
    scored = (given >= 0) & ~np.isnan(label_score)
    wrong = given[scored] != truth[scored]
    if wrong.all() or not wrong.any():
        return None
    return float(roc_auc_score(wrong, -label_score[scored]))


def class_metrics(truth: Labels, given: Labels, corrected: Labels) -> tuple[ClassMetrics, ...]:
    """The figures of each true class that has rows, in ascending order; `truth` has no -1."""
    size = int(max(truth.max(), corrected.max())) + 1
    was_right, is_right = given == truth, corrected == truth
    rows = np.bincount(truth, minlength=size)
    called_so = np.bincount(corrected[corrected >= 0], minlength=size)
    right_before = np.bincount(truth[was_right], minlength=size)
    right_after = np.bincount(truth[is_right], minlength=size)
    made_wrong = np.bincount(truth[was_right & ~is_right], minlength=size)
    made_right = np.bincount(truth[~was_right & is_right], minlength=size)
    return tuple(
        ClassMetrics(
            label=c,
            rows=int(rows[c]),
            given_accuracy=float(right_before[c] / rows[c]),
            recovery=float(right_after[c] / rows[c]),
            precision=float(right_after[c] / called_so[c]) if called_so[c] else None,
            broken=float(made_wrong[c] / rows[c]),
            fixed=float(made_right[c] / rows[c]),
        )
        for c in np.flatnonzero(rows).tolist()
    )


def evaluate(
    truth: Labels,
    given: Labels,
    corrected: Labels,
    *,
    is_issue: Flags | None = None,
    label_score: Scores | None = None,
) -> Evaluation:
    """All figures over the rows whose `truth` is known, of which there must be one.

    Those of `is_issue` and `label_score` are None where these are not given. Raises ValueError without a known truth.
    """
    known = truth >= 0
    if not known.any():
        raise ValueError("no row has a true label")
    true, before, after = truth[known], given[known], corrected[known]
    issues = _NO_ISSUES if is_issue is None else issue_metrics(true, before, is_issue[known])
    return Evaluation(
        rows=len(truth),
        evaluated_rows=len(true),
        given_accuracy=given_accuracy(true, before),
        recovery=recovery(true, after),
        broken=broken(true, before, after),
        fixed=fixed(true, before, after),
        precision=issues.precision,
        recall=issues.recall,
        f1=issues.f1,
        auroc=None if label_score is None else auroc(true, before, label_score[known]),
        per_class=class_metrics(true, before, after),
    )
