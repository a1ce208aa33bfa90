"""Read and write CSV and Parquet without changing a cell.

A CSV column becomes numbers only if these reproduce every cell letter for letter; otherwise it stays text. Parquet
keeps its types.
"""

import codecs
import csv
import io
import re
import sys
from typing import BinaryIO, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from noisyknn.errors import InputError, counted, first_ten

PARQUET_MAGIC = b"PAR1"
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?\s*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NOT_CSV = {
    PARQUET_MAGIC: "is a Parquet file; give it the ending .parquet",
    b"\x1f\x8b": "is compressed; unpack it: gzip -dc IN > OUT.csv",
    b"PK\x03\x04": "is a spreadsheet or another ZIP archive; save it as CSV",
    b"\xff\xfe": "is UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT",
    b"\xfe\xff": "is UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT",
}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def parse_parquet(raw: bytes, name: str) -> tuple[pa.Table, pd.DataFrame]:
    """The table in a Parquet file, in Arrow and in pandas; raises InputError for another or a damaged file.

    An index that pandas stored becomes a column, as in every other reader.
    """
    if raw[:4] != PARQUET_MAGIC:
        raise InputError(
            f"{name} is not a Parquet file; if it is a CSV, end its name in .csv or add `table_format` csv"
        )
    try:
        table = pq.ParquetFile(pa.BufferReader(raw)).read()
        table.validate(full=True)
        return table, as_frame(table)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{name} is damaged or cut short ({error}); copy or make it again") from error


def as_frame(table: pa.Table) -> pd.DataFrame:
    """A table in pandas, with Arrow types."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return without_views(frame)


def parse_csv(raw: bytes, name: str) -> pd.DataFrame:
    """The columns of a comma-separated UTF-8 file with a header, as numbers or text; raises InputError naming lines."""
    for magic, cure in _NOT_CSV.items():
        if raw.startswith(magic):
            raise InputError(f"{name} {cure}")
    header, *body = _csv_rows(_decode(raw, name), name) or [[]]
    if len(header) == 1:
        for separator, word in _SEPARATORS.items():
            if separator in header[0]:
                raise InputError(f"{name} has {word} between its cells; save it with commas")
    ragged = [f"row {i} has {len(row)}" for i, row in enumerate(body, 1) if len(row) != len(header)]
    if ragged:
        raise InputError(
            f"{name}: {counted(len(ragged), 'row does', 'rows do')} not have the {len(header)} cells of the header "
            f"({first_ten(ragged)}); "
            "put quotes around cells that contain a comma"
        )
    columns = [[row[i] for row in body] for i in range(len(header))]
    return pd.DataFrame({i: _typed(cells) for i, cells in enumerate(columns)}).set_axis(header, axis=1)


def _decode(raw: bytes, name: str) -> str:
    try:
        text = raw.decode("utf-8-sig")  # drop a byte order mark, if any
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name} is not UTF-8 (line {line}, byte 0x{raw[error.start]:02x}); if it is Latin-1, convert it: "
            "iconv -f LATIN1 -t UTF-8 IN > OUT"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{name}, line {line}: a NUL byte; the file is damaged, binary or UTF-16; give a CSV in UTF-8")
    return text


def _csv_rows(text: str, name: str) -> list[list[str]]:
    """All rows but blank lines."""
    rows: list[list[str]] = []
    begin = 1
    limit = csv.field_size_limit(sys.maxsize)  # the default refuses cells above 128 KiB
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for row in reader:
            if row:
                rows.append(row)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{name}: the row that starts in line {begin} is not valid CSV ({error}); close any open quote"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _typed(cells: list[str]) -> pd.Series:
    """A CSV column as integers or floats if these reproduce it letter for letter, else as text."""
    filled = [cell for cell in cells if cell]
    if filled and all(_INTEGER.fullmatch(cell) and -(2**63) <= int(cell) < 2**63 for cell in filled):
        whole = [int(cell) if cell else pd.NA for cell in cells]
        return pd.Series(whole, dtype="int64" if len(filled) == len(cells) else "Int64")
    if filled and all(NUMBER.fullmatch(cell) and repr(float(cell)) == cell for cell in filled):
        return pd.Series([float(cell) if cell else float("nan") for cell in cells], dtype="float64")
    return pd.Series(cells, dtype="str")


def without_views(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with plain text and bytes in place of Arrow's views of them, which Arrow cannot filter.

    A frame without views is returned unchanged.
    """
    plain = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
    arrow = {name: str(dtype.pyarrow_dtype) for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.ArrowDtype)}
    views = [name for name, kind in arrow.items() if kind in plain]
    frame = frame.copy(deep=False) if views else frame
    for name in views:  # with Arrow: pandas cannot convert them
        frame[name] = pd.arrays.ArrowExtensionArray(pa.array(frame[name]).cast(plain[arrow[name]]))
    return frame


def write_parquet(table: pd.DataFrame | pa.Table, file: BinaryIO) -> None:
    """Write `table` as Parquet; raises InputError for a column without a Parquet type."""
    if isinstance(table, pd.DataFrame):
        arrow_types = any(isinstance(dtype, pd.ArrowDtype) for dtype in table.dtypes)
        try:
            table = pa.Table.from_pandas(table, preserve_index=False)  # CSV does not keep an index either
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"the table cannot be stored as Parquet ({error}); write CSV instead") from error
        if arrow_types:  # pandas cannot read the names that it gives Arrow types
            table = table.replace_schema_metadata(None)
    pq.write_table(table, file)


def write_csv(table: pd.DataFrame | pa.Table, file: BinaryIO) -> None:
    r"""Write `table` as CSV in UTF-8 with lines ending in ``\n``; cells are quoted only where they must be."""
    frame = table if isinstance(table, pd.DataFrame) else as_frame(table)
    texts = [frame.columns, *(column for _, column in frame.select_dtypes(exclude="number").items())]
    bare_return = any(isinstance(cell, str) and "\r" in cell for column in texts for cell in column)
    # Python before 3.13 does not quote a lone \r, and every reader ends a row there
    quoting: Literal[0, 1] = csv.QUOTE_ALL if bare_return else csv.QUOTE_MINIMAL
    text = codecs.getwriter("utf-8")(file)  # pandas would close the file if writing fails
    frame.to_csv(text, index=False, lineterminator="\n", quoting=quoting)
