"""Tables of labels: read and check them, find their columns, write them back whole.

Rows count from 1, the first below the header; blank lines of a CSV do not count.
"""

import os
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from noisyknn.data.formats import (
    NUMBER,
    PARQUET_MAGIC,
    parse_csv,
    parse_parquet,
    without_views,
    write_csv,
    write_parquet,
)
from noisyknn.errors import InputError, UsageError, counted, first_ten, quoted
from noisyknn.files import atomic_file

Format = Literal["csv", "parquet"]
Label = str | int | float | bool
PATH_COLUMNS = ("path", "filename", "file", "image")
LABEL_COLUMNS = ("noisy_label", "given_label", "label")
_WHOLE_NUMBER = re.compile(r"(-?)0*(0|[1-9][0-9]*)(?:\.0*)?")
MISSING_TEXT = ("nan", "<na>")  # as pandas and numpy print them; "none" and "NA" may be real classes


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as read."""

    frame: pd.DataFrame
    name: str
    """Its name in messages: its path, or ``standard input``."""
    typed: bool
    """Whether the source has types (Parquet, DataFrame) or only text (CSV)."""
    arrow: pa.Table | None = None
    """The content of a Parquet file, which `frame` has in pandas; None for other sources."""

    def with_columns(self, columns: pd.DataFrame) -> pd.DataFrame | pa.Table:
        """The table as read, followed by these columns."""
        if self.arrow is None:
            return self.frame.assign(**{str(name): cells for name, cells in columns.items()})
        arrow = self.arrow
        for name, cells in columns.items():
            arrow = arrow.append_column(name, pa.array(cells))
        return arrow


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """A table with checked paths and labels: N rows, one per image, and C classes."""

    table: Table
    path_column: str
    label_column: str
    paths: list[str]
    """N paths of images, as the table gives them."""
    classes: list[Label]
    """C distinct labels in ascending order; the class with index c is ``classes[c]``."""
    given_labels: npt.NDArray[np.int64]
    """(N,) class index of each given label; -1 for none."""

    def as_column(self, labels: npt.NDArray[np.int64]) -> pd.Series:
        """Class indices (N,) as a column with the type of the given labels; -1 keeps the cell."""
        return relabel(self.table.frame[self.label_column], self.given_labels, labels)


def relabel(column: pd.Series, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> pd.Series:
    """`column` (N,) with its cells changed from the classes `before` (N,) to the classes `after` (N,).

    A changed cell copies the first cell of its new class, so type and spelling stay. -1 in `after` keeps the cell;
    every other class must occur in `before`.
    """
    present, first_row = np.unique(before, return_index=True)
    kept = (after == before) | (after < 0)
    rows = np.where(kept, np.arange(len(before)), first_row[np.searchsorted(present, after)])
    return column.take(rows).set_axis(column.index)


def label_text(label: object) -> str:
    """A label as text, equal for equal values: ``3``, ``3.0`` and ``"3"`` all give ``"3"``."""
    text = str(label).strip()
    number = _WHOLE_NUMBER.fullmatch(text)
    return number[1] + number[2] if number else text


def format_of(path: Path, chosen: Format | None, option: str) -> Format:
    """The format by the ending of the file, else `chosen`; raises UsageError without both."""
    by_ending: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
    found = by_ending.get(path.suffix.lower(), chosen)
    if found is None:
        raise UsageError(f"{option} {path}: the ending shows no known format; add `table_format` csv or parquet")
    return found


def read_table(source: Path | BinaryIO | pd.DataFrame, *, chosen_format: Format | None = None) -> Table:
    """Read a CSV or Parquet file, a binary stream or a DataFrame.

    Messages call a DataFrame by its ``attrs["name"]``. A stream that begins with Parquet's magic bytes is Parquet.
    Raises InputError for a source that cannot be read.
    """
    if isinstance(source, pd.DataFrame):
        table = Table(frame=without_views(source), name=str(source.attrs.get("name", "the DataFrame")), typed=True)
    elif isinstance(source, Path):
        raw = _read_file(source)
        table = _parse(raw, str(source), format_of(source, chosen_format, "table"))
    else:
        raw = source.read()
        if not raw:
            raise InputError("standard input is empty; check the command before the pipe")
        table = _parse(raw, "standard input", "parquet" if raw[:4] == PARQUET_MAGIC else (chosen_format or "csv"))
    columns = table.frame.columns
    if duplicated := sorted({repr(c) for c in columns[columns.duplicated()]}):
        raise InputError(
            f"{table.name}: several columns have the same name: {first_ten(duplicated)}; rename all but one"
        )
    if table.frame.empty:
        raise InputError(f"{table.name} has no rows; give a table with data")
    return table


def _read_file(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name another") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a CSV or Parquet file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not raw:
        raise InputError(f"{path} is empty (zero bytes); copy or make it again")
    return raw


def _parse(raw: bytes, name: str, chosen: Format) -> Table:
    if chosen == "csv":
        return Table(frame=parse_csv(raw, name), name=name, typed=False)
    arrow, frame = parse_parquet(raw, name)
    return Table(frame=frame, name=name, typed=True, arrow=arrow)


def find_column(table: Table, candidates: Sequence[str], chosen: str | None, option: str) -> str:
    """The column `chosen`, or the first of `candidates` in the table; raises InputError with the cure."""
    columns = list(table.frame.columns)
    for candidate in candidates if chosen is None else [chosen]:
        if candidate in columns:
            return candidate
    found = f"its columns are {first_ten(columns)}"
    if chosen is not None:
        raise InputError(f"{table.name} has no column {quoted(chosen)} ({option}); {found}")
    names = ", ".join(candidates)
    raise InputError(f"{table.name} has none of the columns {names}; {found}; name the right one with {option}")


def read_labels(
    source: Path | BinaryIO | pd.DataFrame,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    chosen_format: Format | None = None,
) -> LabelTable:
    """Read a table and check its columns of paths and labels; raises InputError naming rows, column and cure."""
    table = read_table(source, chosen_format=chosen_format)
    path_column = find_column(table, PATH_COLUMNS, path_column, "`path_column`")
    label_column = find_column(table, LABEL_COLUMNS, label_column, "`label_column`")
    classes, given = encode_labels(table, label_column)
    return LabelTable(
        table=table,
        path_column=path_column,
        label_column=label_column,
        paths=_check_paths(table, path_column),
        classes=classes,
        given_labels=given,
    )


def _check_paths(table: Table, column: str) -> list[str]:
    where = f"{table.name}, column {column!r}"
    cells = _plain_cells(table.frame[column])
    if odd := [f"row {row} ({type(cell).__name__})" for row, cell in enumerate(cells, 1) if not _is_path(cell)]:
        raise InputError(
            f"{where}: {counted(len(odd), 'row is', 'rows are')} not text: {first_ten(odd)}; "
            "name the column of paths with `path_column`"
        )
    paths = ["" if cell is None else str(cell) for cell in cells]
    if empty := [row for row, path in enumerate(paths, 1) if not path.strip()]:
        told = f"{counted(len(empty), 'row has', 'rows have')} no path (rows {first_ten(empty)})"
        raise InputError(f"{where}: {told}; remove or fill them")
    first_row: dict[str, int] = {}
    twice = []
    for row, path in enumerate(paths, 1):
        seen = first_row.setdefault(posixpath.normpath(path), row)
        if seen != row:
            twice.append(f"{quoted(path)} in rows {seen} and {row}")
    if twice:
        raise InputError(
            f"{where}: {counted(len(twice), 'path stands', 'paths stand')} more than once ({first_ten(twice)}); "
            "keep one row per image"
        )
    return paths


def _is_path(cell: object) -> bool:
    return cell is None or isinstance(cell, str | os.PathLike) or (isinstance(cell, int) and not isinstance(cell, bool))


def _plain_cells(column: pd.Series) -> list[object]:
    """The cells as plain Python values; None for a missing one."""
    missing = column.isna().tolist()
    cells = (cell.item() if isinstance(cell, np.number | np.bool_) else cell for cell in column.tolist())
    return [None if gone else cell for cell, gone in zip(cells, missing, strict=True)]


def encode_labels(table: Table, column: str) -> tuple[list[Label], npt.NDArray[np.int64]]:
    """Distinct labels in ascending order, and the index (N,) of each row's label; -1 without a label.

    Raises InputError for labels that are neither all text nor all whole numbers, or a class with two spellings.
    """
    where = f"{table.name}, column {column!r}"
    values = [None if _is_missing(cell) else cell for cell in _plain_cells(table.frame[column])]
    first_row: dict[Label, int] = {}
    kinds: dict[str, int] = {}
    odd: list[str] = []
    for row, value in enumerate(values, 1):
        if isinstance(value, Label) and (kind := _kind(value, table.typed)):
            kinds.setdefault(kind, row)
            first_row.setdefault(value, row)
        elif value is not None:
            odd.append(f"row {row} ({quoted(value)})")
    if odd:
        raise InputError(
            f"{where}: {counted(len(odd), 'label is', 'labels are')} neither text nor whole numbers: {first_ten(odd)}; "
            "give every class a name or a number"
        )
    if not kinds:
        raise InputError(f"{where}: no row has a label; name another column")
    if len(kinds) > 1:
        found = " but ".join(f"row {row} is {kind} ({quoted(values[row - 1])})" for kind, row in kinds.items())
        raise InputError(
            f"{where} mixes types: {found}; correct the odd ones or, if all of them are classes, pass the table as "
            "Parquet with this column as text"
        )
    _check_spelling(first_row, where)
    classes = sorted(first_row)
    index: dict[object, int] = {value: c for c, value in enumerate(classes)}
    return classes, np.array([-1 if value is None else index[value] for value in values], dtype=np.int64)


def note_spelled_missing(table: Table, column: str, note: Callable[[str], None]) -> None:
    """Warn about labels such as ``nan`` that count as missing, as one may be a class."""
    cells = [cell for cell in table.frame[column].tolist() if isinstance(cell, str)]
    spelled = [cell for cell in cells if cell.strip() and _is_missing(cell)]
    if spelled:
        names = first_ten(sorted(set(spelled)))
        one, many = f"that reads {names} is treated as missing", f"that read {names} are treated as missing"
        told = counted(len(spelled), f"label {one}", f"labels {many}")
        note(f"{table.name}, column {column!r}: {told}; rename it if it is a class")


def _is_missing(cell: object) -> bool:
    if isinstance(cell, str):
        return not cell.strip() or cell.strip().lower() in MISSING_TEXT
    return isinstance(cell, float) and cell != cell  # Arrow distinguishes nan from null


def _kind(label: Label, typed: bool) -> str | None:
    """The kind of a label, for messages; None if it cannot be a label."""
    if isinstance(label, str):
        return "a number" if not typed and NUMBER.fullmatch(label) else "text"
    if isinstance(label, bool):
        return "true or false"
    return "a number" if isinstance(label, int) or label.is_integer() else None


def _check_spelling(first_row: dict[Label, int], where: str) -> None:
    """Refuse labels that differ only in blanks or in the spelling of a number: they are the same class."""
    by_meaning: dict[object, str] = {}
    twins: list[str] = []
    for label, row in first_row.items():
        if isinstance(label, str):
            # not float, which confuses large numbers
            other = by_meaning.setdefault(Decimal(label) if NUMBER.fullmatch(label) else label.strip(), label)
            if other != label:
                twins.append(f"{quoted(other)} (row {first_row[other]}) and {quoted(label)} (row {row})")
    if twins:
        raise InputError(f"{where}: {first_ten(twins)} look like one class with two spellings; make them alike")


def write_table(table: pd.DataFrame | pa.Table, out: Path | BinaryIO, *, chosen_format: Format | None = None) -> None:
    """Write a CSV or Parquet file, whole or not at all, or write to a binary stream (CSV by default).

    Raises MachineError if the file cannot be written. Errors of a stream pass through.
    """
    chosen = format_of(out, chosen_format, "`out`") if isinstance(out, Path) else chosen_format
    write = write_parquet if chosen == "parquet" else write_csv
    if isinstance(out, Path):
        with atomic_file(out) as file:
            write(table, file)
    else:
        write(table, out)
        out.flush()
