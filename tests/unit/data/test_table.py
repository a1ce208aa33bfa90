import errno
import io
import os
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pytest

from noisyknn.data.table import (
    Format,
    find_column,
    format_of,
    read_labels,
    read_table,
    write_table,
)
from noisyknn.errors import InputError, UsageError


def frame_of(labels: Any, index: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": labels}, index=index)


# Reading


def test_a_path_a_stream_and_a_frame_give_the_same_table(tmp_path: Path) -> None:
    frame = frame_of([2, 0, 1])
    write_table(frame, tmp_path / "labels.csv")
    write_table(frame, tmp_path / "labels.pq")
    sources: list[Path | BinaryIO | pd.DataFrame] = [
        tmp_path / "labels.csv",
        tmp_path / "labels.pq",
        io.BytesIO((tmp_path / "labels.csv").read_bytes()),
        frame,
    ]
    tables = [read_labels(source) for source in sources]
    assert [table.paths for table in tables] == [["0.png", "1.png", "2.png"]] * 4
    assert [table.classes for table in tables] == [[0, 1, 2]] * 4
    assert [table.given_labels.tolist() for table in tables] == [[2, 0, 1]] * 4
    assert [table.table.typed for table in tables] == [False, True, False, True]
    assert [table.table.name for table in tables] == [*map(str, sources[:2]), "standard input", "the DataFrame"]


@pytest.mark.parametrize(
    ("name", "chosen", "told"),
    [
        ("a.csv", None, "csv"),
        ("a.CSV", None, "csv"),
        ("a.parquet", None, "parquet"),
        ("a.pq", None, "parquet"),
        ("a.b.csv", "parquet", "csv"),  # `format` is for what has no ending, standard output beside a file
        ("a.txt", "csv", "csv"),
        ("a", "parquet", "parquet"),
    ],
)
def test_the_ending_tells_the_format_and_else_the_option(name: str, chosen: Format | None, told: str) -> None:
    assert format_of(Path(name), chosen, "`out`") == told


@pytest.mark.parametrize("name", ["labels.txt", "labels", "labels.csv.bak", ".csv"])
def test_an_unknown_ending_names_the_option_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"path,label\na.png,cat\n")
    with pytest.raises(UsageError, match=f"{name}: the ending shows no known format; .* `table_format` csv or parquet"):
        read_table(tmp_path / name)
    assert read_table(tmp_path / name, chosen_format="csv").frame["label"].tolist() == ["cat"]


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "empty.parquet").touch()
    for name, words in [
        ("missing.csv", "no such file"),
        ("folder.csv", "is a folder"),
        ("empty.csv", r"is empty \(zero bytes\)"),
        ("empty.parquet", r"is empty \(zero bytes\)"),
    ]:
        with pytest.raises(InputError, match=f"{name}:? {words}"):
            read_table(tmp_path / name)


def test_empty_standard_input_points_at_the_command_before() -> None:
    with pytest.raises(InputError, match="standard input is empty; check the command before the pipe"):
        read_table(io.BytesIO())


def test_what_the_system_refuses_to_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "labels.csv").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"labels\.csv cannot be read: Permission denied"):
        read_table(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "index",
    [None, [7, 7, 7], ["x", "y", "z"], pd.MultiIndex.from_tuples([(0, 1), (0, 2), (1, 1)], names=["a", "path"])],
)
def test_a_frame_keeps_its_index_and_is_never_modified(index: Any) -> None:
    frame = frame_of(["dog", "cat", None], index)
    before = frame.copy(deep=True)
    table = read_labels(frame)
    fixed = table.table.frame.assign(corrected_label=table.as_column(np.array([0, 0, 1])))
    pd.testing.assert_frame_equal(frame, before)
    assert fixed.index.equals(before.index)
    assert fixed["corrected_label"].tolist() == ["cat", "cat", "dog"]
    pd.testing.assert_frame_equal(fixed[["path", "label"]], before)


def test_a_frame_without_rows_or_with_columns_of_one_name_is_refused() -> None:
    with pytest.raises(InputError, match="the DataFrame has no rows"):
        read_table(frame_of([]))
    with pytest.raises(InputError, match="the DataFrame: several columns have the same name: 'label'"):
        read_table(pd.DataFrame([["a.png", 1, 2]], columns=["path", "label", "label"]))


# Columns


def test_columns_are_found_by_name_and_a_noisy_label_is_the_given_one() -> None:
    table = read_table(io.BytesIO(b"label,filename,noisy_label\ncat,a.png,dog\n"))
    found = read_labels(table.frame)
    assert (found.path_column, found.label_column) == ("filename", "noisy_label")
    assert read_labels(table.frame, label_column="label").classes == ["cat"]
    assert find_column(table, ("file", "filename"), None, "`path_column`") == "filename"


