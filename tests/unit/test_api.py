"""What a call of `noisyknn.clean` refuses before it does any work."""

import io
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import noisyknn
from noisyknn.errors import UsageError
from tests.small_data import FAST_SETTINGS, draw

TABLE = pd.DataFrame({"path": ["0.png"], "label": ["a"]})


def closed() -> io.BytesIO:
    stream = io.BytesIO()
    stream.close()
    return stream


@pytest.mark.parametrize("labels", [["a.csv"], {}, None, 5, TABLE["label"], io.StringIO("path,label\n"), closed()])
def test_labels_that_nothing_can_be_read_from(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(
        UsageError, match=r"labels must be a path, a DataFrame or a binary stream, such as open\(file, 'rb"
    ):
        noisyknn.clean(tmp_path, labels)


def test_streams_of_text_and_those_open_for_the_other_direction(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with path.open("w+") as text, path.open("wb") as writer, path.open("rb") as reader:
        for labels in (text, writer):
            with pytest.raises(UsageError, match="labels must be a path, a DataFrame or a binary stream"):
                noisyknn.clean(tmp_path, labels)  # type: ignore[arg-type]
        for out in (text, reader):
            with pytest.raises(UsageError, match="out must be a path or a binary stream open for writing"):
                noisyknn.clean(tmp_path, TABLE, out=out)  # type: ignore[arg-type]


@pytest.mark.parametrize("out", [io.StringIO(), 5, closed(), TABLE])
def test_what_the_table_cannot_go_to(tmp_path: Path, out: Any) -> None:
    with pytest.raises(UsageError, match="out must be a path or a binary stream open for writing"):
        noisyknn.clean(tmp_path, TABLE, out=out)


@pytest.mark.parametrize("name", ["images", "labels", "out", "config", "run_dir", "save_model", "summary"])
@pytest.mark.parametrize("value", ["a\0b.csv", Path("x" * 300)])
def test_names_that_no_file_can_have(tmp_path: Path, name: str, value: str | Path) -> None:
    arguments: dict[str, Any] = {"images": tmp_path, "labels": TABLE} | {name: value}
    with pytest.raises(UsageError, match=f"^`{name}` .*(not a valid file name|is too long)"):
        noisyknn.clean(**arguments)


@pytest.mark.parametrize("name", ["images", "config", "run_dir", "save_model", "summary"])
def test_what_is_no_path(tmp_path: Path, name: str) -> None:
    arguments: dict[str, Any] = {"images": tmp_path, "labels": TABLE}
    value = None if name == "images" else io.BytesIO()
    with pytest.raises(UsageError, match=f"`{name}` takes a path, not {type(value).__name__}"):
        noisyknn.clean(**(arguments | {name: value}))


def test_a_format_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`table_format` 'xyz' is not one of csv, parquet"):
        noisyknn.clean(tmp_path, TABLE, table_format="xyz")  # type: ignore[arg-type]


def test_streams_and_any_kind_of_path_are_taken(tmp_path: Path) -> None:
    class Somewhere(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(tmp_path / "images")

    table = draw(tmp_path / "images")
    labels, out = io.BytesIO(table.to_csv(index=False).encode()), io.BytesIO()
    result = noisyknn.clean(Somewhere(), labels, out=out, **FAST_SETTINGS)  # type: ignore[arg-type]
    assert out.getvalue().decode() == result.table.to_csv(index=False)
