"""noisyknn inject-noise: add a column with synthetic label noise to a table of right labels."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from noisyknn.cli.common import STANDARD_STREAM, check_outputs, note, show_table, sink, source
from noisyknn.cli.options import DebugOption, FormatOption, OverwriteOption, QuietOption
from noisyknn.errors import InputError, UsageError
from noisyknn.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

    from noisyknn.data.noise import Counts, Row
    from noisyknn.data.table import Label

NOISY_COLUMN = "noisy_label"
LARGEST_SHOWN_MATRIX = 20

Noise = Literal["symmetric", "uniform", "asymmetric", "matrix"]


def inject_noise(
    labels: Annotated[Path, typer.Option(help="Table of right labels: CSV, Parquet, or - for standard input.")],
    out: Annotated[Path, typer.Option(help="Output: the table with a column noisy_label; - for standard output.")],
    noise: Annotated[
        Noise,
        typer.Option(
            help="symmetric: flip to one of the other classes; uniform: draw from all classes; "
            "asymmetric: flip by --map; matrix: draw by --matrix."
        ),
    ],
    rate: Annotated[float | None, typer.Option(help="Probability of a flip (uniform: of a draw), 0 to 1.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Random seed; the same seed gives the same labels.")
    ] = 0,
    label_column: Annotated[
        str | None, typer.Option(help="Column of right labels; default: clean_label or label.")
    ] = None,
    map_: Annotated[
        str | None,
        typer.Option(
            "--map",
            help="Flips of asymmetric noise: mnist, cifar10, cifar100, cifar100-superclass, or a file "
            "(JSON object, or CSV with the columns from,to).",
        ),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(help="CSV of probabilities: a named row per true class, a named column per given class."),
    ] = None,
    table_format: FormatOption = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="Write the realised rate and the rows per true and noisy class as JSON."),
    ] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
) -> None:
    """Add a column noisy_label with synthetic label noise."""
    _check_options(noise, rate, map_, matrix)
    if summary == STANDARD_STREAM:
        raise UsageError("--summary takes a file")
    map_file = None if map_ is None else Path(map_)
    check_outputs({"--out": out, "--summary": summary}, [labels, map_file, matrix], overwrite=overwrite)

    from noisyknn.data.noise import inject, realised_counts, realised_rate
    from noisyknn.data.table import (
        encode_labels,
        find_column,
        note_spelled_missing,
        read_table,
        relabel,
        write_table,
    )

    table = read_table(source(labels), chosen_format=table_format)
    if NOISY_COLUMN in table.frame.columns:
        raise InputError(f"{table.name} already has a column {NOISY_COLUMN!r}; rename or remove it")
    column = find_column(table, ("clean_label", "label"), label_column, "--label-column")
    classes, true = encode_labels(table, column)
    noisy = inject(true, _transition(noise, classes, rate, map_, matrix), seed)
    cells = relabel(table.frame[column], true, noisy)
    write_table(table.with_columns(cells.to_frame(NOISY_COLUMN)), sink(out), chosen_format=table_format)

    changed, counts = realised_rate(true, noisy), realised_counts(true, noisy)
    if summary is not None:
        figures = {"noise": noise, "rate": rate, "seed": seed, "rows": len(true), "realised_rate": changed}
        pairs = [{"true": classes[a], "noisy": classes[b], "rows": rows} for a, b, rows in counts.tolist()]
        write_json(summary, figures | {"classes": classes, "realised_counts": pairs})
    if not quiet:
        note_spelled_missing(table, column, note)
        note(f"{changed:.2%} of the labels changed")
        show_table(_matrix_table(classes, counts), stderr=True)


def _check_options(noise: Noise, rate: float | None, map_: str | None, matrix: Path | None) -> None:
    """Raise UsageError for an option that the noise needs but lacks, or has but does not use."""
    for option, value, users in (
        ("--rate", rate, ("symmetric", "uniform", "asymmetric")),
        ("--map", map_, ("asymmetric",)),
        ("--matrix", matrix, ("matrix",)),
    ):
        if noise in users and value is None:
            raise UsageError(f"--noise {noise} needs {option}; add it")
        if noise not in users and value is not None:
            raise UsageError(f"--noise {noise} does not use {option}, which is for {', '.join(users)}; remove it")


def _transition(
    noise: Noise, classes: Sequence["Label"], rate: float | None, map_: str | None, matrix: Path | None
) -> Iterable["Row"]:
    from noisyknn.data.noise import transition_rows
    from noisyknn.data.noise_sources import read_map, read_matrix

    if noise == "matrix":
        assert matrix is not None  # as _check_options ensures
        return read_matrix(matrix, classes)
    assert rate is not None
    return transition_rows(noise, classes, rate, None if map_ is None else read_map(map_, classes))


def _matrix_table(classes: Sequence["Label"], counts: "Counts") -> "Table":
    """The realised matrix, or only its largest flips if the matrix does not fit a screen."""
    from rich.markup import escape
    from rich.table import Table

    from noisyknn.data.noise import largest_flips, shares

    names = [escape(str(label)) for label in classes]  # rich would read a class "[b]" as markup
    if len(names) <= LARGEST_SHOWN_MATRIX:
        table = Table("true / noisy", *names, title="Realised transition matrix")
        share_of = {(a, b): share for (a, b, _), share in zip(counts.tolist(), shares(counts).tolist(), strict=True)}
        for true, name in enumerate(names):
            table.add_row(name, *(f"{share_of.get((true, noisy), 0):.3f}" for noisy in range(len(names))))
    else:
        table = Table("true", "noisy", "share", title="The ten largest flips")
        for true, noisy, share in largest_flips(counts, 10):
            table.add_row(names[true], names[noisy], f"{share:.3f}")
    return table
