"""The main job as one call: table and images in, the same table with corrected labels out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import pandas as pd
import torch

from noisyknn.config import read_config
from noisyknn.data.table import Format, Table, format_of, read_labels, write_table
from noisyknn.errors import InterruptedRunError, MachineError, UsageError
from noisyknn.files import as_path, check_outputs, takes_bytes, write_json
from noisyknn.observer import Observer, Silent
from noisyknn.output import NEW_COLUMNS, Result
from noisyknn.preparation import identify, prepare
from noisyknn.run import run_job
from noisyknn.run_dir import open_run, refuse_inside
from noisyknn.training.device import thread_count, threads


def clean(
    images: str | Path,
    labels: str | Path | BinaryIO | pd.DataFrame,
    *,
    out: str | Path | BinaryIO | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    truth_column: str | None = None,
    table_format: Format | None = None,
    preset: str = "auto",
    config: str | Path | None = None,
    run_dir: str | Path | None = None,
    save_model: str | Path | None = None,
    save_probabilities: str | Path | None = None,
    summary: str | Path | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
    **settings: object,
) -> Result:
    """Correct the labels in the table `labels`, whose images lie in the folder `images`.

    `labels` is a CSV or Parquet file, a binary stream or a DataFrame; it is never modified. `settings` are fields of
    `noisyknn.config.Config`; they override those of the TOML file `config`, which override the `preset`.
    Training never uses `truth_column`. The files `out`, `save_model`, `save_probabilities` (`Result.probabilities`) and
    `summary` appear whole or not at all; without `overwrite`, an existing one raises UsageError. A run with the same
    input and settings resumes where it stopped.

    Raises InputError, UsageError, MachineError and InterruptedRunError (see `noisyknn.errors`).
    """
    observer = observer or Silent()
    folder, source = as_path("`images`", images), _source(labels)
    config_file, run_folder = _optional_path("`config`", config), _optional_path("`run_dir`", run_dir)
    outputs = _Outputs(
        table=_target(out),
        model=_optional_path("`save_model`", save_model),
        probabilities=_optional_path("`save_probabilities`", save_probabilities),
        summary=_optional_path("`summary`", summary),
        table_format=table_format,
    )
    refuse_inside(run_folder, outputs.files)
    outputs.check([source if isinstance(source, Path) else None, config_file], overwrite=overwrite)
    table = read_labels(source, path_column=path_column, label_column=label_column, chosen_format=table_format)
    overrides = {**(read_config(config_file) if config_file else {}), **settings}
    job = prepare(table, folder, truth_column, preset, overrides, observer)
    check_outputs(outputs.files, job.inputs(), overwrite=overwrite)
    with open_run(run_folder, identify(job), overwrite=overwrite) as run:
        try:
            with threads(thread_count(job.config)):
                result = run_job(job, run, outputs.model, observer)
            outputs.write(result, job.table.table)
        except KeyboardInterrupt as error:
            raise InterruptedRunError(f"interrupted; run the same command again to resume from {run.path}") from error
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the GPU has too little free memory; delete {run.path} and start again with a smaller `batch_size`"
            ) from error
        run.finish(result.summary)
    return result


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """Where the results go."""

    table: Path | BinaryIO | None
    model: Path | None
    probabilities: Path | None
    summary: Path | None
    table_format: Format | None

    @property
    def files(self) -> dict[str, Path | None]:
        """The outputs that are files, by parameter."""
        return {
            "`out`": self.table if isinstance(self.table, Path) else None,
            "`save_model`": self.model,
            "`save_probabilities`": self.probabilities,
            "`summary`": self.summary,
        }

    def check(self, inputs: Sequence[Path | None], *, overwrite: bool) -> None:
        """Raise UsageError or MachineError for an output that cannot be written, before any work."""
        if self.table_format not in (None, *get_args(Format)):
            raise UsageError(f"`table_format` {self.table_format!r} is not one of {', '.join(get_args(Format))}")
        check_outputs(self.files, inputs, overwrite=overwrite)
        for option in ("`out`", "`save_probabilities`"):
            if (file := self.files[option]) is not None:
                format_of(file, self.table_format, option)
        if self.model is not None and self.model.suffix != ".safetensors":
            raise UsageError(f"`save_model` {self.model} does not end in .safetensors; rename it")

    def write(self, result: Result, read: Table) -> None:
        """Write everything but the model; the table `read`, with its new columns, comes last."""
        if self.probabilities is not None:
            write_table(result.probabilities, self.probabilities, chosen_format=self.table_format)
        if self.summary is not None:
            write_json(self.summary, result.summary)
        if self.table is not None:
            fixed = read.with_columns(result.table[[*NEW_COLUMNS]])
            write_table(fixed, self.table, chosen_format=self.table_format)


def _optional_path(option: str, value: object) -> Path | None:
    return None if value is None else as_path(option, value)


def _source(labels: Any) -> Path | BinaryIO | pd.DataFrame:
    """The source of the labels; raises UsageError for any other type."""
    if isinstance(labels, pd.DataFrame):
        return labels
    if isinstance(labels, str | os.PathLike):
        return as_path("`labels`", labels)
    try:
        binary = isinstance(labels.read(0), bytes)
    except (AttributeError, TypeError, ValueError):  # not a stream, closed, or write-only
        binary = False
    if not binary:
        raise UsageError("labels must be a path, a DataFrame or a binary stream, such as open(file, 'rb')")
    return cast(BinaryIO, labels)


def _target(out: Any) -> Path | BinaryIO | None:
    """Where the table goes; raises UsageError for any other type, before any work."""
    if isinstance(out, str | os.PathLike):
        return as_path("`out`", out)
    if out is not None and not takes_bytes(out):
        raise UsageError("out must be a path or a binary stream open for writing, such as open(file, 'wb')")
    return cast(BinaryIO | None, out)
