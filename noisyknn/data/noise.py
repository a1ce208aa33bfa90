"""Synthetic label noise: transition matrices (rows: true class, columns: given class) by row, and their effect.

Papers mean two things by symmetric noise of a rate, so each has a name: ``symmetric`` draws a flipped label from the
other classes (Eq. 8 of the paper), ``uniform`` from all classes, including the right one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from noisyknn.data.table import Label
from noisyknn.errors import InputError, UsageError, quoted

NoiseName = Literal["symmetric", "uniform", "asymmetric"]
Labels = npt.NDArray[np.int64]
Row = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def transition_rows(
    noise: NoiseName, classes: Sequence[Label], rate: float, mapping: Mapping[Label, Label] | None = None
) -> Iterator[Row]:
    """For each true class in turn, the probabilities (C,) of the given classes; they sum to 1.

    `mapping`, for asymmetric noise, goes from class to class; a class that it lacks never flips. Raises UsageError for
    a rate outside 0 to 1 or a missing mapping, InputError if the noise needs more classes.
    """
    if not 0 <= rate <= 1:  # written so that it refuses NaN too
        raise UsageError(f"`rate` {rate} is out of range (0 to 1)")
    count = len(classes)
    if noise == "uniform":
        return (_row(count, c, 1 - rate + rate / count, rate / count) for c in range(count))
    if noise == "symmetric":
        if count < 2:
            raise InputError(f"the only class is {quoted(classes[0])}; symmetric noise needs at least two")
        return (_row(count, c, 1 - rate, rate / (count - 1)) for c in range(count))
    if mapping is None:
        raise UsageError("asymmetric noise needs `map`; add it")
    index = {label: c for c, label in enumerate(classes)}
    flips = {index[source]: index[target] for source, target in mapping.items()}
    return (rate * _row(count, flips.get(c, c), 1, 0) + (1 - rate) * _row(count, c, 1, 0) for c in range(count))


def _row(count: int, stay: int, staying: float, other: float) -> Row:
    row = np.full(count, other, dtype=np.float64)
    row[stay] = staying
    return row


def inject(labels: Labels, transition: Iterable[Row], seed: int) -> Labels:
    """Noisy labels (N,), each drawn from the row of its class in `transition` (C rows of C); -1 (no label) stays.

    The same seed gives the same labels; the label of a row does not depend on those of other rows.
    """
    draws = np.random.default_rng(seed).random(len(labels))
    noisy = labels.copy()
    by_class = np.argsort(labels, kind="stable")
    for c, probabilities in enumerate(transition):  # by row: (C, C) numbers may not fit in memory
        rows = by_class[slice(*np.searchsorted(labels, (c, c + 1), sorter=by_class))]
        thresholds = np.cumsum(probabilities)
        thresholds /= thresholds[-1]  # ends at exactly 1, so that every draw finds a class
        noisy[rows] = np.searchsorted(thresholds, draws[rows], side="right")
    return noisy


def realised_counts(true: Labels, noisy: Labels) -> Counts:
    """True class, noisy class and number of rows (K, 3) of each pair that occurs, in ascending order.

    Rows without a label (-1) do not count.
    """
    labelled = (true >= 0) & (noisy >= 0)
    width = int(noisy.max(initial=0)) + 1
    pairs, rows = np.unique(true[labelled] * width + noisy[labelled], return_counts=True)
    return np.stack([pairs // width, pairs % width, rows], axis=1)


def realised_rate(true: Labels, noisy: Labels) -> float:
    """Share of labelled rows whose label changed; 0 if no row has a label."""
    labelled = true >= 0
    return float(np.mean(true[labelled] != noisy[labelled])) if labelled.any() else 0.0


def shares(counts: Counts) -> npt.NDArray[np.float64]:
    """Share (K,) of the rows of the true class, for each pair of `realised_counts` (K, 3)."""
    true, _, rows = counts.T
    share: npt.NDArray[np.float64] = rows / np.bincount(true, weights=rows)[true]
    return share


def largest_flips(counts: Counts, limit: int) -> list[tuple[int, int, float]]:
    """Up to `limit` pairs of different classes with the largest shares: true class, noisy class, share."""
    found = [
        (int(a), int(b), share) for (a, b, _), share in zip(counts, shares(counts).tolist(), strict=True) if a != b
    ]
    return sorted(found, key=lambda flip: -flip[2])[:limit]
