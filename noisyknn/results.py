"""What a run gives back: the table with its new columns, and the summary."""

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisyknn import metrics
from noisyknn.data.table import LabelTable

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
NEW_COLUMNS = ("corrected_label", "confidence", "cumulative_loss", "label_score", "is_label_issue", "status")
DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `noisyknn.clean` gives back."""

    table: pd.DataFrame
    """Every input row and column in input order, then the columns of NEW_COLUMNS."""
    summary: dict[str, Any]
    """Figures of the run, as ``--summary`` writes them."""
    history: list[dict[str, Any]]
    """One entry per epoch and one per episode."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The last episode, spread over all N rows of the table; rows whose image is unreadable hold -1 and NaN."""

    labels: Labels
    """(N,) corrected labels, class indices."""
    confidence: Floats
    """(N,) from 0 to 1."""
    given_score: Floats
    """(N,) from 0 to 1."""
    cumulative_loss: Floats
    """(N,) low is likely clean."""
    readable: npt.NDArray[np.bool_]
    """(N,)"""


def fixed_table(table: LabelTable, outcome: Outcome) -> pd.DataFrame:
    """The input table with the columns of NEW_COLUMNS behind its own."""
    given = table.given_labels
    corrected = fill_unreadable(outcome, given)
    scored = outcome.readable & (given >= 0)
    index = table.table.frame.index
    columns = {
        "corrected_label": table.as_column(corrected),
        "confidence": pd.Series(outcome.confidence.round(DECIMALS).astype(np.float64).round(DECIMALS), index),
        "cumulative_loss": pd.Series(outcome.cumulative_loss.astype(np.float64).round(DECIMALS), index),
        "label_score": pd.Series(
            np.where(scored, outcome.given_score, np.nan).astype(np.float64).round(DECIMALS), index
        ),
        "is_label_issue": pd.Series((given >= 0) & (corrected != given), index),
        "status": pd.Series(statuses(outcome, given, corrected), index, dtype="str"),
    }
    return table.table.frame.assign(**columns)


def fill_unreadable(outcome: Outcome, given: Labels) -> Labels:
    """Corrected labels (N,): an unreadable row keeps its given label or, where it has none, gets the commonest."""
    commonest = np.bincount(outcome.labels[outcome.readable]).argmax()
    fallback = np.where(given >= 0, given, commonest)
    return np.where(outcome.readable, outcome.labels, fallback)


def statuses(outcome: Outcome, given: Labels, corrected: Labels) -> list[str]:
    """What became of each row: ``unreadable``, ``filled``, ``corrected`` or ``kept``."""
    conditions = [~outcome.readable, given < 0, corrected != given]
    chosen: list[str] = np.select(conditions, ["unreadable", "filled", "corrected"], "kept").tolist()
    return chosen


def summarise(table: LabelTable, outcome: Outcome, truth: Labels | None, about: Mapping[str, object]) -> dict[str, Any]:
    """Figures of a run: rows by status, classes before and after, and how right it is where `truth` (N,) is known."""
    given, corrected = table.given_labels, fill_unreadable(outcome, table.given_labels)
    counts = collections.Counter(statuses(outcome, given, corrected))
    summary: dict[str, Any] = {
        **about,
        "rows": len(given),
        "status": {name: counts[name] for name in ("kept", "corrected", "filled", "unreadable")},
        "classes": [
            {"label": label, "given": int((given == c).sum()), "corrected": int((corrected == c).sum())}
            for c, label in enumerate(table.classes)
        ],
    }
    if truth is not None:
        summary["truth"] = accuracy_figures(given, corrected, truth)
    return summary


def accuracy_figures(given: Labels, corrected: Labels, truth: Labels) -> dict[str, float]:
    """Shares of the rows whose truth is known: right before and after, right made wrong, wrong made right.

    One truth must be known.
    """
    known = truth >= 0
    true, before, after = truth[known], given[known], corrected[known]
    return {
        "given_accuracy": metrics.given_accuracy(true, before),
        "recovery": metrics.recovery(true, after),
        "broken": metrics.broken(true, before, after),
        "fixed": metrics.fixed(true, before, after),
    }
