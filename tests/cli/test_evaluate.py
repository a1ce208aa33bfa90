import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Cli

FIXED = b"""path,truth,label,corrected_label,label_score,is_label_issue,confidence
a.png,cat,cat,cat,0.9,False,0.9
b.png,cat,dog,cat,0.1,True,0.8
c.png,dog,dog,cat,0.3,True,0.6
d.png,dog,,dog,,False,0.5
e.png,,cat,cat,0.8,False,0.8
f.png,fox,cat,cat,0.4,False,0.4
"""
FIGURES = {
    "rows": 6,
    "evaluated_rows": 5,
    "given_accuracy": 2 / 5,
    "recovery": 3 / 5,
    "broken": 1 / 5,
    "fixed": 2 / 5,
    "precision": 1 / 2,
    "recall": 1 / 2,
    "f1": 1 / 2,
    "auroc": 3 / 4,
    "calibration_error": (0.1 + 0.2 + 0.6 + 0.5 + 0.4) / 5,
}
RELIABILITY = [(0.4, 1, 0), (0.5, 1, 1), (0.6, 1, 0), (0.8, 1, 1), (0.9, 1, 1)]
PROBABILITIES = pd.DataFrame(
    {
        "path": [f"{name}.png" for name in "abcdef"],
        "vote": ["cat", "cat", "dog", "dog", "dog", "cat"],
        "p(cat)": [0.9, 0.9, 0.2, 0.1, None, 0.9],
        "p(dog)": [0.1, 0.1, 0.8, 0.9, None, 0.1],
    }
)
PER_CLASS = [
    {
        "label": "cat",
        "rows": 2,
        "given_accuracy": 0.5,
        "recovery": 1,
        "corrected_precision": 0.5,
        "broken": 0,
        "fixed": 0.5,
    },
    {
        "label": "dog",
        "rows": 2,
        "given_accuracy": 0.5,
        "recovery": 0.5,
        "corrected_precision": 1,
        "broken": 0.5,
        "fixed": 0.5,
    },
    {
        "label": "fox",
        "rows": 1,
        "given_accuracy": 0,
        "recovery": 0,
        "corrected_precision": None,
        "broken": 0,
        "fixed": 0,
    },
]


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    path = tmp_path / "fixed.csv"
    path.write_bytes(FIXED)
    return path


def test_json_of_a_truth_in_the_table(cli: Cli, fixed: Path) -> None:
    result = cli("evaluate", fixed, "--truth-column", "truth", "--json")
    told = "noisyknn: skipped 1 of 6 rows, which have no true label; add one to evaluate them\n"
    assert (result.code, result.stderr) == (0, told)
    figures = json.loads(result.stdout)
    per_class, reliability = figures.pop("per_class"), figures.pop("reliability")
    assert figures == pytest.approx(FIGURES)
    assert per_class == PER_CLASS
    assert [(one["confidence"], one["rows"], one["accuracy"]) for one in reliability] == RELIABILITY


def test_standard_input_says_the_same(cli: Cli, fixed: Path) -> None:
    from_file = cli("evaluate", fixed, "--truth-column", "truth", "--json")
    from_pipe = cli("evaluate", "-", "--truth-column", "truth", "--json", stdin=FIXED)
    assert from_pipe.stdout == from_file.stdout != b""


def test_tables_for_people(cli: Cli, fixed: Path) -> None:
    result = cli("evaluate", fixed, "--truth-column", "truth")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.decode().splitlines()]
    assert ["recovery", "0.6000", "corrected label right"] in cells
    assert ["rows", "6", "rows of the table"] in cells
    assert ["fox", "1", "0.0000", "0.0000", "–", "0.0000", "0.0000"] in cells


def test_a_class_name_is_not_taken_for_markup(cli: Cli) -> None:
    result = cli("evaluate", "-", "--truth-column", "truth", stdin=FIXED.replace(b"fox", b"[red]fox"))
    assert "[red]fox" in result.stdout.decode()


@pytest.mark.parametrize("options", [[], ["--truth-column", "true_label", "--path-column", "path"]])
def test_truth_of_another_table_is_joined_by_path(cli: Cli, fixed: Path, tmp_path: Path, options: list[str]) -> None:
    truth = tmp_path / "truth.parquet"
    rows = {"f.png": "fox", "e.png": None, "d.png": "dog", "c.png": "dog", "b.png": "cat", "a.png": "cat", "z.png": "x"}
    pd.DataFrame({"path": rows.keys(), "true_label": rows.values()}).to_parquet(truth)
    figures = json.loads(cli("evaluate", fixed, "--truth", truth, "--json", *options).stdout)
    assert figures.pop("per_class") == PER_CLASS
    assert len(figures.pop("reliability")) == 5
    assert figures == pytest.approx(FIGURES)


