"""noisyknn evaluate: how good a correction was, measured against the true labels."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noisyknn.cli.common import STANDARD_STREAM, note, show_table, source
from noisyknn.cli.options import DebugOption, FormatOption
from noisyknn.errors import InputError, UsageError, quoted

if TYPE_CHECKING:
    from rich.table import Table

    from noisyknn.data.corrected import CorrectedTable

EXPLAINED = {
    "rows": "rows of the table",
    "evaluated_rows": "rows whose true label is known; the figures below are of these",
    "given_accuracy": "given label right",
    "recovery": "corrected label right",
    "broken": "given label right, corrected label wrong",
    "fixed": "given label wrong or empty, corrected label right",
    "precision": "of the labels flagged as issues, those that are wrong",
    "recall": "of the wrong labels, those flagged as issues",
    "f1": "harmonic mean of precision and recall",
    "auroc": "chance that label_score is lower for a wrong label than for a right one",
    "calibration_error": "how far confidence is from the share of right labels, on average (ECE, 15 bins)",
}


def evaluate(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Table from noisyknn clean: CSV, Parquet, or - for standard input.")
    ],
    truth_column: Annotated[
        str | None,
        typer.Option(help="Column of true labels; default: clean_label, true_label or, with --truth, label."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Table of true labels, joined by path; default: TABLE itself.")
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of labels before correction; default: noisy_label, given_label or label."),
    ] = None,
    path_column: Annotated[
        str | None, typer.Option(help="Column of paths in both tables; default: path, filename, file or image.")
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            help="File from clean --save-probabilities, to compare with simple rules and, if installed, cleanlab."
        ),
    ] = None,
    table_format: FormatOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; undefined figures are null.")] = False,
    debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
) -> None:
    """Compare corrected labels with true ones: recovery, broken labels, calibration and more."""
    if truth is None and path_column is not None:
        raise UsageError("--path-column has no effect without --truth; remove it")
    if probabilities == STANDARD_STREAM:
        raise UsageError("--probabilities cannot be standard input; name a file")
    if truth == table == STANDARD_STREAM:
        raise UsageError("TABLE and --truth cannot both be standard input; name a file for one")

    from noisyknn.data.corrected import read_corrected, read_predictions
    from noisyknn.evaluation import metrics, rules

    columns = read_corrected(
        source(table),
        truth_column=truth_column,
        truth_source=None if truth is None else source(truth),
        label_column=label_column,
        path_column=path_column,
        chosen_format=table_format,
    )
    result = metrics.evaluate(
        columns.truth,
        columns.given,
        columns.corrected,
        is_issue=columns.is_issue,
        label_score=columns.label_score,
        confidence=columns.confidence,
    )
    _note_what_is_missing(columns)
    figures = dataclasses.asdict(result)
    if probabilities is not None:
        predictions = read_predictions(probabilities, columns)
        if not rules.has_cleanlab():
            note("cleanlab is not installed; to compare with it: pip install 'noisyknn[bench]'")
        compared = rules.compare(columns, predictions)
        figures["rules"] = [dataclasses.asdict(rule) for rule in compared]
    for one_class in figures["per_class"]:
        one_class["label"] = columns.classes[one_class["label"]]
    if as_json:
        unicode = sys.stdout.encoding.lower().startswith("utf")  # else JSON escapes letters
        typer.echo(json.dumps(figures, indent=2, ensure_ascii=not unicode, allow_nan=False))
    else:
        show_table(_overall_table(figures))
        show_table(_rows_table("By true class", figures["per_class"]))
        if figures["reliability"]:
            show_table(_rows_table("By confidence", figures["reliability"]))
        if "rules" in figures:
            show_table(_rows_table("Beside simple rules", figures["rules"]))


def _note_what_is_missing(columns: "CorrectedTable") -> None:
    if unknown := int((columns.truth < 0).sum()):
        note(f"skipped {unknown} of {len(columns.truth)} rows, which have no true label; add one to evaluate them")
    if columns.is_issue is None:
        note("the table has no column is_label_issue; keep that of clean for precision, recall and f1")
    if columns.label_score is None:
        note("the table has no column label_score; keep that of clean for auroc")
    if columns.confidence is None:
        note("the table has no column confidence; keep that of clean for calibration_error")
    true = set(columns.truth.tolist()) - {-1}
    if not true & {*columns.given.tolist(), *columns.corrected.tolist()}:
        one, other = (columns.classes[int(labels.max())] for labels in (columns.truth, columns.corrected))
        message = f"no true label ({quoted(one)}, …) is among the others ({quoted(other)}, …); check --truth-column"
        if len(true) > 1:  # with one class, all labels may be wrong
            raise InputError(message)
        note(message)


def _overall_table(figures: Mapping[str, object]) -> "Table":
    from rich.table import Table

    table = Table("figure", "value", "meaning")
    for name, meaning in EXPLAINED.items():
        table.add_row(name, _shown(figures[name]), meaning)
    return table


def _rows_table(title: str, rows: Sequence[Mapping[str, object]]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row.values()))
    return table


def _shown(value: object) -> str:
    """A figure with four decimals; a label or a count unchanged."""
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
