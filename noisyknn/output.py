"""The result of a run: the table with its new columns, and the summary."""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisyknn.calibration.decide import LIKELY
from noisyknn.data.table import Label, LabelTable
from noisyknn.evaluation import metrics

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
NEW_COLUMNS = ("corrected_label", "confidence", "cumulative_loss", "label_score", "is_label_issue", "status")
DECIMALS = 6
MOST_FLIPS = 100
FEWEST_ROWS = 0.1
"""Smallest expected number of rows of a flip in the list."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of `noisyknn.clean`."""

    table: pd.DataFrame
    """Every input row and column in input order, then the columns of NEW_COLUMNS."""
    summary: dict[str, Any]
    """The figures that ``--summary`` writes."""
    history: list[dict[str, Any]]
    """One entry per epoch and one per episode."""
    probabilities: pd.DataFrame
    """The class probabilities behind `label_score` and `confidence`: see `probability_table`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The verdict on all N rows of the table; -1 and NaN in rows whose image is unreadable."""

    labels: Labels
    """(N,) corrected labels, class indices."""
    confidence: Floats
    """(N,) probability that the corrected label is right."""
    label_score: Floats
    """(N,) probability that the given label is right; 0 in rows without one."""
    prior: Floats
    """(N, C) probability of each class by the image alone, without the given label."""
    no_class: Floats
    """(N,) probability that the image belongs to none of the classes."""
    voted: Labels
    """(N,) class of most neighbours."""
    left_out: npt.NDArray[np.bool_]
    """(N,) rows that the method excludes from training and does not correct."""
    doubt: float
    """Probability that the given labels are unrelated to the images."""
    flips: npt.NDArray[np.float64]
    """(C, C) expected number of rows by true class (first) and given label, among readable rows with a label."""
    cumulative_loss: Floats
    """(N,) a low loss means a label that is probably clean."""
    readable: npt.NDArray[np.bool_]
    """(N,) whether the image is readable."""


def fixed_table(table: LabelTable, outcome: Outcome) -> pd.DataFrame:
    """The input table followed by the columns of NEW_COLUMNS."""
    given = table.given_labels
    corrected = fill_unreadable(outcome.labels, outcome.readable, given)
    scored = outcome.readable & (given >= 0)
    index = table.table.frame.index

    def rounded(values: npt.NDArray[Any]) -> pd.Series:
        return pd.Series(values.astype(np.float64).round(DECIMALS), index)

    columns = {
        "corrected_label": table.as_column(corrected),
        "confidence": rounded(outcome.confidence.round(DECIMALS)),
        "cumulative_loss": rounded(outcome.cumulative_loss),
        "label_score": rounded(np.where(scored, outcome.label_score, np.nan)),
        "is_label_issue": pd.Series((given >= 0) & ((corrected != given) | unlikely(outcome)), index),
        "status": pd.Series(statuses(outcome, given, corrected), index, dtype="str"),
    }
    return table.table.frame.assign(**columns)


def probability_table(table: LabelTable, outcome: Outcome) -> pd.DataFrame:
    """The path of every row, ``vote`` (the class of most neighbours), and a column ``p(CLASS)`` for each class.

    The probabilities depend on the image alone, not on the given label: cleanlab and others call them out-of-sample
    predicted probabilities. They are empty in unreadable rows.
    """
    frame = pd.DataFrame({table.path_column: table.table.frame[table.path_column]})
    frame["vote"] = table.as_column(fill_unreadable(outcome.voted, outcome.readable, table.given_labels))
    columns = dict(zip(prediction_columns(table.classes)[1:], outcome.prior.T, strict=True))
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def prediction_columns(classes: Sequence[Label]) -> list[str]:
    """Names of all columns of `probability_table` but the first, the path."""
    return ["vote", *(f"p({label})" for label in classes)]


def unlikely(outcome: Outcome) -> npt.NDArray[np.bool_]:
    """Rows (N,) whose given label is probably wrong, or that the method leaves out."""
    return outcome.readable & ((outcome.label_score < LIKELY) | outcome.left_out)


