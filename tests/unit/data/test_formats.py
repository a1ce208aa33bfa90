import csv
import datetime
import decimal
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from noisyknn.data.table import read_table, write_table
from noisyknn.errors import InputError

LETTERS = [
    '"',
    ",",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "ä",
    "猫",
    "🙂",
    "a",
    "B",
    "0",
    "1",
    "-",
    ".",
    "e",
    "'",
    ";",
    "#",
    "\\",
]
CELLS = [
    "",
    "007",
    "1.0",
    "1e5",
    "1E5",
    " padded",
    "tail ",
    "-0",
    "+1",
    "True",
    "nan",
    "NA",
    "None",
    "inf",
    "1_000",
    "0x1",
]
NUMBERS = [
    "0",
    "7",
    "-12",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999999",
    "0.1",
    "-0.0",
    "1e+16",
]


def read_bytes(raw: bytes) -> pd.DataFrame:
    return read_table(io.BytesIO(raw)).frame


def csv_bytes(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    write_table(frame, out)
    return out.getvalue()


def parquet_bytes(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def as_csv(rows: list[list[str]], *, line_end: str = "\n") -> bytes:
    """CSV with every cell in quotes: written without the product's own code and without csv's choice of quotes."""
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    return "".join(",".join(row) + line_end for row in quoted).encode()


def cells_of(raw: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(raw.decode(), newline=""), strict=True))


@pytest.mark.parametrize("seed", range(60))
def test_any_csv_is_written_back_letter_for_letter(seed: int) -> None:
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.choices(LETTERS, k=rng.randrange(6)))

    def column() -> list[str]:
        """Cells of one kind, or of several: it is the whole column that decides on its type."""
        kinds: list[Callable[[], str]] = [
            lambda: rng.choice(CELLS),
            lambda: rng.choice(NUMBERS),
            word,
            lambda: str(rng.randrange(-(10**20), 10**20)),
            lambda: repr(rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 308)),
            lambda: str(rng.randrange(10)),
            lambda: "",
        ]
        chosen = rng.sample(kinds, rng.choice([1, 1, 2, 3]))
        return [rng.choice(chosen)() for _ in range(height)]

    height = rng.randrange(1, 8)
    columns = [column() for _ in range(rng.randrange(2, 6))]
    header = [f"{word()}{i}" for i in range(len(columns))]
    rows = [header, *([cells[i] for cells in columns] for i in range(height))]
    written = csv_bytes(read_bytes(as_csv(rows, line_end=rng.choice(["\n", "\r\n"]))))
    assert cells_of(written) == rows


def test_a_plain_csv_is_written_back_byte_for_byte() -> None:
    text = 'path,label,note,n,x\na.png,007,"a, b",1,0.5\nb.png,,"he said ""no""",,\nc.png,猫,"two\nlines",3,1e-05\n'
    assert csv_bytes(read_bytes(text.encode())) == text.encode()


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        (["1", "-2", "0"], "int64"),
        (["9223372036854775807", "-9223372036854775808"], "int64"),
        (["1", "", "3"], "Int64"),
        (["0.5", "-0.0", "1e-05"], "float64"),
        (["0.5", ""], "float64"),
        (["01", "2"], "str"),
        (["1", "2.0"], "str"),
        (["1.0", "1.50"], "str"),
        (["1e5"], "str"),
        (["+1"], "str"),
        (["-0", "1"], "str"),
        (["٣"], "str"),
        (["9223372036854775808"], "str"),
        (["-9223372036854775809"], "str"),
        (["123456789012345678901234567890", "1"], "str"),
        (["True", "False"], "str"),
        (["nan", "1.5"], "str"),
        (["inf", "1.5"], "str"),
        ([" 1", "2"], "str"),
        (["", ""], "str"),
        (["2024-01-01"], "str"),
    ],
)
def test_columns_get_the_type_that_gives_their_letters_back(cells: list[str], dtype: str) -> None:
    raw = as_csv([["x", "y"], *([cell, "text"] for cell in cells)])
    frame = read_bytes(raw)
    wanted = pd.Series(["text"], dtype="str").dtype if dtype == "str" else pd.api.types.pandas_dtype(dtype)
    assert frame["x"].dtype == wanted
    assert [row[0] for row in cells_of(csv_bytes(frame))[1:]] == cells


