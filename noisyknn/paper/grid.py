"""Tables of the paper: data set by noise by method by trial, each cell a run of `clean` and a test of its network."""

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noisyknn.api import clean
from noisyknn.config import make_config
from noisyknn.data.images import some_unreadable
from noisyknn.data.table import read_labels, write_table
from noisyknn.errors import InterruptedRunError, NoisyKnnError, UsageError, counted, first_ten
from noisyknn.files import check_outputs, make_folder, write_json
from noisyknn.methods.spec import METHODS, unused_settings
from noisyknn.observer import Observer, Silent
from noisyknn.paper.cells import (
    DONE,
    STARTED,
    Cell,
    Record,
    as_record,
    cells_of,
    check_alike,
    describe,
    means,
    read_records,
)
from noisyknn.paper.data_set import NOISY, TRUE, DataSet, parse_noise, read_data_set, with_noise
from noisyknn.paper.held_out import HeldOut, accuracy
from noisyknn.paper.published import AS_GIVEN, PRINTED, TEST_ACCURACY, Figures, Metric
from noisyknn.preparation import prepare
from noisyknn.version import __version__

ASYMMETRIC: Mapping[str, Mapping[str, float]] = {
    "joint-optimization": {"lr": 0.03, "later_rate": 0.2 / 0.03, "prior_weight": 0.8, "entropy_weight": 0.4},
    "pencil": {
        "lr": 0.03, "later_rate": 0.2 / 0.03, "compatibility_weight": 0.0, "entropy_weight": 0.4, "label_rate": 4000.0
    },
}  # fmt: skip
"""Settings of the methods' own papers for asymmetric noise on CIFAR-10 (40 and 50 per cent). The last stage starts at
rate 0.2, not at the first rate."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The finished cells of a folder, beside the paper's figures."""

    data_set: str
    metric: Metric
    theirs: Figures
    """The paper's figures."""
    ours: Figures
    records: Sequence[Record]
    """All finished cells of the data set."""
    settings: str
    """Rows and settings of our figures, in words."""
    failed: Mapping[str, NoisyKnnError]
    """The error of each cell that failed, by name."""

    def as_dict(self) -> dict[str, Any]:
        """Both figures of each cell, and the records, ready for JSON."""
        table = []
        for method, noise in dict.fromkeys((*self.theirs, *self.ours)):
            pair = {"paper": self.theirs.get((method, noise)), "ours": self.ours.get((method, noise))}
            figures = {whose: figure and figure._asdict() for whose, figure in pair.items()}
            table.append({"method": method, "noise": noise, **figures})
        return {"data_set": self.data_set, "metric": self.metric, "table": table, "cells": list(self.records)}

    def check(self) -> None:
        """Raise an error that names all failed cells; its class is theirs if they share one."""
        if self.failed:
            told = first_ten([f"{name}: {error}" for name, error in self.failed.items()])
            kinds = {type(error) for error in self.failed.values()}
            kind = kinds.pop() if len(kinds) == 1 else NoisyKnnError
            raise kind(f"{counted(len(self.failed), 'cell', 'cells')} failed: {told}")


def make_table(
    metric: Metric,
    data_set: str,
    source: Mapping[str, Any],
    methods: Sequence[str] | None,
    noises: Sequence[str] | None,
    trials: int,
    settings: Mapping[str, Any],
    out: Path,
    observer: Observer,
) -> Table:
    """A table of the paper on the images in `source` (see `read_data_set`), by default with all cells.

    Before the first run, raises UsageError or InputError for anything that would stop a cell.
    """
    theirs = PRINTED[metric].get(data_set, {})
    if unknown := [method for method in methods or () if method not in METHODS]:
        raise UsageError(f"`methods` {first_ten(unknown)}: choose from {', '.join(METHODS)}")
    for noise in noises or ():
        parse_noise(noise)
    data = read_data_set(data_set, out, observer, **source)
    own_methods, own_noises = zip(*(theirs or TEST_ACCURACY[data_set]), strict=True)
    cells = cells_of(data_set, methods or own_methods, noises or own_noises, trials)
    records, failed = run_cells(data, cells, settings, out, observer)
    return Table(
        data_set=data_set,
        metric=metric,
        theirs=theirs,
        ours=means(records, metric),
        records=records,
        settings=describe(records),
        failed=failed,
    )


