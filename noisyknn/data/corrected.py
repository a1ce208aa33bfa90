"""A corrected table with true labels: the columns that `evaluate` needs, as arrays."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisyknn.data.table import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    Format,
    Label,
    Table,
    encode_labels,
    find_column,
    label_text,
    read_table,
)
from noisyknn.errors import InputError, UsageError, counted, first_ten, quoted

Source = Path | BinaryIO | pd.DataFrame
Codes = npt.NDArray[np.int64]
T = TypeVar("T")
SUM_TOLERANCE = 1e-3
"""Largest rounding error in the sum of a row's probabilities."""
TRUTH_COLUMNS = ("clean_label", "true_label")


@dataclass(frozen=True, kw_only=True)
class CorrectedTable:
    """N rows of a corrected table; labels are indices into `classes`, -1 for none."""

    table: Table
    """The table as read."""
    classes: list[Label]
    """Every label of the three columns once, those of the truth first, in ascending order."""
    truth: Codes
    """(N,) true labels."""
    given: Codes
    """(N,) labels before the correction."""
    corrected: Codes
    """(N,) labels after it."""
    is_issue: npt.NDArray[np.bool_] | None
    """(N,) whether the given label is flagged as wrong (False for an empty cell); None without the column."""
    label_score: npt.NDArray[np.float64] | None
    """(N,) probability that the given label is right, NaN for an empty cell; None without the column."""
    confidence: npt.NDArray[np.float64] | None
    """(N,) probability that the corrected label is right, likewise."""


def read_corrected(
    source: Source,
    *,
    truth_column: str | None,
    truth_source: Source | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    chosen_format: Format | None = None,
) -> CorrectedTable:
    """Read a table from ``noisyknn clean`` and the truth: a column of it or, joined by path, of `truth_source`.

    Labels compare as values, so ``3`` equals ``"3"``. Raises InputError naming rows, column and cure, UsageError if the
    truth is also the given label.
    """
    table = read_table(source, chosen_format=chosen_format)
    if "corrected_label" not in table.frame.columns:
        raise InputError(f"{table.name} has no column 'corrected_label'; give a table from noisyknn clean")
    if truth_source is None:
        cure = "`truth_column`" if truth_column else "`truth_column`, or the table that has it with `truth`"
        truth_column = find_column(table, TRUTH_COLUMNS, truth_column, cure)
        truth = encode_labels(table, truth_column)
        candidates = [column for column in LABEL_COLUMNS if column != truth_column]
        if label_column == truth_column:
            raise UsageError(f"`label_column` and `truth_column` are both {quoted(truth_column)}; name two columns")
    else:
        truth = _joined_truth(table, read_table(truth_source, chosen_format=chosen_format), truth_column, path_column)
        candidates = list(LABEL_COLUMNS)
    given_column = find_column(table, candidates, label_column, "`label_column`")
    classes, codes = _in_common([truth, encode_labels(table, given_column), encode_labels(table, "corrected_label")])
    _check_given(table, given_column, given=codes[1], corrected=codes[2])
    return CorrectedTable(
        table=table,
        classes=classes,
        truth=codes[0],
        given=codes[1],
        corrected=codes[2],
        is_issue=_cells(table, "is_label_issue", _flag, False, "true or false"),
        label_score=_cells(table, "label_score", _probability, float("nan"), "a probability (0 to 1)"),
        confidence=_cells(table, "confidence", _probability, float("nan"), "a probability (0 to 1)"),
    )


