import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noisyknn.data.table import Label, Table, encode_labels, label_text, read_labels, read_table, write_table
from noisyknn.errors import InputError

Indices = npt.NDArray[np.int64]


def csv_table(cells: list[str]) -> Table:
    """A table read from CSV whose column ``label`` has these cells."""
    lines = [f'{i}.png,"{cell}"\n' for i, cell in enumerate(cells, 1)]
    return read_table(io.BytesIO("".join(["path,label\n", *lines]).encode()))


def parquet_table(labels: pa.Array) -> Table:
    out = io.BytesIO()
    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(len(labels))], "label": labels}), out)
    return read_table(io.BytesIO(out.getvalue()))


def frame_of(labels: Any, index: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": labels}, index=index)


def encode(table: Table) -> tuple[list[Label], list[int]]:
    classes, given = encode_labels(table, "label")
    assert given.dtype == np.int64
    return classes, given.tolist()


@pytest.mark.parametrize(
    ("cells", "classes", "given"),
    [
        (["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
        (["10", "9", "10"], [9, 10], [1, 0, 1]),
        (["3", "", "1"], [1, 3], [1, -1, 0]),
        (["3.0", "1.0", ""], [1.0, 3.0], [1, 0, -1]),
        (["dog", "", "NaN", "nan", "<NA>", "  ", "cat"], ["cat", "dog"], [1, -1, -1, -1, -1, -1, 0]),
        (["None", "NA", "null"], ["NA", "None", "null"], [1, 0, 2]),
        (["02", "10", "01"], ["01", "02", "10"], [1, 2, 0]),
        (["2", "NaN", "10"], ["10", "2"], [1, -1, 0]),
        (["True", "False"], ["False", "True"], [1, 0]),
        (["a, b", "Ä", "ä"], ["a, b", "Ä", "ä"], [0, 1, 2]),
        (["99999999999999999999998", "99999999999999999999999"], None, [0, 1]),
    ],
)
def test_labels_of_a_csv(cells: list[str], classes: list[Label] | None, given: list[int]) -> None:
    assert encode(csv_table(cells)) == (classes or cells, given)


@pytest.mark.parametrize(
    ("labels", "classes", "given"),
    [
        (["dog", None, "cat"], ["cat", "dog"], [1, -1, 0]),
        (["dog", float("nan"), pd.NA, "NaN", ""], ["dog"], [0, -1, -1, -1, -1]),
        ([3.0, float("nan"), 1.0], [1, 3], [1, -1, 0]),
        (np.array([300, 2, 300], dtype=np.uint16), [2, 300], [1, 0, 1]),
        ([True, False, True], [False, True], [1, 0, 1]),
        (pd.Series([np.int64(3), 1, np.uint8(3), None], dtype=object), [1, 3], [1, 0, 1, -1]),
        (pd.Series([np.float32(2.0), np.float64("nan")], dtype=object), [2], [0, -1]),
        (pd.Series([np.bool_(True), False], dtype=object), [False, True], [1, 0]),
        (pd.Series([np.str_("b"), "a"], dtype=object), ["a", "b"], [1, 0]),
        (pd.Categorical(["dog", None, "cat"], categories=["dog", "cat", "unused"]), ["cat", "dog"], [1, -1, 0]),
        (pd.array([5, None, 4], dtype="Int8"), [4, 5], [1, -1, 0]),
    ],
)
def test_labels_of_a_frame(labels: Any, classes: list[Label], given: list[int]) -> None:
    assert encode(read_table(frame_of(labels))) == (classes, given)


def test_labels_are_plain_values_of_python() -> None:
    classes, _ = encode(read_table(frame_of(pd.Series([np.int64(3), np.int64(1)], dtype=object))))
    assert [type(label) for label in classes] == [int, int]


@pytest.mark.parametrize("cells", [["", "NaN"], ["", ""], ["<NA>", " "]])
def test_a_column_without_any_label_is_refused(cells: list[str]) -> None:
    with pytest.raises(InputError, match="standard input, column 'label': no row has a label"):
        encode(csv_table(cells))


@pytest.mark.parametrize("labels", [[None, None], [float("nan")] * 2, pa.nulls(2)])
def test_nulls_alone_are_refused(labels: Any) -> None:
    table = parquet_table(labels) if isinstance(labels, pa.Array) else read_table(frame_of(labels))
    with pytest.raises(InputError, match="no row has a label"):
        encode(table)


@pytest.mark.parametrize(
    ("cells", "first", "second"),
    [
        (["1", "x", "1.0"], r"'1' \(row 1\)", r"'1\.0' \(row 3\)"),
        (["01", "1"], r"'01' \(row 1\)", r"'1' \(row 2\)"),
        (["1e2", "100"], r"'1e2' \(row 1\)", r"'100' \(row 2\)"),
        (["cat", "dog", "cat "], r"'cat' \(row 1\)", r"'cat ' \(row 3\)"),
        ([" cat", "cat"], r"' cat' \(row 1\)", r"'cat' \(row 2\)"),
    ],
)
def test_one_class_spelled_in_two_ways_is_named_with_both_rows(cells: list[str], first: str, second: str) -> None:
    with pytest.raises(InputError, match=f"{first} and {second} look like one class .*; make them alike"):
        encode(parquet_table(pa.array(cells)))
    if "x" not in cells:
        with pytest.raises(InputError, match=f"{first} and {second} look like one class"):
            encode(csv_table(cells))


def test_every_second_spelling_is_listed() -> None:
    with pytest.raises(InputError, match=r"'cat' \(row 1\) and 'cat ' \(row 2\), 'dog ' \(row 3\) and 'dog' \(row 4\)"):
        encode(csv_table(["cat", "cat ", "dog ", "dog"]))


def test_names_that_differ_otherwise_are_classes_of_their_own() -> None:
    cells = ["Cat", "cat", "ca t", "9007199254740992", "9007199254740993"]
    assert sorted(map(str, encode(parquet_table(pa.array(cells)))[0])) == sorted(cells)


def test_numbers_among_words_of_a_csv_are_refused_and_of_parquet_text_taken() -> None:
    cells = ["cat", "dog", "7", "", "cat"]
    with pytest.raises(
        InputError, match=r"row 1 is text \('cat'\) but row 3 is a number \('7'\); .*as Parquet .* text"
    ):
        encode(csv_table(cells))
    assert encode(parquet_table(pa.array(cells))) == (["7", "cat", "dog"], [1, 2, 0, -1, 1])


def test_types_that_mix_in_a_frame_are_refused() -> None:
    for labels in (["cat", 7], [True, 1]):
        with pytest.raises(InputError, match=r"mixes types: row 1 is .* but row 2 is a number"):
            encode(read_table(frame_of(pd.Series(labels, dtype=object))))


@pytest.mark.parametrize("odd", [2.5, float("inf"), b"cat", pd.Timestamp(0), ["cat"], {"a": 1}, 1j, np.float32(0.5)])
def test_labels_that_name_no_class_are_refused_row_by_row(odd: Any) -> None:
    table = read_table(frame_of(pd.Series([odd, 1, None, odd], dtype=object)))
    with pytest.raises(InputError, match=r"'label': 2 labels are neither text nor whole numbers: row 1 \(.*row 4 \("):
        encode(table)


def test_fractions_of_a_csv_are_refused() -> None:
    with pytest.raises(InputError, match=r"1 label is neither .*: row 2 \(2\.5\); give every class a name or a number"):
        encode(csv_table(["1.0", "2.5"]))


# Class indices as a column

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize(
    ("labels", "corrected"),
    [
        *[(pa.array([3, 100, None], kind), [100, 3, 3]) for kind in INTEGERS],
        (pa.array([2**64 - 1, 2**63, None], pa.uint64()), [2**63, 2**64 - 1, 2**63]),
        (pa.array([-(2**63), 2**63 - 1, 0], pa.int64()), [2**63 - 1, 0, -(2**63)]),
        (pa.array([3.0, 7.0, None], pa.float32()), [7.0, 3.0, 3.0]),
        (pa.array([3.0, float("nan"), 7.0]), [7.0, 3.0, 3.0]),
        (pa.array(["cat", "dog", None]), ["dog", "cat", "cat"]),
        (pa.array(["cat", "dog", None], pa.large_string()), ["dog", "cat", "cat"]),
        (pa.array(["cat", "dog", None]).dictionary_encode(), ["dog", "cat", "cat"]),
        (pa.array([True, False, None]), [False, True, True]),
    ],
)
def test_parquet_labels_keep_their_type(labels: pa.Array, corrected: list[Label], tmp_path: Path) -> None:
    frame = parquet_table(labels).frame
    table = read_labels(frame)
    indices = np.array([table.classes.index(label) for label in corrected])
    column = table.as_column(indices)
    assert column.dtype == frame["label"].dtype
    assert column.tolist() == corrected
    write_table(frame.assign(corrected=column), tmp_path / "out.parquet")
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.schema.field("corrected").type == labels.type
    assert written.column("corrected").to_pylist() == corrected


def test_views_of_a_frame_are_corrected_as_plain_text() -> None:
    labels = pd.Series(["cat", "dog", None], dtype=pd.ArrowDtype(pa.string_view()))
    table = read_labels(frame_of(labels))
    column = table.as_column(np.array([1, 0, -1]))
    assert column.dtype == pd.ArrowDtype(pa.large_string())
    assert column.tolist() == ["dog", "cat", pd.NA]
    assert labels.dtype == pd.ArrowDtype(pa.string_view())


def test_a_label_of_endless_letters_is_cut_in_messages() -> None:
    with pytest.raises(InputError) as caught:
        encode(csv_table(["3", "x" * 300_000]))
    assert "… (300,002 characters)" in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([3, 7, 3], dtype="int16"),
        pd.Series([3.0, 7.0, float("nan")], dtype="float32"),
        pd.Series([3, 7, None], dtype="Int32"),
        pd.Series(["cat", "dog", None], dtype="str"),
        pd.Series(["cat", "dog", None], dtype="string"),
        pd.Series(["cat", "dog", None], dtype=object),
        pd.Series(pd.Categorical(["cat", "dog", None], categories=["x", "dog", "cat"], ordered=True)),
        pd.Series([3, 7, None], dtype="category"),
        pd.Series([True, False, True]),
        pd.Series([True, False, None], dtype="boolean"),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_of_a_frame_keep_their_type(labels: pd.Series) -> None:
    table = read_labels(frame_of(labels))
    first, second = (table.classes.index(label) for label in labels.tolist()[:2])
    column = table.as_column(np.array([second, first, second]))
    assert column.dtype == labels.dtype
    assert column.tolist() == [labels[1], labels[0], labels[1]]


def test_labels_of_a_csv_keep_their_letters() -> None:
    for cells, indices, expected in [
        (["007", "1.0", "007"], [1, 0, 1], ["1.0", "007", "1.0"]),
        (["3", "", "5"], [1, 1, 0], ["5", "5", "3"]),
        (["3.0", "", "5.0"], [1, 1, 0], ["5.0", "5.0", "3.0"]),
    ]:
        table = read_labels(csv_table(cells).frame)
        out = io.BytesIO()
        write_table(table.as_column(np.array(indices)).to_frame(), out)
        assert out.getvalue().decode().splitlines() == ["label", *expected]


def test_index_minus_one_keeps_the_cell_of_its_row() -> None:
    table = read_labels(io.BytesIO(b"path,label\na.png,cat\nb.png,NaN\nc.png,\nd.png,dog\n"))
    given: Indices = table.given_labels
    assert given.tolist() == [0, -1, -1, 1]
    assert table.as_column(given).tolist() == ["cat", "NaN", "", "dog"]
    assert table.as_column(np.array([1, -1, 0, 0])).tolist() == ["dog", "NaN", "cat", "cat"]


# Labels as text


@pytest.mark.parametrize(
    ("label", "text"),
    [(3, "3"), (3.0, "3"), ("3", "3"), ("3.0", "3"), ("03", "3"), (-1, "-1"), (0, "0"), ("cat ", "cat"), ("3a", "3a")],
)
def test_labels_of_the_same_value_have_the_same_text(label: object, text: str) -> None:
    assert label_text(label) == text


@pytest.mark.parametrize("label", [10, "1_0", "1.5", 1.5, "", "v1.0", True])
def test_other_labels_do_not_become_numbers(label: object) -> None:
    assert label_text(label) == str(label)


def test_long_numbers_stay_apart() -> None:
    assert label_text("9007199254740993") != label_text(9007199254740992)
