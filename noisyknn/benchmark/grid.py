"""Tables of the paper: data set by noise by method by trial, each cell a whole run of `clean` and a test.

A folder keeps the cells that are done, so that a stopped table goes on where it was.
"""

import contextlib
import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import filelock
import pandas as pd

import noisyknn
from noisyknn.benchmark.data_set import TRUE, DataSet, noise_rows, parse_noise
from noisyknn.benchmark.held_out import HeldOut, accuracy
from noisyknn.benchmark.paper import AS_GIVEN, Figure, Figures, Metric
from noisyknn.config import Config, make_config
from noisyknn.data.images import some_unreadable
from noisyknn.data.noise import inject
from noisyknn.data.table import read_labels, write_table
from noisyknn.errors import InputError, InterruptedRunError, NoisyKnnError, UsageError, first_ten
from noisyknn.files import write_json
from noisyknn.methods import METHODS
from noisyknn.observer import Observer, Silent
from noisyknn.pipeline import clean
from noisyknn.preparation import prepare
from noisyknn.runs import is_finished

NOISY = "noisy_label"
CELLS, NESTED = "cells", ("settings", "config")
ASYMMETRIC: Mapping[str, Mapping[str, float]] = {
    "joint-optimization": {"lr": 0.03, "later_rate": 0.2 / 0.03, "prior_weight": 0.8, "entropy_weight": 0.4},
    "pencil": {
        "lr": 0.03, "later_rate": 0.2 / 0.03, "compatibility_weight": 0.0, "entropy_weight": 0.4, "label_rate": 4000.0
    },
}  # fmt: skip
"""What the sources of methods have for asymmetric noise on CIFAR-10 (of 40 and 50 per cent). Their last rates begin at
0.2, whatever the first is."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run."""

    data_set: str
    noise: str
    """``symmetric-40``: kind and per cent; AS_GIVEN where labels are noisy already."""
    method: str
    trial: int
    """Seed of the noise and of the training."""

    @property
    def name(self) -> str:
        """Told to the user, and the beginning of file names."""
        return f"{self.data_set}-{self.noise}-{self.method}-{self.trial}"


class _Stages(Silent):
    """Passes the stages of a run on, not its notes."""

    def __init__(self, observer: Observer) -> None:
        self.start, self.advance = observer.start, observer.advance  # type: ignore[method-assign]