def _check_given(table: Table, column: str, *, given: Codes, corrected: Codes) -> None:
    """Refuse a column that `clean` cannot have read: rows with the status ``kept`` have another label in it."""
    if "status" not in table.frame.columns:
        return
    kept = (table.frame["status"] == "kept").to_numpy(dtype=np.bool_, na_value=False)
    if wrong := (np.flatnonzero(kept & (given != corrected)) + 1).tolist():
        raise InputError(
            f"{table.name}, column {column!r} is not what clean read: "
            f"{counted(len(wrong), 'row that it kept has', 'rows that it kept have')} another label here "
            f"(rows {first_ten(wrong)}); name the right column with `label_column`"
        )


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The output of ``clean --save-probabilities`` for N rows, with K classes of a `CorrectedTable`."""

    columns: Codes
    """(K,) class of each column of `probabilities`."""
    probabilities: npt.NDArray[np.float64]
    """(N, K) of each class by the image alone; NaN in rows with an unreadable image."""
    vote: Codes
    """(N,) class of most neighbours."""


def read_predictions(source: Source, table: CorrectedTable) -> Predictions:
    """Read the predictions for the rows of `table`, in the same order.

    Raises InputError for predictions of other rows, or without probabilities of the given classes.
    """
    found = read_table(source, chosen_format="parquet" if isinstance(source, Path) else None)
    names = [str(name) for name in found.frame.columns if str(name).startswith("p(") and str(name).endswith(")")]
    if "vote" not in found.frame.columns or not names or found.frame.columns[0] in ("vote", *names):
        raise InputError(f"{found.name} is not a table of class probabilities from noisyknn clean; name another")
    _check_same_rows(found, table.table)
    code = {label_text(label): c for c, label in enumerate(table.classes)}
    vote_classes, votes = encode_labels(found, "vote")
    texts = [label_text(name[2:-1]) for name in names]
    if unknown := [text for text in (*texts, *map(label_text, vote_classes)) if text not in code]:
        raise InputError(
            f"{found.name} has labels that the corrected table lacks: {first_ten(unknown)}; give both from one run"
        )
    if lacking := sorted({label_text(table.classes[c]) for c in table.given.tolist() if c >= 0} - set(texts)):
        raise InputError(
            f"{found.name} has no column for the given labels {first_ten(lacking)}; give both from one run"
        )
    return Predictions(
        columns=np.array([code[text] for text in texts], dtype=np.int64),
        probabilities=_distributions(found, names),
        vote=_places(vote_classes, code)[votes],
    )


def _check_same_rows(found: Table, table: Table) -> None:
    if len(found.frame) != len(table.frame):
        raise InputError(
            f"{found.name} has {len(found.frame)} rows, the corrected table {len(table.frame)}; give both from one run"
        )
    path_column = found.frame.columns[0]
    find_column(table, (), path_column, f"the column of paths in {found.name}")
    pairs = zip(found.frame[path_column].tolist(), table.frame[path_column].tolist(), strict=True)
    if other := [row for row, (one, two) in enumerate(pairs, 1) if str(one) != str(two)]:
        raise InputError(
            f"{found.name} has other paths than the corrected table in {counted(len(other), 'row', 'rows')} "
            f"(rows {first_ten(other)}); "
            "give both as clean wrote them, in the same order"
        )


def _distributions(table: Table, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Probabilities (N, K); each row sums to 1 or is all NaN."""
    cells = [_cells(table, column, _probability, float("nan"), "a probability (0 to 1)") for column in columns]
    probabilities = np.stack([column for column in cells if column is not None], axis=1)  # none is None
    said = ~np.isnan(probabilities).all(axis=1)
    if wrong := [row + 1 for row in np.flatnonzero(said) if not abs(probabilities[row].sum() - 1) < SUM_TOLERANCE]:
        raise InputError(
            f"{table.name}: the probabilities of rows {first_ten(wrong)} do not sum to 1; write the file again"
        )
    return probabilities


def _joined_truth(
    table: Table, truth_table: Table, truth_column: str | None, path_column: str | None
) -> tuple[list[Label], Codes]:
    """Classes of the truth, and the true class (N,) of each row of `table`; -1 if the truth lacks its path."""
    truth_column = find_column(truth_table, (*TRUTH_COLUMNS, "label"), truth_column, "`truth_column`")
    classes, codes = encode_labels(truth_table, truth_column)
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(_paths(truth_table, path_column)):
        rows_of.setdefault(path, []).append(row)
    paths = _paths(table, path_column)
    if not any(path in rows_of for path in paths):
        raise InputError(
            f"{truth_table.name} has no path of {table.name}, such as {quoted(paths[0])}; name the right truth, or the "
            "columns of paths with `path_column`"
        )
    if twice := [path for path in dict.fromkeys(paths) if len(rows_of.get(path, ())) > 1]:
        found = [f"{quoted(path)} in rows {first_ten([row + 1 for row in rows_of[path]])}" for path in twice]
        raise InputError(
            f"{truth_table.name}: {counted(len(twice), 'path has', 'paths have')} several truths ({first_ten(found)}); "
            "keep one row per image"
        )
    return classes, np.array([codes[rows_of[path][0]] if path in rows_of else -1 for path in paths], dtype=np.int64)


def _paths(table: Table, path_column: str | None) -> list[str]:
    column = find_column(table, PATH_COLUMNS, path_column, "`path_column`")
    return [posixpath.normpath(str(cell)) for cell in table.frame[column].tolist()]


def _in_common(columns: Sequence[tuple[list[Label], Codes]]) -> tuple[list[Label], list[Codes]]:
    """Several encoded columns with a common list of classes."""
    classes: dict[str, Label] = {}
    for own, _ in columns:
        for label in own:
            classes.setdefault(label_text(label), label)
    index = {text: c for c, text in enumerate(classes)}
    return list(classes.values()), [_places(own, index)[codes] for own, codes in columns]


def _places(classes: Sequence[Label], index: Mapping[str, int]) -> Codes:
    """The place of each class in `index`, by its text; then -1, which a code of -1 selects."""
    return np.array([*(index[label_text(label)] for label in classes), -1], dtype=np.int64)


def _cells(
    table: Table, column: str, parse: Callable[[object], T | None], empty: T, wanted: str
) -> npt.NDArray[Any] | None:
    """The cells (N,) of a column, read by `parse`, or `empty`; None without the column."""
    if column not in table.frame.columns:
        return None
    cells = table.frame[column]
    values = [
        empty if missing or cell == "" else parse(cell)
        for cell, missing in zip(cells.tolist(), cells.isna().tolist(), strict=True)
    ]
    pairs = enumerate(zip(cells, values, strict=True), 1)
    if wrong := [f"{row} ({quoted(cell)})" for row, (cell, value) in pairs if value is None]:
        told = f"not {wanted} in {counted(len(wrong), 'row', 'rows')}"
        raise InputError(f"{table.name}, column {column!r}: {told}: {first_ten(wrong)}; correct or empty them")
    return np.array(values)


def _flag(cell: object) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(label_text(cell).lower())


def _probability(cell: object) -> float | None:
    try:
        value = float(str(cell))
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
