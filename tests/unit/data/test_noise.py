import tracemalloc
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from noisyknn.data.noise import (
    NoiseName,
    inject,
    largest_flips,
    realised_counts,
    realised_rate,
    shares,
    transition_rows,
)
from noisyknn.data.table import Label, relabel
from noisyknn.errors import InputError, UsageError

ANIMALS: Sequence[Label] = ["cat", "dog", "fox", "owl"]


def draw_labels(rows: int, class_count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(7).integers(0, class_count, rows)


def matrix_of(
    noise: NoiseName, classes: Sequence[Label], rate: float, mapping: Mapping[Label, Label] | None = None
) -> npt.NDArray[np.float64]:
    return np.stack(list(transition_rows(noise, classes, rate, mapping)))


def test_symmetric_spreads_the_rate_over_the_other_classes() -> None:
    matrix = matrix_of("symmetric", ANIMALS, 0.3)
    assert matrix[1].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1])


def test_uniform_spreads_the_rate_over_all_classes() -> None:
    matrix = matrix_of("uniform", ANIMALS, 0.8)
    assert matrix[2].tolist() == pytest.approx([0.2, 0.2, 0.4, 0.2])


def test_asymmetric_flips_only_the_classes_of_the_map() -> None:
    matrix = matrix_of("asymmetric", ANIMALS, 0.4, {"cat": "dog", "dog": "cat", "owl": "owl"})
    assert matrix.tolist() == [[0.6, 0.4, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("noise", ["symmetric", "uniform", "asymmetric"])
@pytest.mark.parametrize("rate", [0.0, 0.123, 1.0])
def test_rows_sum_to_one(noise: NoiseName, rate: float) -> None:
    matrix = matrix_of(noise, ANIMALS, rate, {"cat": "owl"})
    assert matrix.sum(axis=1) == pytest.approx(1)
    assert matrix.min() >= 0


@pytest.mark.parametrize("rate", [-0.01, 1.01, float("nan")])
def test_refuses_a_rate_that_is_no_probability(rate: float) -> None:
    with pytest.raises(UsageError, match="`rate`"):
        matrix_of("uniform", ANIMALS, rate)


def test_refuses_symmetric_noise_of_one_class() -> None:
    with pytest.raises(InputError, match="at least two"):
        matrix_of("symmetric", ["cat"], 0.5)


def test_refuses_asymmetric_noise_without_a_map() -> None:
    with pytest.raises(UsageError, match="`map`"):
        matrix_of("asymmetric", ANIMALS, 0.5)


def test_labels_come_close_to_the_wanted_matrix() -> None:
    wanted = np.array([[0.5, 0.2, 0.3, 0], [0, 1, 0, 0], [0.05, 0.15, 0.7, 0.1], [0.25, 0.25, 0.25, 0.25]])
    true = draw_labels(200_000, 4)
    realised = np.zeros((4, 4))
    np.add.at(realised, (true, inject(true, wanted, seed=1)), 1 / np.bincount(true)[true])
    np.testing.assert_allclose(realised, wanted, atol=0.01)  # 4 deviations of a share over 50,000 rows are 0.009
    assert (realised[wanted == 0] == 0).all()


def test_symmetric_at_rate_one_never_yields_the_original_and_at_zero_nothing_else() -> None:
    true = draw_labels(200_000, 4)
    assert (inject(true, matrix_of("symmetric", ANIMALS, 1.0), seed=2) != true).all()
    assert (inject(true, matrix_of("symmetric", ANIMALS, 0.0), seed=2) == true).all()


def test_uniform_changes_fewer_labels_than_its_rate() -> None:
    true = draw_labels(200_000, 10)
    noisy = inject(true, matrix_of("uniform", list(range(10)), 0.8), seed=3)
    assert realised_rate(true, noisy) == pytest.approx(0.72, abs=0.005)


def test_each_draw_is_from_the_original_so_swaps_do_not_chain() -> None:
    true = draw_labels(1000, 4)
    swap = matrix_of("asymmetric", ANIMALS, 1.0, {"cat": "dog", "dog": "fox", "fox": "cat"})
    assert inject(true, swap, seed=0).tolist() == [{0: 1, 1: 2, 2: 0, 3: 3}[c] for c in true.tolist()]


def test_same_seed_same_labels_other_seed_other_labels() -> None:
    true, matrix = draw_labels(1000, 4), matrix_of("symmetric", ANIMALS, 0.5)
    first = inject(true, matrix, seed=5)
    assert (inject(true, matrix, seed=5) == first).all()
    assert (inject(true, matrix, seed=6) != first).any()


def test_a_label_does_not_depend_on_the_labels_of_other_rows() -> None:
    true, matrix = draw_labels(1000, 4), matrix_of("symmetric", ANIMALS, 0.5)
    other = np.concatenate([true[:500], (true[500:] + 1) % 4])
    assert (inject(true, matrix, seed=5)[:500] == inject(other, matrix, seed=5)[:500]).all()


def test_rows_without_a_label_stay_without_one_and_the_input_stays_as_it_was() -> None:
    true = np.array([0, -1, 1, -1, 0])
    noisy = inject(true, matrix_of("symmetric", ["a", "b"], 1.0), seed=0)
    assert noisy.tolist() == [1, -1, 0, -1, 1]
    assert true.tolist() == [0, -1, 1, -1, 0]


def test_many_classes_need_no_matrix_of_all_pairs() -> None:
    count = 2000
    true = np.arange(2 * count) % count
    tracemalloc.start()
    try:
        noisy = inject(true, transition_rows("symmetric", list(range(count)), 0.5), seed=4)
        realised_counts(true, noisy)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < count * count  # bytes; a matrix would have eight times as many
    assert realised_rate(true, noisy) == pytest.approx(0.5, abs=0.05)


def test_a_seed_gives_the_labels_that_a_whole_matrix_gives() -> None:
    true, matrix = draw_labels(500, 4), matrix_of("uniform", ANIMALS, 0.7)
    draws = np.random.default_rng(6).random(500)
    expected = [int((matrix[c].cumsum() <= draw).sum()) for c, draw in zip(true, draws, strict=True)]
    assert inject(true, transition_rows("uniform", ANIMALS, 0.7), seed=6).tolist() == expected


def test_realised_counts_by_hand() -> None:
    true = np.array([0, 0, 0, 0, 3, -1, 3])
    noisy = np.array([0, 1, 1, 2, 3, -1, 0])
    counts = realised_counts(true, noisy)
    assert counts.tolist() == [[0, 0, 1], [0, 1, 2], [0, 2, 1], [3, 0, 1], [3, 3, 1]]
    assert shares(counts).tolist() == [0.25, 0.5, 0.25, 0.5, 0.5]
    assert realised_rate(true, noisy) == pytest.approx(4 / 6)


def test_realised_rate_of_no_labels_is_zero() -> None:
    assert realised_rate(np.array([-1]), np.array([-1])) == 0


def test_largest_flips_leave_out_the_diagonal_and_zeros() -> None:
    counts = np.array([[0, 0, 6], [0, 1, 1], [0, 2, 3], [1, 1, 9], [2, 0, 1], [2, 2, 4]])
    assert largest_flips(counts, 2) == [(0, 2, 0.3), (2, 0, 0.2)]
    assert largest_flips(counts, 9) == [(0, 2, 0.3), (2, 0, 0.2), (0, 1, 0.1)]


@pytest.mark.parametrize(
    "cells",
    [
        pd.Series(["cat", "dog", "", "dog"], dtype="str"),
        pd.Series([3, 5, pd.NA, 5], dtype="Int64"),
        pd.Series(["cat", "dog", None, "dog"], dtype="category"),
    ],
)
def test_a_changed_column_keeps_type_index_and_cells_without_a_label(cells: pd.Series) -> None:
    cells.index = pd.Index([10, 10, 12, 13])
    changed = relabel(cells, np.array([0, 1, -1, 1]), np.array([1, 1, -1, 0]))
    first, second, missing, _ = cells.tolist()
    pd.testing.assert_series_equal(
        changed, pd.Series([second, second, missing, first], index=cells.index, dtype=cells.dtype)
    )