def run_cells(
    data: DataSet,
    cells: Sequence[Cell],
    settings: Mapping[str, Any],
    folder: Path,
    observer: Observer,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Run the cells that `folder` does not hold; returns all of the data set that it then holds, and why some failed.

    After each, ``cells.json`` and ``cells.csv`` there hold all that are done. Several processes may fill one folder:
    each cell is run by one of them. What cannot be run for its settings, or not be tested for its images, is told
    before anything is. Raises UsageError where one of the cells was run with other settings, InputError where an image
    to test on cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is not a folder; name a new one, or one of cells")
    folder.mkdir(parents=True, exist_ok=True)
    about = {"version": noisyknn.__version__, "data": data.digest(), "settings": dict(settings)}
    about = cast(dict[str, Any], json.loads(json.dumps(about)))
    done = {record["cell"]: record for record in _keep(folder)}
    again = [done[cell.name] for cell in cells if cell.name in done]
    if others := [record["cell"] for record in again if any(record.get(name) != about[name] for name in about)]:
        raise UsageError(f"{folder} holds cells of other settings or data ({first_ten(others)}); name another --out")
    left, failed = [cell for cell in cells if cell.name not in done], dict[str, str]()
    with tempfile.TemporaryDirectory(dir=folder, prefix="tests-") as place:
        tests = HeldOut(data.test_images, data.test, Path(place), observer)
        configs = [_check(data, cell, settings) for cell in {(cell.method, cell.noise): cell for cell in left}.values()]
        for config in {config.method: config for config in configs}.values():
            if unused := sorted(config.unused() & settings.keys()):
                observer.note(f"without effect on {config.method}: {first_ten(unused)}")
            tests.store(config.store_size or config.image_size, config.fit)
        for cell in left:
            with _sole(folder, cell) as mine:
                if not mine:
                    observer.note(f"{cell.name}: another process runs it, or has done so")
                    continue
                observer.note(f"cell {cells.index(cell) + 1} of {len(cells)}: {cell.name}")
                try:
                    figures = _run_cell(data, cell, settings, folder, tests, observer)
                except InterruptedRunError:
                    raise
                except NoisyKnnError as error:
                    failed[cell.name] = str(error)
                    observer.note(f"{cell.name} failed: {error}")
                else:
                    _keep(folder, {"cell": cell.name, **dataclasses.asdict(cell), **figures, **about})
    return [record for record in _read_cells(folder) if record["data_set"] == data.name], failed


def check_names(methods: Sequence[str], noises: Sequence[str]) -> None:
    """Raise UsageError for a method or a noise that there is not."""
    if unknown := [method for method in methods if method not in METHODS]:
        raise UsageError(f"--methods {first_ten(unknown)}: there are {', '.join(METHODS)}")
    for noise in noises:
        parse_noise(noise)


def cells_of(data_set: str, methods: Sequence[str], noises: Sequence[str], trials: int) -> list[Cell]:
    """All cells, method by method within a noise."""
    return [
        Cell(data_set=data_set, noise=noise, method=method, trial=trial)
        for trial in range(trials)
        for noise in dict.fromkeys(noises)
        for method in dict.fromkeys(methods)
    ]


def means(records: Sequence[Mapping[str, Any]], metric: Metric) -> Figures:
    """Mean and deviation in per cent over the trials of each cell."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record[metric] is not None:
            found.setdefault((record["method"], record["noise"]), []).append(100 * record[metric])
    return {
        place: Figure(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
        for place, values in found.items()
    }


def _run_cell(
    data: DataSet, cell: Cell, settings: Mapping[str, Any], folder: Path, tests: HeldOut, observer: Observer
) -> dict[str, Any]:
    known = cell.noise != AS_GIVEN
    frame, realised_rate = _noisy(data, cell)
    model_file, run_dir = folder / f"{cell.name}.safetensors", folder / f"{cell.name}.run"
    model_file.unlink(missing_ok=True)  # of a cell that was stopped at its very end
    if is_finished(run_dir):  # stopped before its network was tested
        shutil.rmtree(run_dir)
    resumed = run_dir.exists()
    started = time.monotonic()
    result = clean(
        data.images,
        frame,
        label_column=NOISY,
        truth_column=TRUE if known else None,
        preset=data.name,
        run_dir=run_dir,
        overwrite=True,
        save_model=model_file,
        observer=_Stages(observer),
        **_overrides(cell, settings),
    )
    seconds = time.monotonic() - started
    if unreadable := result.summary["status"]["unreadable"]:
        observer.note(f"{cell.name}: {some_unreadable(unreadable)}")
    config = make_config(result.summary["config"])
    found = {
        "accuracy": accuracy(model_file, tests, config),
        "recovery": result.summary["truth"]["recovery"] if known else None,
        "realised_rate": realised_rate,
        "unreadable": unreadable,
        "rows": len(frame),
        "seconds": round(seconds, 1),
        "resumed": resumed,  # then the seconds are those since
        "config": dataclasses.asdict(config),
    }
    model_file.unlink()
    shutil.rmtree(run_dir)
    return found


def _check(data: DataSet, cell: Cell, settings: Mapping[str, Any]) -> Config:
    """The configuration of a cell; raises what `clean` would, before it decodes an image."""
    table = read_labels(_noisy(data, cell)[0], label_column=NOISY)
    return prepare(table, data.images, None, data.name, _overrides(cell, settings), Silent()).config


def _noisy(data: DataSet, cell: Cell) -> tuple[pd.DataFrame, float | None]:
    """Paths, given labels and, where they are known, true ones; and how many labels are wrong."""
    table, known = data.train, cell.noise != AS_GIVEN
    given = table.given_labels
    if known:
        given = inject(given, noise_rows(cell.noise, data.name, table.classes), cell.trial)
    frame = pd.DataFrame({"path": table.paths, NOISY: table.as_column(given).array})
    if not known:
        return frame, None
    frame[TRUE] = table.as_column(table.given_labels).array
    return frame, float((given != table.given_labels).mean())


def _overrides(cell: Cell, settings: Mapping[str, Any]) -> dict[str, Any]:
    of_noise = ASYMMETRIC.get(cell.method, {}) if cell.noise.startswith("asymmetric") else {}
    return {"method": cell.method, "seed": cell.trial, **of_noise, **settings}


@contextlib.contextmanager
def _sole(folder: Path, cell: Cell) -> Iterator[bool]:
    """Hold a cell; tells whether it is ours to run: neither another process's nor done."""
    lock = filelock.FileLock(folder / f"{cell.name}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield all(record["cell"] != cell.name for record in _read_cells(folder))
    finally:
        Path(lock.lock_file).unlink()
        lock.release()


def _keep(folder: Path, *records: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Add records to those of a folder, whatever other processes have added meanwhile; returns all of them."""
    with filelock.FileLock(folder / f"{CELLS}.lock"):
        kept = [*_read_cells(folder), *records]
        if kept:
            write_json(folder / f"{CELLS}.json", kept)
            flat = [{name: value for name, value in record.items() if name not in NESTED} for record in kept]
            write_table(pd.DataFrame(flat), folder / f"{CELLS}.csv")
    return kept


def _read_cells(folder: Path) -> list[dict[str, Any]]:
    file = folder / f"{CELLS}.json"
    if not file.exists():
        return []
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it, or name another --out") from error
    needed = {"cell", "accuracy", "recovery", *(field.name for field in dataclasses.fields(Cell))}
    if not isinstance(records, list) or not all(isinstance(each, dict) and needed <= each.keys() for each in records):
        raise InputError(f"{file} holds no cells of a table; remove it, or name another --out")
    return cast(list[dict[str, Any]], records)