def fill_unreadable(labels: Labels, readable: npt.NDArray[np.bool_], given: Labels) -> Labels:
    """Corrected labels (N,): an unreadable row keeps its given label or, without one, gets the commonest class."""
    commonest = np.bincount(labels[readable]).argmax()
    fallback = np.where(given >= 0, given, commonest)
    return np.where(readable, labels, fallback)


def statuses(outcome: Outcome, given: Labels, corrected: Labels) -> list[str]:
    """The status of each row: ``unreadable``, ``filled``, ``corrected``, ``uncertain`` or ``kept``."""
    conditions = [~outcome.readable, given < 0, corrected != given, unlikely(outcome)]
    chosen: list[str] = np.select(conditions, ["unreadable", "filled", "corrected", "uncertain"], "kept").tolist()
    return chosen


def summarise(table: LabelTable, outcome: Outcome, truth: Labels | None, about: Mapping[str, object]) -> dict[str, Any]:
    """Figures of a run: rows by status, class sizes before and after, and accuracy if `truth` (N,) is known."""
    given = table.given_labels
    corrected = fill_unreadable(outcome.labels, outcome.readable, given)
    counts = collections.Counter(statuses(outcome, given, corrected))
    summary: dict[str, Any] = {
        **about,
        "rows": len(given),
        "status": {name: counts[name] for name in ("kept", "corrected", "uncertain", "filled", "unreadable")},
        **noise_figures(table, outcome),
        "classes": [
            {"label": label, "given": int((given == c).sum()), "corrected": int((corrected == c).sum())}
            for c, label in enumerate(table.classes)
        ],
    }
    if truth is not None:
        summary["truth"] = accuracy_figures(given, corrected, truth)
        known = truth >= 0
        calibration = metrics.calibration(outcome.confidence[known].astype(np.float64), (corrected == truth)[known])
        summary["truth"]["calibration_error"] = None if calibration is None else calibration.error
    return summary


def noise_figures(table: LabelTable, outcome: Outcome) -> dict[str, Any]:
    """Estimates of the label noise in the readable rows, without any true label.

    ``estimated_noise_rate`` is the expected share of wrong labels among the given ones; ``expected_right`` the expected
    share of right labels among all readable rows, before and after. ``flips`` are the commonest errors: true class,
    given label, expected number of rows and their share of the true class. ``no_class`` is the expected number of
    images of no class; their labels are wrong too, but count in no flip. ``doubt`` is as in `Outcome`.
    """
    scored = outcome.readable & (table.given_labels >= 0)
    shares = outcome.flips / outcome.flips.sum(1, keepdims=True).clip(min=1e-9)
    wrong = outcome.flips - np.diag(outcome.flips.diagonal())
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MOST_FLIPS]
    pairs = [(int(a), int(b)) for a, b in zip(*np.unravel_index(largest, wrong.shape), strict=True)]
    return {
        "estimated_noise_rate": float(1 - outcome.label_score[scored].mean(dtype=np.float64)),
        "expected_right": {
            "before": float(outcome.label_score[outcome.readable].mean(dtype=np.float64)),
            "after": float(outcome.confidence[outcome.readable].mean(dtype=np.float64)),
        },
        "no_class": round(float(outcome.no_class[outcome.readable].sum(dtype=np.float64)), 1),
        "doubt": round(outcome.doubt, 4),
        "flips": [
            {
                "true": table.classes[a],
                "given": table.classes[b],
                "rows": round(float(wrong[a, b]), 1),
                "share": round(float(shares[a, b]), 4),
            }
            for a, b in pairs
            if wrong[a, b] >= FEWEST_ROWS
        ],
    }


def accuracy_figures(given: Labels, corrected: Labels, truth: Labels) -> dict[str, float]:
    """Shares of the rows with a known truth: right before, right after, right made wrong, wrong made right.

    At least one truth must be known.
    """
    known = truth >= 0
    true, before, after = truth[known], given[known], corrected[known]
    return {
        "given_accuracy": metrics.given_accuracy(true, before),
        "recovery": metrics.recovery(true, after),
        "broken": metrics.broken(true, before, after),
        "fixed": metrics.fixed(true, before, after),
    }
