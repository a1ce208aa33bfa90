"""Synthetic label noise: transition matrices (rows: true class, columns: given class) and labels drawn from them.

Both conventions of "symmetric" are offered by name, since papers mean different things by the same rate: ``symmetric``
draws a flipped label from the other classes (Eq. 8 of the paper), ``uniform`` from all, the right one included.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisyknn.data.table import Label
from noisyknn.errors import InputError, UsageError

NoiseName = Literal["symmetric", "uniform", "asymmetric"]
Labels = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float64]


def transition_matrix(
    noise: NoiseName, classes: Sequence[Label], rate: float, mapping: Mapping[Label, Label] | None = None
) -> Matrix:
    """The (C, C) probabilities of each given class (column) for each true class (row); rows sum to 1.

    `mapping` is for asymmetric noise: class to class, a class that it does not name never flips. Raises UsageError for
    a rate outside 0 to 1 or a missing mapping, InputError where the classes cannot carry such noise.
    """
    if not 0 <= rate <= 1:  # not the other way round: NaN is refused as well
        raise UsageError(f"--rate {rate} is out of range (0 to 1)")
    count = len(classes)
    stay = (1 - rate) * np.eye(count)
    if noise == "uniform":
        return stay + rate / count
    if noise == "symmetric":
        if count < 2:
            raise InputError(f"symmetric noise needs two classes or more; the only class is {classes[0]!r}")
        return stay + rate / (count - 1) * (1 - np.eye(count))
    if mapping is None:
        raise UsageError("asymmetric noise needs --map")
    index = {label: c for c, label in enumerate(classes)}
    matrix = np.eye(count)
    for source, target in mapping.items():
        matrix[index[source], index[source]] -= rate
        matrix[index[source], index[target]] += rate
    return matrix


def inject(labels: Labels, transition: Matrix, seed: int) -> Labels:
    """Noisy labels (N,), each drawn from its original's row of `transition` (C, C); -1 (no label) stays -1.

    The same seed gives the same labels, and a row's label does not depend on the labels of other rows.
    """
    draws = np.random.default_rng(seed).random(len(labels))
    cumulative = np.cumsum(transition, axis=1)
    cumulative /= cumulative[:, -1:]  # exactly 1 at the end, so that no draw falls behind the last class
    noisy = labels.copy()
    for c, thresholds in enumerate(cumulative):  # by class: (N, C) numbers would not fit for many rows and classes
        rows = np.flatnonzero(labels == c)
        noisy[rows] = np.searchsorted(thresholds, draws[rows], side="right")
    return noisy


def realised_matrix(true: Labels, noisy: Labels, class_count: int) -> Matrix:
    """The share (C, C) of each true class's rows (row) that has each noisy class (column).

    Rows without a label (-1) do not count; a class without rows has a row of zeros.
    """
    labelled = (true >= 0) & (noisy >= 0)
    pairs = true[labelled] * class_count + noisy[labelled]
    counts = np.bincount(pairs, minlength=class_count**2).reshape(class_count, class_count)
    shares: Matrix = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def realised_rate(true: Labels, noisy: Labels) -> float:
    """The share of labelled rows whose label changed; 0 where no row has a label."""
    labelled = true >= 0
    return float(np.mean(true[labelled] != noisy[labelled])) if labelled.any() else 0.0


def noisy_column(column: pd.Series, true: Labels, noisy: Labels) -> pd.Series:
    """The cells of `column` (N,), of classes `true` (N,), changed to the classes `noisy` (N,).

    Each changed cell is a copy of the first cell of its new class, so type and spelling stay, in rows without a label
    as well. Every class of `noisy` must occur in `true`.
    """
    present, first_row = np.unique(true, return_index=True)
    rows = np.where(noisy == true, np.arange(len(true)), first_row[np.searchsorted(present, noisy)])
    return column.iloc[rows].set_axis(column.index)


def largest_flips(matrix: Matrix, limit: int) -> list[tuple[int, int, float]]:
    """Up to `limit` pairs of different classes with the largest shares in `matrix` (C, C): true, noisy, share."""
    flips = matrix.copy()
    np.fill_diagonal(flips, 0)
    order = np.argsort(-flips, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(order, flips.shape), strict=True)
    return [(int(a), int(b), float(flips[a, b])) for a, b in pairs if flips[a, b] > 0]