def run_cells(
    data: DataSet, cells: Sequence[Cell], settings: Mapping[str, Any], out: Path, observer: Observer
) -> tuple[list[Record], dict[str, NoisyKnnError]]:
    """Run the unfinished cells in the folder `out`; returns all records of the data set, and the failures.

    Before the first run, raises UsageError for a cell that ran with other settings, and any error that would stop one.
    """
    make_folder("`out`", out)
    csv = out / "cells.csv"
    check_outputs(
        {"`out` (cells.csv)": csv}, [Path(part.table.name) for part in (data.train, data.test)], overwrite=True
    )
    used = {name: value for name, value in settings.items() if name != "device"}
    about = {"version": __version__, "data": data.digest(), "settings": used}
    started = read_records(out, STARTED)
    if csv.exists() and not started:
        raise UsageError(f"{csv} is not a table of this command; name another `out`")
    check_alike([*started.items(), *((out / cell.name, as_record(cell, about)) for cell in cells)])
    left = [cell for cell in cells if not (out / cell.name / DONE).exists()]
    if len(left) < len(cells):
        observer.note(f"{len(cells) - len(left)} of {counted(len(cells), 'cell', 'cells')} taken from {out}")
    failed: dict[str, NoisyKnnError] = {}
    if left:
        tests = HeldOut(data.test_images, data.test, out, observer)
        _check_settings(data, left, settings, tests, observer)
    for number, cell in enumerate(left, len(cells) - len(left) + 1):
        observer.note(f"cell {number} of {len(cells)}: {cell.name}")
        try:
            _run_cell(data, cell, settings, about, out / cell.name, tests, observer)
        except InterruptedRunError:
            raise
        except NoisyKnnError as error:
            failed[cell.name] = error
            observer.note(f"{cell.name} failed: {error}")
    records = list(read_records(out, DONE).values())
    flat = [{name: value for name, value in record.items() if not isinstance(value, dict)} for record in records]
    write_table(pd.DataFrame(flat), csv)
    return [record for record in records if record["data_set"] == data.name], failed


def _check_settings(
    data: DataSet, cells: Sequence[Cell], settings: Mapping[str, Any], tests: HeldOut, observer: Observer
) -> None:
    """Raise any error that would stop a cell, and note settings without effect."""
    noted = set()
    for cell in {(cell.method, cell.noise): cell for cell in cells}.values():
        try:
            labels = read_labels(_noisy(data, cell)[0], label_column=NOISY)
            config = prepare(labels, data.images, None, data.name, _overrides(cell, settings), Silent()).config
        except NoisyKnnError as error:
            raise type(error)(f"{cell.method}, {cell.noise}: {error}") from error
        tests.store(config.store_size or config.image_size, config.fit)
        if cell.method not in noted and (unused := sorted(unused_settings(config) & settings.keys())):
            observer.note(f"settings without effect on {cell.method}: {first_ten([f'`{name}`' for name in unused])}")
        noted.add(cell.method)


class _Stages(Silent):
    """Passes on the stages of a run but not its notes."""

    def __init__(self, observer: Observer) -> None:
        self.start, self.advance = observer.start, observer.advance  # type: ignore[method-assign]


def _run_cell(
    data: DataSet,
    cell: Cell,
    settings: Mapping[str, Any],
    about: Record,
    folder: Path,
    tests: HeldOut,
    observer: Observer,
) -> None:
    """Run or resume a cell, and write its ``cell.json``."""
    started = time.monotonic()
    network, summary_file, run = folder / "network.safetensors", folder / "summary.json", folder / "run"
    resumed = (folder / STARTED).exists()
    make_folder("`out`", folder)
    write_json(folder / STARTED, as_record(cell, about))
    frame, realised_rate = _noisy(data, cell)
    if not summary_file.exists():  # clean writes it last
        clean(
            data.images,
            frame,
            label_column=NOISY,
            truth_column=TRUE if TRUE in frame else None,
            preset=data.name,
            run_dir=run,
            overwrite=True,
            save_model=network,
            summary=summary_file,
            observer=_Stages(observer),
            **_overrides(cell, settings),
        )
    summary = json.loads(summary_file.read_text(encoding="utf-8"))
    config = make_config(summary["config"])
    figures = {
        "accuracy": accuracy(network, tests, config),
        "recovery": summary["truth"]["recovery"] if TRUE in frame else None,
        "realised_rate": realised_rate,
        "unreadable": summary["status"]["unreadable"],
        "rows": len(frame),
        "seconds": round(time.monotonic() - started, 1),
        "resumed": resumed,  # if so, seconds count from there
        "config": dataclasses.asdict(config),
    }
    write_json(folder / DONE, {**as_record(cell, about), **figures})
    if figures["unreadable"]:
        observer.note(f"{cell.name}: {some_unreadable(figures['unreadable'])}")
    recovery = "" if figures["recovery"] is None else f"recovery {figures['recovery']:.2%}, "
    observer.note(f"{cell.name}: accuracy {figures['accuracy']:.2%}, {recovery}{figures['seconds']:.0f} s")
    shutil.rmtree(run)
    for file in (network, summary_file):
        file.unlink()


def _noisy(data: DataSet, cell: Cell) -> tuple[pd.DataFrame, float | None]:
    """Paths, given labels and, if known, true labels; and the share of wrong labels."""
    table = data.train
    if cell.noise != AS_GIVEN:
        return with_noise(table, cell.noise, data.name, cell.trial)
    frame = pd.DataFrame({"path": table.paths, NOISY: table.as_column(table.given_labels).array})
    frame.attrs["name"] = table.table.name  # in messages
    return frame, None


def _overrides(cell: Cell, settings: Mapping[str, Any]) -> dict[str, Any]:
    of_noise = ASYMMETRIC.get(cell.method, {}) if cell.noise.startswith("asymmetric") else {}
    return {"method": cell.method, "seed": cell.trial, **of_noise, **settings}