def test_numbers_compare_as_values_and_keep_their_type(cli: Cli, tmp_path: Path) -> None:
    truth = tmp_path / "truth.parquet"
    pd.DataFrame({"path": ["a", "b"], "label": ["3", "10"]}).to_parquet(truth)
    stdin = b"path,label,corrected_label,digit\na,3,3,3\nb,3,10,10\n"
    result = cli("evaluate", "-", "--truth", truth, "--json", stdin=stdin)
    assert json.loads(result.stdout)["recovery"] == 1
    own = json.loads(cli("evaluate", "-", "--truth-column", "digit", "--json", stdin=stdin).stdout)
    assert [one["label"] for one in own["per_class"]] == [3, 10]


def test_absent_columns_are_null_and_noted(cli: Cli) -> None:
    stdin = b"path,truth,label,corrected_label\na,x,x,x\nb,y,x,y\n"
    result = cli("evaluate", "-", "--truth-column", "truth", "--json", stdin=stdin)
    figures = json.loads(result.stdout)
    assert result.code == 0
    assert [figures[name] for name in ("precision", "recall", "f1", "auroc")] == [None] * 4
    assert "no column is_label_issue" in result.stderr
    assert "no column label_score" in result.stderr
    assert "no column confidence" in result.stderr
    assert (figures["calibration_error"], figures["reliability"]) == (None, [])


def test_simple_rules_are_compared_on_the_same_probabilities(cli: Cli, fixed: Path, tmp_path: Path) -> None:
    PROBABILITIES.to_parquet(tmp_path / "p.parquet")
    command = ["evaluate", fixed, "--truth-column", "truth", "--probabilities", tmp_path / "p.parquet"]
    rules = {one["rule"]: one for one in json.loads(cli(*command, "--json").stdout)["rules"]}
    recoveries = {name: one["recovery"] for name, one in rules.items()}
    assert recoveries.pop("cleanlab's issues to argmax") >= 2 / 5  # d has no label; whether b is flagged is cleanlab's
    assert recoveries == {
        "noisyknn": 3 / 5,
        "keep everything": 2 / 5,
        "argmax of the probabilities": 4 / 5,
        "vote of the neighbours": 4 / 5,
    }
    assert rules["argmax of the probabilities"]["broken"] == 0
    assert "vote of the neighbours" in cli(*command).stdout.decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="vote"), "is not a table of class probabilities from noisyknn clean"),
        (lambda frame: frame[["path", "vote"]], "is not a table of class probabilities from noisyknn clean"),
        (lambda frame: frame.drop(columns="path"), "is not a table of class probabilities from noisyknn clean"),
        (lambda frame: frame.iloc[:4], "has 4 rows, the corrected table 6"),
        (lambda frame: frame.rename(columns={"p(cat)": "p(cow)"}), "has labels that the corrected table lacks: cow"),
        (lambda frame: frame.assign(vote="cow"), "has labels that the corrected table lacks: cow"),
        (lambda frame: frame.iloc[::-1], "other paths than the corrected table in 6 rows (rows 1, 2, 3, 4, 5, 6)"),
        (lambda frame: frame.rename(columns={"path": "name"}), "no column 'name' (the column of paths in "),
        (lambda frame: frame.drop(columns="p(dog)"), "no column for the given labels dog"),
        (lambda frame: frame.assign(**{"p(dog)": 0.0}), "the probabilities of rows 1, 2, 3, 4, 5, 6 do not sum to 1"),
        (lambda frame: frame.assign(**{"p(dog)": None}), "the probabilities of rows 1, 2, 3, 4, 6 do not sum to 1"),
        (lambda frame: frame.assign(**{"p(dog)": "x"}), "column 'p(dog)': not a probability (0 to 1) in 6 rows"),
        (lambda frame: frame.assign(**{"p(dog)": 1.5}), "column 'p(dog)': not a probability (0 to 1) in 6 rows"),
    ],
)
def test_probabilities_of_something_else_are_refused(
    cli: Cli, fixed: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    change(PROBABILITIES).to_parquet(tmp_path / "p.parquet")
    result = cli("evaluate", fixed, "--truth-column", "truth", "--probabilities", tmp_path / "p.parquet")
    assert (result.code, result.stdout) == (3, b"")
    assert message in result.stderr


def test_truth_of_another_kind_is_refused_unless_all_of_one_class_may_be_wrong(cli: Cli) -> None:
    stdin = b"path,truth,label,corrected_label,label_score,is_label_issue\na,cat,0,0,0.5,False\n"
    result = cli("evaluate", "-", "--truth-column", "truth", "--json", stdin=stdin)
    assert result.code == 0
    assert "no true label ('cat', …) is among the others (0, …); check --truth-column" in result.stderr
    result = cli("evaluate", "-", "--truth-column", "truth", stdin=stdin + b"b,dog,1,0,0.5,True\n")
    assert (result.code, result.stdout) == (3, b"")
    assert "no true label ('dog', …) is among the others (0, …)" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 3, "name the right one with --truth-column, or the table that has it with --truth"),
        (["--truth-column", "truth", "--path-column", "path"], 2, "no effect without --truth; remove it"),
        (["--truth", "-"], 2, "cannot both be standard input"),
        (["--truth-column", "truth", "--probabilities", "-"], 2, "--probabilities cannot be standard input"),
        (["--truth-column", "truth", "--label-column", "truth"], 2, "both 'truth'"),
        (["--truth-column", "species"], 3, "no column 'species' (--truth-column)"),
        (["--truth-column", "truth", "--label-column", "given"], 3, "no column 'given' (--label-column)"),
        (["--truth", "nowhere.csv"], 3, "nowhere.csv: no such file"),
    ],
)
def test_what_is_refused(cli: Cli, options: list[str], code: int, message: str) -> None:
    result = cli("evaluate", "-", *options, stdin=FIXED)
    assert (result.code, result.stdout) == (code, b"")
    assert message in result.stderr