def test_numbers_of_a_csv_are_numbers_in_parquet(tmp_path: Path) -> None:
    frame = read_bytes(b"path,label,count,share\na.png,3,7,0.5\nb.png,4,,\n")
    write_table(frame, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("label").type == pa.int64()
    assert table.schema.field("count").type == pa.int64()
    assert table.schema.field("share").type == pa.float64()
    assert table.column("count").to_pylist() == [7, None]
    assert table.column("path").to_pylist() == ["a.png", "b.png"]
    assert table.column_names == ["path", "label", "count", "share"]


def test_a_byte_order_mark_is_not_part_of_the_first_name() -> None:
    assert read_bytes(b"\xef\xbb\xbfpath,label\na.png,cat\n").columns.tolist() == ["path", "label"]


def test_windows_line_ends_are_not_part_of_a_cell() -> None:
    frame = read_bytes(b'path,label\r\na.png,cat\r\nb.png,"two\r\nlines"\r\n')
    assert frame.columns.tolist() == ["path", "label"]
    assert frame["label"].tolist() == ["cat", "two\r\nlines"]


def test_the_last_line_may_lack_its_end() -> None:
    assert read_bytes(b"path,label\na.png,cat").values.tolist() == [["a.png", "cat"]]


def test_blank_lines_are_no_rows() -> None:
    frame = read_bytes(b"\npath,label\n\na.png,cat\n\r\n\nb.png,dog\n\n")
    assert frame.values.tolist() == [["a.png", "cat"], ["b.png", "dog"]]


def test_an_empty_name_of_a_column_is_kept() -> None:
    raw = b",path,label\n0,a.png,cat\n1,b.png,dog\n"  # as pandas writes its index
    assert csv_bytes(read_bytes(raw)) == raw


def test_a_long_cell_is_read_whole() -> None:
    cell = "x" * 300_000
    before = csv.field_size_limit(131_072)  # what Python sets
    try:
        assert read_bytes(f"path,note\na.png,{cell}\n".encode())["note"].tolist() == [cell]
        assert csv.field_size_limit() == 131_072
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"path,label\na.png,caf\xe9\n", r"is not UTF-8 \(line 2, byte 0xe9\).*iconv -f LATIN1 -t UTF-8"),
        ("path,label\na.png,cat\n".encode("utf-16"), "is UTF-16, not UTF-8; convert it: iconv -f UTF-16"),
        (b"\xfe\xff" + "path,label\n".encode("utf-16-be"), "is UTF-16, not UTF-8"),
        ("path,label\na.png,cat\n".encode("utf-16-le"), "line 1: a NUL byte"),
        (b"path,label\na.png,cat\nb.png,d\0og\n", "line 3: a NUL byte"),
        (b"\n\n", "has no rows"),
        (b"path,label\n", "has no rows"),
        (
            b"path,label\na.png\nb.png,dog\nc.png,cat,3\n",
            r": 2 rows do not have the 2 cells.*row 1 has 1, row 3 has 3\)",
        ),
        (b"path,label\n" + b"x\n" * 12, "12 rows do not.*row 10 has 1 … and 2 more"),
        (b"path,label,label,path,x\na,b,c,d,e\n", "several columns have the same name: 'label', 'path';"),
        (b'path,label\na.png,cat\n\n"b.png,dog\nc.png,cat\n', "the row that starts in line 4 .* any open quote"),
        (b'path,label\n"a.png,cat\n"b.png",dog\n', "the row that starts in line 2 .* any open quote"),
        (b'path,label\n"a.png"x,cat\n', "the row that starts in line 2"),
        (b"path;label\na.png;cat\n", "has semicolons between its cells"),
        (b"path\tlabel\na.png\tcat\n", "has tabs between its cells"),
        (b"\x1f\x8b\x08\x00", "is compressed; unpack it: gzip -dc"),
        (b"PK\x03\x04\x14", "is a spreadsheet or another ZIP archive; save it as CSV"),
    ],
)
def test_what_is_no_csv_is_refused_with_the_cure(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=rf"labels\.csv.*{message}"):
        read_table(path)
    with pytest.raises(InputError, match=f"^standard input.*{message}"):
        read_bytes(raw)


