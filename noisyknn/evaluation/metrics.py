"""How good a correction is, measured against the true labels.

Labels are class indices (N,), -1 where there is none. Shares are of all rows given, so `recovery` is `given_accuracy`
minus `broken` plus `fixed`. An undefined figure, such as the precision without any flag, is None.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

BINS = 15
"""Intervals of the reliability table, as in Guo et al. (2017)."""


@dataclass(frozen=True, kw_only=True)
class IssueMetrics:
    """How well flags find the rows whose given label is wrong."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The rows whose confidence lies in one interval, which includes its upper end (the first also its lower end)."""

    low: float
    high: float
    rows: int
    confidence: float
    """Mean confidence of these rows."""
    accuracy: float
    """Share of these rows that are right."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far stated probabilities are from observed frequencies."""

    error: float
    """Expected calibration error: mean over rows of | accuracy - confidence | of their bin."""
    table: tuple[ReliabilityBin, ...]
    """The bins that have rows, in ascending order."""


_NO_ISSUES = IssueMetrics(precision=None, recall=None, f1=None)


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """The rows of one true class."""

    label: int
    """Index of the class."""
    rows: int
    given_accuracy: float
    recovery: float
    """Also the recall of the corrected labels."""
    corrected_precision: float | None
    """Share of the rows with this corrected label that truly are of this class."""
    broken: float
    fixed: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All figures of one correction."""

    rows: int
    evaluated_rows: int
    """Rows with a known true label; all figures refer to these."""
    given_accuracy: float
    recovery: float
    broken: float
    fixed: float
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    calibration_error: float | None
    """Expected calibration error of the corrected labels' confidence."""
    reliability: tuple[ReliabilityBin, ...]
    per_class: tuple[ClassMetrics, ...]


def given_accuracy(truth: Labels, given: Labels) -> float:
    """Share of rows whose given label is the true one."""
    return float(np.mean(given == truth))


def recovery(truth: Labels, corrected: Labels) -> float:
    """Share of rows whose corrected label is the true one."""
    return float(np.mean(corrected == truth))


def broken(truth: Labels, given: Labels, corrected: Labels) -> float:
    """Share of rows whose right label was made wrong."""
    return float(np.mean((given == truth) & (corrected != truth)))


def fixed(truth: Labels, given: Labels, corrected: Labels) -> float:
    """Share of rows whose wrong or missing label was made right."""
    return float(np.mean((given != truth) & (corrected == truth)))


@dataclass(frozen=True, kw_only=True)
class RuleMetrics:
    """The figures of a simple rule on the same labels."""

    rule: str
    recovery: float
    broken: float
    fixed: float


def rule_metrics(rule: str, truth: Labels, given: Labels, corrected: Labels) -> RuleMetrics:
    """The figures of a rule's labels `corrected` (N,), over the rows whose `truth` (N,) is known."""
    known = truth >= 0
    true, before, after = truth[known], given[known], corrected[known]
    return RuleMetrics(
        rule=rule,
        recovery=recovery(true, after),
        broken=broken(true, before, after),
        fixed=fixed(true, before, after),
    )


def issue_metrics(truth: Labels, given: Labels, is_issue: Flags) -> IssueMetrics:
    """Precision, recall and F1 of the flags (N,), among rows with a given label."""
    from sklearn.metrics import precision_recall_fscore_support  # slow to import: a second, which `clean` saves

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

    It is the probability that a wrong label scores lower than a right one; None if all labels are wrong or all right.
    """
    from sklearn.metrics import roc_auc_score  # as above

    scored = (given >= 0) & ~np.isnan(label_score)
    wrong = given[scored] != truth[scored]
    if wrong.all() or not wrong.any():
        return None
    return float(roc_auc_score(wrong, -label_score[scored]))


def calibration(confidence: Scores, right: Flags, bins: int = BINS) -> Calibration | None:
    """How well `confidence` (N,), from 0 to 1, predicts whether each row is `right` (N,); NaN rows do not count.

    Expected calibration error over `bins` intervals of equal width (Guo et al. 2017, On Calibration of Modern Neural
    Networks, Eq. 3). None if no row has a confidence.
    """
    stated = ~np.isnan(confidence)
    if not stated.any():
        return None
    said, came_true = confidence[stated], right[stated]
    place = np.clip(np.ceil(said * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.bincount(place, minlength=bins)
    occupied = np.flatnonzero(rows)
    mean = np.bincount(place, said, bins)[occupied] / rows[occupied]
    accuracy = np.bincount(place, came_true, bins)[occupied] / rows[occupied]
    table = tuple(
        ReliabilityBin(low=b / bins, high=(b + 1) / bins, rows=int(rows[b]), confidence=float(c), accuracy=float(a))
        for b, c, a in zip(occupied.tolist(), mean, accuracy, strict=True)
    )
    return Calibration(error=float(np.abs(mean - accuracy) @ rows[occupied] / len(said)), table=table)


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
            corrected_precision=float(right_after[c] / called_so[c]) if called_so[c] else None,
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
    confidence: Scores | None = None,
) -> Evaluation:
    """All figures over the rows whose `truth` is known.

    Figures that need `is_issue`, `label_score` or `confidence` are None, or empty, without it. Raises ValueError if no
    truth is known.
    """
    known = truth >= 0
    if not known.any():
        raise ValueError("no row has a true label")
    true, before, after = truth[known], given[known], corrected[known]
    calibrated = None if confidence is None else calibration(confidence[known], after == true)
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
        calibration_error=None if calibrated is None else calibrated.error,
        reliability=() if calibrated is None else calibrated.table,
        per_class=class_metrics(true, before, after),
    )
