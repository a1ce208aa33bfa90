"""The figures of Kong et al. by cell, in per cent: mean and deviation over ten trials."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Metric = Literal["accuracy", "recovery"]

AS_GIVEN = "as-given"
"""The noise of labels that are already noisy."""
SYMMETRIC = tuple(f"symmetric-{rate}" for rate in (20, 40, 60, 80))
ASYMMETRIC = tuple(f"asymmetric-{rate}" for rate in (20, 30, 40))


class Figure(NamedTuple):
    """The content of a cell."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


Figures = Mapping[tuple[str, str], Figure]
"""By method and noise."""


def _rows(noises: tuple[str, ...], text: str) -> Figures:
    """Figures from lines, each with a method and its cells."""
    figures = {}
    for line in text.strip().splitlines():
        method, *cells = line.split()
        for noise, cell in zip(noises, cells, strict=True):
            mean, deviation = map(float, cell.split("±"))
            figures[method, noise] = Figure(mean, deviation)
    return figures


TEST_ACCURACY: Mapping[str, Figures] = {
    "mnist": _rows(
        SYMMETRIC + ASYMMETRIC,
        """
        ce                 89.91±0.02 68.75±0.04 44.35±0.24 24.77±0.37 94.22±0.07 86.40±0.12 80.33±0.09
        joint-optimization 94.89±0.07 93.94±0.16 91.03±0.46 66.55±1.05 94.79±0.26 93.01±0.24 91.78±0.33
        pencil             95.34±0.21 93.89±0.72 93.06±0.53 70.25±0.86 96.22±0.18 94.38±0.21 90.15±0.42
        sl                 98.77±0.07 97.65±0.19 95.27±0.35 68.04±0.33 98.61±0.21 97.11±0.81 96.15±0.69
        iterknn            98.33±0.27 96.35±0.22 94.33±0.32 70.81±0.49 98.65±0.11 97.27±0.15 94.18±0.41
        selknn             98.25±0.12 97.79±0.19 96.12±0.31 70.88±0.29 98.69±0.08 97.80±0.17 96.39±0.18
        """,
    ),
    "cifar10": _rows(
        SYMMETRIC + ASYMMETRIC,
        """
        ce                 83.04±0.18 66.75±0.11 46.98±0.21 21.33±0.36 86.16±0.24 80.91±0.13 70.51±0.76
        joint-optimization 91.61±0.74 87.75±0.36 84.02±0.42 58.46±0.97 91.16±0.09 89.41±0.21 86.76±0.81
        pencil             92.45±0.81 88.32±0.49 84.42±0.98 59.02±0.72 90.21±0.16 89.36±0.32 87.59±0.45
        sl                 87.89±0.07 84.36±0.09 79.75±0.18 55.36±0.42 87.44±0.22 85.24±0.25 80.32±0.29
        iterknn            89.43±0.14 87.34±0.23 80.19±0.21 56.84±0.38 90.29±0.22 89.28±0.18 87.15±0.33
        selknn             91.99±0.44 89.25±0.39 85.65±0.92 59.65±0.27 91.38±0.25 89.75±0.32 88.06±0.28
        """,
    ),
    "cifar100": _rows(
        SYMMETRIC + ASYMMETRIC,
        """
        ce                 60.13±0.20 51.25±0.52 36.75±0.81 19.35±0.79 61.16±0.74 56.27±0.78 47.35±0.78
        joint-optimization 68.06±0.88 64.79±0.91 54.29±0.97 27.78±0.94 69.13±0.39 68.49±0.36 59.23±0.70
        pencil             71.14±0.34 68.75±0.62 56.02±0.66 26.33±0.58 73.15±0.85 71.02±0.63 61.48±0.94
        sl                 64.85±0.29 59.42±0.34 45.85±0.46 22.81±0.79 65.19±0.21 63.37±0.45 60.01±0.65
        iterknn            69.15±0.30 62.48±0.91 53.36±0.47 28.93±0.98 69.92±0.42 68.13±0.37 62.14±0.39
        selknn             72.75±0.68 69.88±0.64 57.43±1.23 32.91±0.57 72.03±0.26 71.09±0.45 63.32±1.39
        """,
    ),
}
"""Table 1: accuracy on the test set after the last epoch."""

LABEL_RECOVERY: Mapping[str, Figures] = {
    "cifar10": _rows(
        ("symmetric-20", "symmetric-40", "symmetric-80"),
        """
        joint-optimization 93.35±0.32 90.31±0.36 58.72±0.85
        pencil             94.36±0.36 91.21±0.52 59.14±0.16
        iterknn            94.47±0.25 89.16±0.28 56.95±0.79
        selknn             93.29±0.25 91.32±0.22 59.94±0.52
        """,
    )
}
"""Table 2: share of training labels that are right after correction."""

CLOTHING1M: Figures = {
    ("ce", AS_GIVEN): Figure(68.8, None),
    ("joint-optimization", AS_GIVEN): Figure(72.23, None),
    ("pencil", AS_GIVEN): Figure(73.49, None),
    ("selknn", AS_GIVEN): Figure(76.78, None),
}
"""Table 3: accuracy on the verified test images of Clothing1M, for one trial."""

PRINTED: Mapping[Metric, Mapping[str, Figures]] = {
    "accuracy": {**TEST_ACCURACY, "clothing1m": CLOTHING1M},
    "recovery": LABEL_RECOVERY,
}
"""All figures, by metric and data set."""
