"""Tables of the paper: data set by noise by method by trial, each cell a whole run of `clean` and a test.

A folder keeps the cells that are done, so that a stopped table goes on where it was.
"""

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import noisyknn
from noisyknn.api import clean
from noisyknn.config import make_config
from noisyknn.data.images import some_unreadable
from noisyknn.data.noise import inject
from noisyknn.data.table import read_labels
from noisyknn.errors import InputError, InterruptedRunError, MachineError, NoisyKnnError, UsageError, counted, first_ten
from noisyknn.files import check_outputs
from noisyknn.methods.spec import METHODS, unused_settings
from noisyknn.observer import Observer, Silent
from noisyknn.paper.cells import Cell, CellFolder
from noisyknn.paper.data_set import TRUE, DataSet, noise_rows
from noisyknn.paper.held_out import HeldOut, accuracy
from noisyknn.paper.published import AS_GIVEN
from noisyknn.preparation import Job, identify, prepare
from noisyknn.run_dir import differences, is_run, remove, results

NOISY = "noisy_label"
ASYMMETRIC: Mapping[str, Mapping[str, float]] = {
    "joint-optimization": {"lr": 0.03, "later_rate": 0.2 / 0.03, "prior_weight": 0.8, "entropy_weight": 0.4},
    "pencil": {
        "lr": 0.03, "later_rate": 0.2 / 0.03, "compatibility_weight": 0.0, "entropy_weight": 0.4, "label_rate": 4000.0
    },
}  # fmt: skip
"""What the sources of methods have for asymmetric noise on CIFAR-10 (of 40 and 50 per cent). Their last rates begin at
0.2, whatever the first is."""


class _Stages(Silent):
    """Passes the stages of a run on, not its notes."""

    def __init__(self, observer: Observer) -> None:
        self.start, self.advance = observer.start, observer.advance  # type: ignore[method-assign]


def run_cells(
    data: DataSet,
    cells: Sequence[Cell],
    settings: Mapping[str, Any],
    out: Path,
    observer: Observer,
) -> tuple[list[dict[str, Any]], dict[str, NoisyKnnError]]:
    """Run the cells that the folder `out` lacks; returns all of the data set that it then holds, and why some failed.

    Several processes may fill one folder (`CellFolder`): each cell is run by one of them, on whatever device. What
    cannot be run for its settings, or not be tested for its images, is told before anything is. Raises UsageError where
    trials of a cell were run with other settings, InputError where an image to test on cannot be read.
    """
    folder = CellFolder(out)
    of_cells = {name: value for name, value in settings.items() if name != "device"}
    about = json.loads(json.dumps({"version": noisyknn.__version__, "data": data.digest(), "settings": of_cells}))
    folder.check(cells, about)
    done = {record["cell"] for record in folder.read()}
    left = [cell for cell in cells if cell.name not in done]
    if left or os.access(out, os.W_OK):  # a table that is done is shown where nothing can be written, too
        tables = [Path(table.table.name) for table in (data.train, data.test)]
        check_outputs({f"--out ({file.name})": file for file in folder.files}, tables, overwrite=True)
    folder.repair()
    for cell in cells:
        if cell.name in done:
            _discard(out, cell)  # what a process that was killed has left
    failed: dict[str, NoisyKnnError] = {}
    if len(left) < len(cells):
        observer.note(f"{len(cells) - len(left)} of {counted(len(cells), 'cell', 'cells')} taken from {out}")
    if left:
        tests = HeldOut(data.test_images, data.test, out, observer)
        _check_settings(data, left, settings, tests, observer)
    for cell in left:
        with folder.claim(cell) as mine:
            if not mine:
                observer.note(f"{cell.name}: another process runs it, or has done so")
                continue
            folder.check([cell], about)
            observer.note(f"cell {cells.index(cell) + 1} of {len(cells)}: {cell.name}")
            try:
                figures = _run_cell(data, cell, settings, out, tests, observer)
            except InterruptedRunError:
                raise
            except NoisyKnnError as error:
                failed[cell.name] = error
                observer.note(f"{cell.name} failed: {error}")
            else:
                folder.add({"cell": cell.name, **dataclasses.asdict(cell), **figures, **about})
                recovery = "" if figures["recovery"] is None else f"recovery {figures['recovery']:.2%}, "
                observer.note(f"{cell.name}: accuracy {figures['accuracy']:.2%}, {recovery}{figures['seconds']:.0f} s")
                _discard(out, cell)
    return [record for record in folder.read() if record["data_set"] == data.name], failed


def check_methods(methods: Sequence[str]) -> None:
    """Raise UsageError for a method that there is not."""
    if unknown := [method for method in methods if method not in METHODS]:
        raise UsageError(f"--methods {first_ten(unknown)}: there are {', '.join(METHODS)}")