def test_a_column_that_is_not_there_is_told_with_the_columns_and_the_option() -> None:
    raw = b"img,klass\na.png,cat\n"
    with pytest.raises(InputError, match=r"none of the columns path, .*are img, klass; .* with `path_column`"):
        read_labels(io.BytesIO(raw))
    with pytest.raises(InputError, match=r"none of the columns .*label; .*are img, klass; .* with `label_column`"):
        read_labels(io.BytesIO(raw), path_column="img")
    with pytest.raises(InputError, match=r"no column 'Klass' \(`label_column`\); its columns are img, klass"):
        read_labels(io.BytesIO(raw), path_column="img", label_column="Klass")
    assert read_labels(io.BytesIO(raw), path_column="img", label_column="klass").classes == ["cat"]


def test_columns_of_a_frame_that_are_numbers_are_told_apart_from_text() -> None:
    with pytest.raises(InputError, match=r"no column '0' \(`path_column`\); its columns are 0, 1"):
        read_labels(pd.DataFrame([["a.png", "cat"]]), path_column="0", label_column="1")


# Paths


def test_paths_stay_as_the_table_gives_them() -> None:
    paths = ["./a.png", " b.png", "c//d.png", "ä/猫.png", "../e.png", "nan"]
    table = read_labels(pd.DataFrame({"path": paths, "label": 1}))
    assert table.paths == paths


@pytest.mark.parametrize("cells", [[1, 20], np.array([1, 20], dtype=np.uint8), [np.int64(1), "20"]])
def test_numbers_are_names_of_files_too(cells: Any) -> None:
    column = pd.Series(cells, dtype=object if isinstance(cells[-1], str) else None)
    assert read_labels(pd.DataFrame({"path": column, "label": 1})).paths == ["1", "20"]


def test_path_objects_are_paths() -> None:
    frame = pd.DataFrame({"path": [PurePosixPath("x/a.png"), Path("b.png")], "label": 1})
    assert read_labels(frame).paths == ["x/a.png", "b.png"]


@pytest.mark.parametrize("cell", [b"a.png", 1.5, True, {"bytes": b"", "path": "a.png"}, ["a.png"]])
def test_a_column_that_holds_no_paths_is_refused(cell: Any) -> None:
    frame = pd.DataFrame({"path": pd.Series([cell, "b.png", cell], dtype=object), "label": 1})
    kind = type(cell).__name__
    with pytest.raises(InputError, match=rf"'path': 2 rows are not text: row 1 \({kind}\), row 3 .*`path_column`"):
        read_labels(frame)


def test_rows_without_a_path_are_named() -> None:
    with pytest.raises(InputError, match=r"column 'path': 2 rows have no path \(rows 2, 3\)"):
        read_labels(io.BytesIO(b"path,label\na.png,1\n,1\n  ,2\nb.png,2\n"))
    with pytest.raises(InputError, match=r"1 row has no path \(rows 2\)"):
        read_labels(pd.DataFrame({"path": ["a.png", None], "label": [1, 2]}))
    many = "".join(",1\n" for _ in range(12))
    with pytest.raises(InputError, match=r"12 rows have no path \(rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 … and 2 more\)"):
        read_labels(io.BytesIO(f"path,label\n{many}".encode()))


@pytest.mark.parametrize("twin", ["a.png", "./a.png", "x/../a.png", ".//a.png"])
def test_a_path_that_stands_twice_is_named_with_both_rows(twin: str) -> None:
    with pytest.raises(InputError, match=r"1 path stands more than once \(.*a\.png' in rows 1 and 3\); keep one row"):
        read_labels(io.BytesIO(f"path,label\na.png,1\nb.png,1\n{twin},2\n".encode()))


# Writing


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_an_existing_file_is_replaced_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")
    with (tmp_path / name).open("rb") as old:
        write_table(frame_of(["cat"]), tmp_path / name)
        assert old.read() == b"old"
    assert read_table(tmp_path / name).frame["label"].tolist() == ["cat"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_ending_of_the_output_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`out` .*out\.txt: the ending shows no known format; .* `table_format` csv"):
        write_table(frame_of(["cat"]), tmp_path / "out.txt")
    write_table(frame_of(["cat"]), tmp_path / "out.txt", chosen_format="csv")
    assert (tmp_path / "out.txt").read_bytes() == b"path,label\n0.png,cat\n"


@pytest.mark.parametrize("chosen", [None, "csv", "parquet"])
def test_a_stream_gets_the_table_and_stays_open(chosen: Format | None) -> None:
    out = io.BytesIO()
    write_table(frame_of(["cat"]), out, chosen_format=chosen)
    assert not out.closed
    assert (out.getvalue()[:4] == b"PAR1") == (chosen == "parquet")
    assert read_table(io.BytesIO(out.getvalue())).frame.values.tolist() == [["0.png", "cat"]]


@pytest.mark.parametrize("chosen", ["csv", "parquet"])
def test_a_pipe_takes_both_formats(chosen: Format) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        with os.fdopen(writing, "wb") as sink:
            write_table(frame_of(["cat"]), sink, chosen_format=chosen)
        assert read_table(source).frame.values.tolist() == [["0.png", "cat"]]


@pytest.mark.parametrize("chosen", ["csv", "parquet"])
def test_what_a_stream_raises_is_left_to_its_owner(chosen: Format) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        with pytest.raises(OSError, match="No space left"):
            write_table(frame_of(["cat"]), full, chosen_format=chosen)
        assert not full.closed