def test_a_table_of_another_origin_is_refused(cli: Cli) -> None:
    result = cli("evaluate", "-", "--truth-column", "truth", stdin=b"path,truth,label\na,x,x\n")
    assert result.code == 3
    assert "give a table from noisyknn clean" in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_labels_that_standard_output_cannot_spell(fixed: Path, encoding: str, options: list[str]) -> None:
    fixed.write_bytes(FIXED.replace(b"fox", "é😀".encode()))
    command = [sys.executable, "-c", "from noisyknn.cli import main; main()", "evaluate", str(fixed)]
    done = subprocess.run(
        [*command, "--truth-column", "truth", *options],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode(encoding)
    if options:
        assert json.loads(text)["per_class"][-1]["label"] == "é😀"
    else:
        assert "é😀".encode(encoding, "backslashreplace").decode(encoding) in text


def test_without_cleanlab_the_other_rules_are_compared(
    cli: Cli, fixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PROBABILITIES.to_parquet(tmp_path / "p.parquet")
    monkeypatch.setattr("noisyknn.evaluation.rules.has_cleanlab", lambda: False)
    result = cli("evaluate", fixed, "--truth-column", "truth", "--probabilities", tmp_path / "p.parquet", "--json")
    assert "pip install 'noisyknn[bench]'" in result.stderr
    rules = [one["rule"] for one in json.loads(result.stdout)["rules"]]
    assert rules == ["noisyknn", "keep everything", "argmax of the probabilities", "vote of the neighbours"]


def test_the_truth_is_found_by_its_usual_name(cli: Cli) -> None:
    table = b"path,clean_label,label,corrected_label\na,x,y,x\nb,y,y,y\n"
    assert json.loads(cli("evaluate", "-", "--json", stdin=table).stdout)["recovery"] == 1


def test_a_column_that_was_not_corrected_is_refused(cli: Cli) -> None:
    table = b"path,mine,label,corrected_label,status\na,y,x,y,kept\nb,y,y,y,kept\nc,x,y,y,corrected\n"
    truth = ["--truth-column", "mine"]
    refused = cli("evaluate", "-", *truth, stdin=table)
    assert refused.code == 3
    assert "column 'label' is not what clean read: 1 row that it kept has" in refused.stderr
    assert "(rows 1)" in refused.stderr
    right = table.replace(b"a,y,x", b"a,x,y")
    assert cli("evaluate", "-", *truth, stdin=right).code == 0


def test_a_figure_out_of_range_is_shown_as_it_is(cli: Cli) -> None:
    table = b"path,truth,label,corrected_label,confidence\na,x,x,x,1.2\nb,y,y,y,0.5\n"
    assert "in 1 row: 1 (1.2)" in cli("evaluate", "-", "--truth-column", "truth", stdin=table).stderr