def test_a_csv_of_odd_quotes_is_read_as_it_stands() -> None:
    assert read_bytes(b'path,label\na "b".png,5" nail\n').values.tolist() == [['a "b".png', '5" nail']]


def rich_table() -> pa.Table:
    moment = datetime.datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=datetime.UTC)
    return pa.table(
        {
            "path": ["a.png", "b.png", None],
            "boxes": pa.array([[[1, 2], []], None, []], pa.list_(pa.list_(pa.int16()))),
            "meta": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
            "tags": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
            "raw": pa.array([b"\x00\xff", None, b""]),
            "at": pa.array([moment, None, moment], pa.timestamp("us", tz="Europe/Berlin")),
            "naive": pa.array([datetime.datetime(1, 1, 1), None, datetime.datetime(9999, 1, 1)], pa.timestamp("us")),
            "day": pa.array([datetime.date(2024, 2, 29), None, datetime.date(1900, 1, 1)]),
            "took": pa.array([datetime.timedelta(seconds=1), None, datetime.timedelta(0)], pa.duration("ms")),
            "price": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-0.05")], pa.decimal128(12, 2)),
            "small": pa.array([1, None, -128], pa.int8()),
            "large": pa.array([2**64 - 1, None, 0], pa.uint64()),
            "share": pa.array([0.1, None, -0.0], pa.float32()),
            "yes": pa.array([True, None, False]),
            "kind": pa.array(["cat", None, "dog"]).dictionary_encode(),
            "wide": pa.array(["x", None, ""], pa.large_string()),
            "nothing": pa.nulls(3),
        }
    )


def passed_through(source: Path, target: Path) -> pa.Table:
    """What a Parquet file holds after it was read and written with a new column, and that column taken off."""
    table = read_table(source)
    write_table(table.with_columns(pd.DataFrame({"new": range(len(table.frame))})), target)
    written = pq.read_table(target)
    assert written.column("new").to_pylist() == list(range(len(table.frame)))
    return written.drop_columns("new")


