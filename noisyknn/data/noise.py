"""Synthetic label noise: transition matrices (rows: true class, columns: given class), row by row, and what they do.

Both conventions of "symmetric" are offered by name, since papers mean different things by the same rate: ``symmetric``
draws a flipped label from the other classes (Eq. 8 of the paper), ``uniform`` from all, the right one included.
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
    """For each true class in turn, the probabilities (C,) of each given class; they sum to 1.

    `mapping` is for asymmetric noise: class to class, a class that it does not name never flips. Raises UsageError for
    a rate outside 0 to 1 or a missing mapping, InputError where the classes cannot carry such noise.
    """
    if not 0 <= rate <= 1:  # not the other way round: NaN is refused as well
        raise UsageError(f"`rate` {rate} is out of range (0 to 1)")
    count = len(classes)
    if noise == "uniform":
        return (_row(count, c, 1 - rate + rate / count, rate / count) for c in range(count))
    if noise == "symmetric":
        if count < 2:
            raise InputError(f"symmetric noise needs two classes or more; the only class is {quoted(classes[0])}")
        return (_row(count, c, 1 - rate, rate / (count - 1)) for c in range(count))
    if mapping is None:
        raise UsageError("asymmetric noise needs `map`")
    index = {label: c for c, label in enumerate(classes)}
    flips = {index[source]: index[target] for source, target in mapping.items()}
    return (rate * _row(count, flips.get(c, c), 1, 0) + (1 - rate) * _row(count, c, 1, 0) for c in range(count))


def _row(count: int, stay: int, staying: float, other: float) -> Row:
    row = np.full(count, other, dtype=np.float64)
    row[stay] = staying
    return row


def inject(labels: Labels, transition: Iterable[Row], seed: int) -> Labels:
    """Noisy labels (N,), each drawn by its original's row of `transition` (C rows of C); -1 (no label) stays -1.

    The same seed gives the same labels, and a row's label does not depend on the labels of other rows.
    """
    draws = np.random.default_rng(seed).random(len(labels))
    noisy = labels.copy()
    by_class = np.argsort(labels, kind="stable")
    for c, probabilities in enumerate(transition):  # one row at a time: (C, C) numbers may not fit
        rows = by_class[slice(*np.searchsorted(labels, (c, c + 1), sorter=by_class))]
        thresholds = np.cumsum(probabilities)
        thresholds /= thresholds[-1]  # exactly 1 at the end, so that no draw falls behind the last class
        noisy[rows] = np.searchsorted(thresholds, draws[rows], side="right")
    return noisy


def realised_counts(true: Labels, noisy: Labels) -> Counts:
    """True class, noisy class and number of rows (K, 3) of each pair that occurs, in ascending order of the classes.

    Rows without a label (-1) do not count.
    """
    labelled = (true >= 0) & (noisy >= 0)
    width = int(noisy.max(initial=0)) + 1
    pairs, rows = np.unique(true[labelled] * width + noisy[labelled], return_counts=True)
    return np.stack([pairs // width, pairs % width, rows], axis=1)


def realised_rate(true: Labels, noisy: Labels) -> float:
    """The share of labelled rows whose label changed; 0 where no row has a label."""
    labelled = true >= 0
    return float(np.mean(true[labelled] != noisy[labelled])) if labelled.any() else 0.0


def shares(counts: Counts) -> npt.NDArray[np.float64]:
    """Of each pair of `realised_counts` (K, 3), the share (K,) of its true class's rows."""
    true, _, rows = counts.T
    share: npt.NDArray[np.float64] = rows / np.bincount(true, weights=rows)[true]
    return share


def largest_flips(counts: Counts, limit: int) -> list[tuple[int, int, float]]:
    """Up to `limit` pairs of different classes with the largest shares: true class, noisy class, share."""
    found = [
        (int(a), int(b), share) for (a, b, _), share in zip(counts, shares(counts).tolist(), strict=True) if a != b
    ]
    return sorted(found, key=lambda flip: -flip[2])[:limit]
