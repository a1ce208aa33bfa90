import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Cli

TABLE = b"path,split,label\na.png,01,cat\nb.png,02,dog\nc.png,03,\nd.png,04,fox\ne.png,05,cat\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_bytes(TABLE)
    return path


def test_appends_a_column_and_changes_nothing_else(cli: Cli, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = cli("inject-noise", "--labels", table, "--out", out, "--noise", "symmetric", "--rate", 1)
    assert (result.code, result.stdout) == (0, b"")
    lines = out.read_text().splitlines()
    assert lines[0] == "path,split,label,noisy_label"
    assert "\n".join(line.rpartition(",")[0] for line in lines) + "\n" == TABLE.decode()
    noisy = [line.rpartition(",")[2] for line in lines[1:]]
    assert noisy[2] == ""
    for true, given in zip(["cat", "dog", "fox", "cat"], [*noisy[:2], *noisy[3:]], strict=True):
        assert given in {"cat", "dog", "fox"} - {true}
    assert table.read_bytes() == TABLE


def test_pipes_from_standard_input_to_standard_output(cli: Cli, table: Path) -> None:
    options = ["--out", "-", "--noise", "uniform", "--rate", "0.5", "--seed", "3", "--quiet"]
    piped = cli("inject-noise", "--labels", "-", *options, stdin=TABLE)
    read = cli("inject-noise", "--labels", table, *options)
    assert (piped.code, piped.stderr) == (0, "")
    assert piped.stdout == read.stdout
    assert piped.stdout.startswith(b"path,split,label,noisy_label\na.png,01,cat,")


def test_same_seed_same_bytes_other_seed_other_labels(cli: Cli) -> None:
    many = b"path,label\n" + b"".join(b"%d.png,%d\n" % (i, i % 7) for i in range(200))
    options = ["--labels", "-", "--out", "-", "--noise", "symmetric", "--rate", "0.4", "--quiet"]
    first, again, other = (cli("inject-noise", *options, "--seed", seed, stdin=many).stdout for seed in (1, 1, 2))
    assert first == again != other


def test_parquet_keeps_its_types(cli: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    labels = np.array([3, 5, 3, 5], dtype=np.int16)
    pd.DataFrame({"path": list("abcd"), "clean_label": labels, "label": 0}).to_parquet(source)
    assert cli("inject-noise", "--labels", source, "--out", out, "--noise", "symmetric", "--rate", 1).code == 0
    noisy = pq.read_table(out).column("noisy_label")
    assert noisy.to_pylist() == [5, 3, 5, 3]  # of clean_label, not of label
    assert noisy.type == pa.int16()


def test_arrow_views_of_text_become_plain_text(cli: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    view = pa.array(["cat", "dog", None, "a name of more than twelve letters"], pa.string_view())
    raw = pa.array([b"1", b"2", b"3", None], pa.binary_view())
    pq.write_table(pa.table({"path": view, "label": view, "raw": raw}), source)
    for target in (out, "-"):  # Parquet and CSV
        options = ["--labels", source, "--out", target, "--noise", "symmetric", "--rate", 0]
        assert cli("inject-noise", *options).code == 0
    written = pq.read_table(out)
    assert written.column("noisy_label").to_pylist() == view.to_pylist()
    assert written.column("label").to_pylist() == view.to_pylist()
    assert written.column("raw").to_pylist() == raw.to_pylist()
    assert written.schema.field("noisy_label").type == pa.large_string()


def test_format_is_for_names_without_an_ending_and_for_pipes(cli: Cli, tmp_path: Path, table: Path) -> None:
    options = ["--noise", "symmetric", "--rate", "0", "--quiet"]
    assert cli("inject-noise", "--labels", table, "--out", tmp_path / "out", *options).code == 2
    result = cli("inject-noise", "--labels", table, "--out", "-", "--format", "parquet", *options)
    assert pd.read_parquet(io.BytesIO(result.stdout))["noisy_label"].tolist() == ["cat", "dog", "", "fox", "cat"]


def test_asymmetric_by_a_map_from_a_file(cli: Cli, tmp_path: Path, table: Path) -> None:
    (tmp_path / "map.json").write_text('{"cat": "dog", "dog": "cat"}')
    options = ["--noise", "asymmetric", "--rate", 1, "--map", tmp_path / "map.json", "--label-column", "label"]
    result = cli("inject-noise", "--labels", table, "--out", "-", *options)
    noisy = [line.rpartition(",")[2] for line in result.stdout.decode().splitlines()]
    assert noisy == ["noisy_label", "dog", "cat", "", "fox", "dog"]


def test_asymmetric_by_a_named_map(cli: Cli) -> None:
    digits = b"path,label\n" + b"".join(b"%d.png,%d\n" % (c, c) for c in range(10))
    options = ["--labels", "-", "--out", "-", "--noise", "asymmetric", "--rate", "1", "--map", "mnist"]
    noisy = [line.rpartition(b",")[2] for line in cli("inject-noise", *options, stdin=digits).stdout.splitlines()]
    assert b"".join(noisy[1:]) == b"0178465189"  # where 0123456789 was: 7→1, 2→7, 5↔6, 3→8


def test_matrix_from_a_file(cli: Cli, tmp_path: Path, table: Path) -> None:
    (tmp_path / "matrix.csv").write_text(",cat,dog,fox\ncat,0,0,1\ndog,1,0,0\nfox,0,0,1\n")
    options = ["--noise", "matrix", "--matrix", tmp_path / "matrix.csv"]
    result = cli("inject-noise", "--labels", table, "--out", "-", *options)
    noisy = [line.rpartition(",")[2] for line in result.stdout.decode().splitlines()]
    assert noisy == ["noisy_label", "fox", "cat", "", "fox", "fox"]


def test_summary_and_message_tell_what_was_realised(cli: Cli, tmp_path: Path, table: Path) -> None:
    (tmp_path / "map.csv").write_text("from,to\ncat,dog\n")
    options = ["--noise", "asymmetric", "--rate", 1, "--map", tmp_path / "map.csv", "--seed", 9]
    summary = tmp_path / "summary.json"
    result = cli("inject-noise", "--labels", table, "--out", tmp_path / "out.csv", "--summary", summary, *options)
    assert json.loads(summary.read_text()) == {
        "noise": "asymmetric",
        "rate": 1.0,
        "seed": 9,
        "rows": 5,
        "realised_rate": 0.5,
        "classes": ["cat", "dog", "fox"],
        "realised_counts": [
            {"true": "cat", "noisy": "dog", "rows": 2},
            {"true": "dog", "noisy": "dog", "rows": 1},
            {"true": "fox", "noisy": "fox", "rows": 1},
        ],
    }
    assert result.stderr.startswith("noisyknn: 50.00% of the labels changed\n")
    assert "│ cat          │ 0.000 │ 1.000 │ 0.000 │" in result.stderr


def test_many_classes_are_summed_up_by_their_largest_flips(cli: Cli) -> None:
    many = b"path,label\n" + b"".join(b"%d.png,[c%02d]\n" % (i, i % 21) for i in range(420))
    options = ["--labels", "-", "--out", "-", "--noise", "symmetric", "--rate", "0.5"]
    shown = cli("inject-noise", *options, stdin=many).stderr
    assert "The ten largest flips" in shown
    assert shown.count("│ [c") == 20  # ten rows, true and noisy class in each


def test_quiet_says_nothing(cli: Cli, table: Path) -> None:
    result = cli("inject-noise", "--labels", table, "--out", "-", "--noise", "uniform", "--rate", "0.5", "--quiet")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--noise", "symmetric"], "symmetric needs --rate"),
        (["--noise", "asymmetric", "--rate", "0.1"], "asymmetric needs --map"),
        (["--noise", "matrix"], "matrix needs --matrix"),
        (["--noise", "matrix", "--matrix", "m.csv", "--rate", "0.1"], "does not use --rate"),
        (["--noise", "uniform", "--rate", "0.1", "--map", "mnist"], "does not use --map"),
        (["--noise", "symmetric", "--rate", "0.1", "--matrix", "m.csv"], "does not use --matrix"),
        (["--noise", "symmetric", "--rate", "1.5"], "--rate 1.5 is out of range"),
        (["--noise", "symmetric", "--rate", "nan"], "--rate nan is out of range"),
        (["--noise", "symmetric", "--rate", "0.1", "--summary", "-"], "--summary takes a file"),
    ],
)
def test_options_that_do_not_fit_together_are_wrong_usage(
    cli: Cli, table: Path, options: list[str], message: str
) -> None:
    result = cli("inject-noise", "--labels", table, "--out", "-", *options)
    assert (result.code, result.stdout) == (2, b"")
    assert message in result.stderr


def test_files_are_not_overwritten_unasked(cli: Cli, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    options = ["--labels", table, "--noise", "symmetric", "--rate", 1]
    assert cli("inject-noise", *options, "--out", out).code == 2
    assert cli("inject-noise", *options, "--out", "-", "--summary", out).code == 2
    assert out.read_text() == "precious"
    assert cli("inject-noise", *options, "--out", out, "--overwrite").code == 0
    assert out.read_text().startswith("path,split,label,noisy_label\n")


def test_the_input_is_never_written_to(cli: Cli, table: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "map.csv"
    matrix.write_text("from,to\ncat,dog\n")
    options = ["--noise", "asymmetric", "--rate", 1, "--map", matrix, "--labels", table, "--overwrite"]
    for out in (table, matrix):
        result = cli("inject-noise", *options, "--out", out)
        assert result.code == 2
        assert "also an input" in result.stderr
    assert table.read_bytes() == TABLE


@pytest.mark.parametrize(
    ("stdin", "options", "message"),
    [
        (b"path,label,noisy_label\na,x,x\nb,y,y\n", [], "already has a column 'noisy_label'"),
        (b"path,class\na,x\nb,y\n", [], "none of the columns clean_label, label"),
        (TABLE, ["--label-column", "species"], "no column 'species'"),
        (b"path,label\na,x\nb,x\n", [], "needs at least two"),
        (b"", [], "standard input is empty"),
    ],
)
def test_tables_that_cannot_be_used(cli: Cli, stdin: bytes, options: list[str], message: str) -> None:
    arguments = ["--labels", "-", "--out", "-", "--noise", "symmetric", "--rate", "0.5", *options]
    result = cli("inject-noise", *arguments, stdin=stdin)
    assert (result.code, result.stdout) == (3, b"")
    assert message in result.stderr