def test_parquet_keeps_types_values_and_metadata(tmp_path: Path) -> None:
    table = rich_table().append_column("view", pa.array(["x", None, ""], pa.string_view()))
    about = {b"huggingface": b'{"info": {"features": {"path": {"dtype": "string", "_type": "Value"}}}}'}
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "in.parquet")
    again = passed_through(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert again.schema.equals(table.schema)
    assert again.schema.metadata == about
    assert again.to_pydict() == table.to_pydict()


def test_pandas_reads_a_frame_of_arrow_types_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "categories.parquet"
    labels = pd.Series(["a", "b", "a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())))
    boxes = pd.Series([[1], [2, 3], []], dtype=pd.ArrowDtype(pa.list_(pa.int64())))
    write_table(pd.DataFrame({"label": labels, "boxes": boxes}), path)
    assert pd.read_parquet(path)["label"].astype(str).tolist() == ["a", "b", "a"]
    assert [list(cell) for cell in pd.read_parquet(path)["boxes"]] == [[1], [2, 3], []]


def test_parquet_keeps_nan_apart_from_null(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [float("nan"), None, 1.0]}), tmp_path / "in.parquet")
    first, second, third = passed_through(tmp_path / "in.parquet", tmp_path / "out.parquet").column("x").to_pylist()
    assert np.isnan(first)
    assert second is None
    assert third == 1.0


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_rows_that_were_picked_from_a_larger_frame_gain_no_column(tmp_path: Path, name: str) -> None:
    picked = pd.DataFrame({"path": ["a.png", "b.png"], "label": ["cat", "dog"]}).iloc[1:]
    write_table(picked, tmp_path / name)
    read = pq.read_table(tmp_path / name) if name.endswith("parquet") else pa.csv.read_csv(tmp_path / name)
    assert read.to_pydict() == {"path": ["b.png"], "label": ["dog"]}


def test_what_pandas_stored_as_an_index_is_a_column(tmp_path: Path) -> None:
    pd.DataFrame({"label": ["cat"]}, index=pd.Index(["a.png"], name="path")).to_parquet(tmp_path / "in.parquet")
    frame = read_table(tmp_path / "in.parquet").frame
    assert sorted(frame.columns) == ["label", "path"]
    assert frame["path"].tolist() == ["a.png"]


def test_a_stream_is_parquet_where_it_begins_so() -> None:
    raw = parquet_bytes(pa.table({"path": ["a.png"], "label": ["007"]}))
    table = read_table(io.BytesIO(raw))
    assert table.typed
    assert table.frame.values.tolist() == [["a.png", "007"]]


def test_a_parquet_file_named_csv_is_refused(tmp_path: Path) -> None:
    pq.write_table(rich_table(), tmp_path / "labels.csv")
    with pytest.raises(InputError, match=r"labels\.csv is a Parquet file; give it the ending \.parquet"):
        read_table(tmp_path / "labels.csv")


def test_a_csv_named_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"path,label\na.png,cat\n")
    with pytest.raises(
        InputError, match=r"labels\.parquet is not a Parquet file; if it is a CSV, end its name in \.csv"
    ):
        read_table(tmp_path / "labels.parquet")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, kept: float) -> None:
    raw = parquet_bytes(rich_table())
    (tmp_path / "labels.parquet").write_bytes(raw[: int(len(raw) * kept)])
    with pytest.raises(InputError, match=r"labels\.parquet is damaged or cut short"):
        read_table(tmp_path / "labels.parquet")


def test_a_damaged_parquet_file_is_read_or_refused_but_never_crashes() -> None:
    raw = parquet_bytes(pa.table({"path": ["a.png", "b.png"] * 50, "label": ["cat", None] * 50}))
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(raw)
        for _ in range(rng.choice([1, 2, 8])):
            damaged[rng.randrange(4, len(raw))] = rng.randrange(256)
        try:
            frame = read_bytes(bytes(damaged))
        except InputError:
            refused += 1
        else:
            assert [len(frame[column].tolist()) for column in frame] == [len(frame)] * frame.shape[1]
    assert refused > 100


def test_a_parquet_file_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="has no rows"):
        read_bytes(parquet_bytes(rich_table().slice(0, 0)))


def test_parquet_columns_of_the_same_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["label", "label"])
    with pytest.raises(InputError, match="several columns have the same name: 'label'"):
        read_bytes(parquet_bytes(table))


def test_a_column_that_parquet_cannot_hold_is_refused_and_csv_named_as_the_cure(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "odd": pd.Series(["x", 1], dtype=object)})
    with pytest.raises(InputError, match=r"cannot be stored as Parquet .*odd.*; write CSV instead"):
        write_table(frame, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []
    write_table(frame, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"path,odd\na.png,x\nb.png,1\n"


def test_pandas_reads_a_table_that_went_through_as_it_reads_the_one_that_came(tmp_path: Path) -> None:
    there, back = tmp_path / "there.parquet", tmp_path / "back.parquet"
    before = pd.DataFrame(
        {
            "path": ["a", "b"],
            "text": ["x", None],
            "label": [1, 2],
            "count": pd.array([1, None], dtype="UInt8"),
            "whole": pd.array([2**60 + 1, None], dtype="Int64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "share": [1.5, None],
            "kind": pd.Categorical(["x", "y"]),
            "boxes": [[1], []],
            "day": pd.to_datetime(["2020-01-01", "2020-01-02"]),
        }
    )
    before.index = pd.Index([7, 9], name="row")
    before.to_parquet(there)
    passed_through(there, back)
    pd.testing.assert_frame_equal(pd.read_parquet(back).drop(columns="new"), pd.read_parquet(there))