def _check_settings(
    data: DataSet, cells: Sequence[Cell], settings: Mapping[str, Any], tests: HeldOut, observer: Observer
) -> None:
    """Raise what would stop a cell, before any is run, and tell which settings are of no effect."""
    kinds = {(cell.method, cell.noise): cell for cell in cells}
    configs = []
    for cell in kinds.values():
        try:
            configs.append(_job(data, _noisy(data, cell)[0], _overrides(cell, settings)).config)
        except NoisyKnnError as error:
            raise type(error)(f"{cell.method}, {cell.noise}: {error}") from error
    for config in {config.method: config for config in configs}.values():
        if unused := sorted(unused_settings(config) & settings.keys()):
            observer.note(f"without effect on {config.method}: {first_ten(unused)}")
        tests.store(config.store_size or config.image_size, config.fit)


def _run_cell(
    data: DataSet, cell: Cell, settings: Mapping[str, Any], out: Path, tests: HeldOut, observer: Observer
) -> dict[str, Any]:
    """What is kept of a cell; its run and its network stay in `out` until that is done."""
    started = time.monotonic()
    known = cell.noise != AS_GIVEN
    frame, realised_rate = _noisy(data, cell)
    run_dir, model_file = _files(out, cell)
    if not is_run(run_dir) and (strange := [file for file in (run_dir, model_file) if os.path.lexists(file)]):
        raise UsageError(f"{strange[0]} was written by something else; remove it, or name another --out")
    overrides = _overrides(cell, settings)
    resumed = run_dir.exists()
    if differing := differences(run_dir, identify(_job(data, frame, overrides))):
        resumed = False
        observer.note(f"{cell.name} was stopped, and begins anew: {first_ten(differing)}")
    summary = results(run_dir) if resumed and model_file.exists() else None
    if summary is None:  # else it was stopped before its network was tested
        summary = clean(
            data.images,
            frame,
            label_column=NOISY,
            truth_column=TRUE if known else None,
            preset=data.name,
            run_dir=run_dir,
            overwrite=True,
            save_model=model_file,
            observer=_Stages(observer),
            **overrides,
        ).summary
    if unreadable := summary["status"]["unreadable"]:
        observer.note(f"{cell.name}: {some_unreadable(unreadable)}")
    config = make_config(summary["config"])
    try:
        right = accuracy(model_file, tests, config)
    except torch.OutOfMemoryError as error:
        raise MachineError("the GPU has too little free memory to test; the same command tests again") from error
    except InputError as error:
        raise MachineError(f"{model_file} is damaged ({error}); remove it, and {cell.name} is trained again") from error
    return {
        "accuracy": right,
        "recovery": summary["truth"]["recovery"] if known else None,
        "realised_rate": realised_rate,
        "unreadable": unreadable,
        "rows": len(frame),
        "seconds": round(time.monotonic() - started, 1),
        "resumed": resumed,  # then the seconds are those since
        "config": dataclasses.asdict(config),
    }


def _files(out: Path, cell: Cell) -> tuple[Path, Path]:
    """Where the run and the network of a cell lie until it is done."""
    return out / f"{cell.name}.run", out / f"{cell.name}.safetensors"


def _discard(out: Path, cell: Cell) -> None:
    """Remove the run and the network of a cell, the run last: a network without one is not ours."""
    run_dir, model_file = _files(out, cell)
    if is_run(run_dir):
        model_file.unlink(missing_ok=True)
        remove(run_dir)


def _job(data: DataSet, frame: pd.DataFrame, overrides: Mapping[str, Any]) -> Job:
    """What `clean` would do; raises what it would, before it decodes an image."""
    return prepare(read_labels(frame, label_column=NOISY), data.images, None, data.name, overrides, Silent())


def _noisy(data: DataSet, cell: Cell) -> tuple[pd.DataFrame, float | None]:
    """Paths, given labels and, where they are known, true ones; and how many labels are wrong."""
    table, known = data.train, cell.noise != AS_GIVEN
    given = table.given_labels
    if known:
        given = inject(given, noise_rows(cell.noise, data.name, table.classes), cell.trial)
        if (lonely := np.bincount(given[given >= 0], minlength=len(table.classes)) == 1).any():
            raise InputError(
                f"{table.table.name}: the noise leaves a single row of the classes "
                f"{first_ten([table.classes[c] for c in np.flatnonzero(lonely)])}; give more rows"
            )
    frame = pd.DataFrame({"path": table.paths, NOISY: table.as_column(given).array})
    frame.attrs["name"] = table.table.name  # in messages
    if not known:
        return frame, None
    frame[TRUE] = table.as_column(table.given_labels).array
    return frame, float((given != table.given_labels).mean())


def _overrides(cell: Cell, settings: Mapping[str, Any]) -> dict[str, Any]:
    of_noise = ASYMMETRIC.get(cell.method, {}) if cell.noise.startswith("asymmetric") else {}
    return {"method": cell.method, "seed": cell.trial, **of_noise, **settings}
