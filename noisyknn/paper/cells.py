"""Cells of the paper's tables, and the folder that keeps those that are done."""

import contextlib
import dataclasses
import json
import math
import os
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import filelock
import pandas as pd

from noisyknn.config import make_config
from noisyknn.data.table import write_table
from noisyknn.errors import InputError, UsageError
from noisyknn.files import make_folder, write_json
from noisyknn.methods.spec import METHODS, unused_settings
from noisyknn.paper.published import Figure, Figures, Metric

_ABOUT = ("version", "data", "settings")
"""What is the same of all trials of a cell."""


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


def cells_of(data_set: str, methods: Sequence[str], noises: Sequence[str], trials: int) -> list[Cell]:
    """All cells, method by method within a noise."""
    return [
        Cell(data_set=data_set, noise=noise, method=method, trial=trial)
        for trial in range(trials)
        for noise in dict.fromkeys(noises)
        for method in dict.fromkeys(methods)
    ]


def means(records: Iterable[Mapping[str, Any]], metric: Metric) -> Figures:
    """Mean and standard deviation (n - 1) in per cent over the trials of each cell."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record[metric] is not None:
            found.setdefault((record["method"], record["noise"]), []).append(100 * record[metric])
    return {
        place: Figure(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
        for place, values in found.items()
    }


def describe(records: Iterable[Mapping[str, Any]]) -> str:
    """What records were run with, in words, and which methods were so; settings without effect are left out."""
    methods: dict[str, list[str]] = {}
    for record in records:
        settings = [f"{name.replace('_', ' ')} {value}" for name, value in _used(record)["settings"].items()]
        with_these = methods.setdefault(", ".join([f"{record['rows']:,} rows", *settings]), [])
        if record["method"] not in with_these:
            with_these.append(record["method"])
    return "; ".join(f"{', '.join(names)}: {settings}" for settings, names in methods.items())


def _used(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, of whose settings only those that its method uses."""
    unused = unused_settings(make_config({"method": record["method"]}))
    return {**record, "settings": {name: v for name, v in record["settings"].items() if name not in unused}}


class CellFolder:
    """A folder of cells, in ``cells.json`` and, to be read as a table, in ``cells.csv``.

    Several processes may fill it. Trials of one cell that were run with other settings, or on other data, are never
    mixed: whatever would do so raises UsageError.
    """

    def __init__(self, path: Path) -> None:
        """Make the folder; raises UsageError where it is none, or has a table of something else."""
        make_folder("--out", path)
        self.path, self._json, self._csv = path, path / "cells.json", path / "cells.csv"
        self.files = (self._json, self._csv)
        if self._csv.exists() and not self._json.exists():
            raise UsageError(f"{self._csv} was written by something else; remove it, or name another --out")

    def read(self) -> list[dict[str, Any]]:
        """The records of all cells that are done; raises InputError where they are damaged."""
        try:
            records = json.loads(self._json.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            cure = f"remove it and {self._csv.name}, or name another --out"
            raise InputError(f"{self._json} cannot be read ({error}); {cure}") from error
        if not isinstance(records, list) or not all(map(_is_record, records)):
            raise InputError(
                f"{self._json} holds no cells of a table; remove it and {self._csv.name}, or name another --out"
            )
        if len({record["cell"] for record in records}) < len(records):
            raise InputError(f"{self._json} holds a cell twice; remove one of them, or name another --out")
        return cast(list[dict[str, Any]], self._alike(records))

    def check(self, cells: Iterable[Cell], about: Mapping[str, Any]) -> None:
        """Raise UsageError where trials of a cell are there that are not `about` the same."""
        self._alike([*self.read(), *({**dataclasses.asdict(cell), **about} for cell in cells)])

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a record to whatever other processes have added meanwhile."""
        with self._locked():
            others = [other for other in self.read() if other["cell"] != record["cell"]]
            self._write(self._alike([*others, record]))

    def repair(self) -> None:
        """Write ``cells.csv`` anew where a process was killed before it did; nothing where nothing can be written."""
        late = self._json.exists() and not (
            self._csv.exists() and self._csv.stat().st_mtime_ns >= self._json.stat().st_mtime_ns
        )
        if late and os.access(self.path, os.W_OK):
            with self._locked():
                self._write(self.read())

    @contextlib.contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Hold a cell; tells whether it is ours to run: neither another process's nor done."""
        lock = filelock.FileLock(self.path / f"{cell.name}.lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        try:
            yield all(record["cell"] != cell.name for record in self.read())
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def _locked(self) -> filelock.BaseFileLock:
        return filelock.FileLock(self.path / "cells.lock")

    def _write(self, records: Sequence[Mapping[str, Any]]) -> None:
        write_json(self._json, records)
        flat = [{name: v for name, v in record.items() if not isinstance(v, dict)} for record in records]
        write_table(pd.DataFrame(flat), self._csv)

    def _alike(self, records: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The records; raises UsageError where trials of a cell differ in more than seeds and settings of no effect."""
        first: dict[tuple[str, ...], Mapping[str, Any]] = {}
        for record in map(_used, records):
            place = record["data_set"], record["noise"], record["method"]
            known = first.setdefault(place, record)
            if differing := [name for name in _ABOUT if record[name] != known[name]]:
                told = ", ".join(f"{name} {known[name]} and {record[name]}" for name in differing if name != "data")
                raise UsageError(
                    f"{self.path} would mix trials of {'-'.join(place)} of other {told or 'data'}; name another --out"
                )
        return records


def _is_record(value: Any) -> bool:
    """Whether that has all that is read of a record, within its bounds."""
    try:
        cell = Cell(**{field.name: value[field.name] for field in dataclasses.fields(Cell)})
        return (
            value["cell"] == cell.name
            and re.fullmatch(r"[a-z0-9.-]+", cell.name) is not None
            and cell.method in METHODS
            and all(type(value[name]) is int for name in ("trial", "rows"))
            and 0 <= value["accuracy"] <= 1
            and (value["recovery"] is None or 0 <= value["recovery"] <= 1)
            and 0 <= value["seconds"] < math.inf
            and type(value["resumed"]) is bool
            and all(isinstance(value[name], kind) for name, kind in zip(_ABOUT, (str, str, dict), strict=True))
        )
    except (KeyError, TypeError):
        return False
