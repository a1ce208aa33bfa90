"""Simple rules that correct labels, for comparison. Symbols: N samples, K classes with predictions.

All but "keep everything" need held-out predictions for each sample: `save_probabilities` of `clean`.
"""

import importlib.util

import numpy as np

from noisyknn.data.corrected import CorrectedTable, Predictions
from noisyknn.evaluation.metrics import Labels, RuleMetrics, rule_metrics


def compare(table: CorrectedTable, predictions: Predictions) -> tuple[RuleMetrics, ...]:
    """The figures of the labels in `table`, and of each rule's labels.

    The rule of cleanlab is left out if that is not installed (`has_cleanlab`).
    """
    results = {
        "noisyknn": table.corrected,
        "keep everything": table.given,
        "argmax of the probabilities": argmax(table, predictions),
        "vote of the neighbours": predictions.vote,
    }
    if has_cleanlab():
        results["cleanlab's issues to argmax"] = cleanlab_to_argmax(table, predictions)
    return tuple(rule_metrics(rule, table.truth, table.given, labels) for rule, labels in results.items())


def has_cleanlab() -> bool:
    """Whether cleanlab is installed."""
    return importlib.util.find_spec("cleanlab") is not None


def argmax(table: CorrectedTable, predictions: Predictions) -> Labels:
    """The likeliest class (N,) of every sample; the given label where there is no prediction."""
    predicted = ~np.isnan(predictions.probabilities).any(axis=1)
    labels = table.given.copy()
    labels[predicted] = predictions.columns[predictions.probabilities[predicted].argmax(axis=1)]
    return labels


def cleanlab_to_argmax(table: CorrectedTable, predictions: Predictions) -> Labels:
    """Labels (N,), with those that cleanlab's ``find_label_issues`` flags, by its defaults, set to the argmax.

    Samples without a label get the argmax as well. Source: Northcutt et al. 2021, Confident Learning.
    """
    from cleanlab.filter import find_label_issues

    place = np.full(len(table.classes) + 1, -1)
    place[predictions.columns] = np.arange(len(predictions.columns))
    label = place[table.given]  # -1, for no label, picks the last entry, which is -1
    judged = (label >= 0) & ~np.isnan(predictions.probabilities).any(axis=1)
    flagged = table.given < 0
    flagged[judged] = find_label_issues(label[judged], predictions.probabilities[judged], n_jobs=1)
    return np.where(flagged, argmax(table, predictions), table.given)
