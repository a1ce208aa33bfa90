"""Cells of the paper's tables, each in its own folder.

The folder gets ``settings.json`` when the cell starts and ``cell.json`` when it is done.
"""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisyknn.config import make_config
from noisyknn.errors import InputError, UsageError, first_ten
from noisyknn.methods.spec import unused_settings
from noisyknn.paper.published import Figure, Figures, Metric

Record = Mapping[str, Any]
STARTED, DONE = "settings.json", "cell.json"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run: a method on a data set with one kind of noise and one seed."""

    data_set: str
    noise: str
    """Kind and per cent, ``symmetric-40``; AS_GIVEN for labels that are already noisy."""
    method: str
    trial: int
    """Seed of the noise and of the training."""

    @property
    def name(self) -> str:
        """The name of its folder, also in messages."""
        return f"{self.data_set}-{self.noise}-{self.method}-{self.trial}"


def cells_of(data_set: str, methods: Sequence[str], noises: Sequence[str], trials: int) -> list[Cell]:
    """All cells of a table, trial by trial; a method or noise named twice counts once."""
    return [
        Cell(data_set=data_set, noise=noise, method=method, trial=trial)
        for trial in range(trials)
        for noise in dict.fromkeys(noises)
        for method in dict.fromkeys(methods)
    ]


def read_records(out: Path, name: str) -> dict[Path, Record]:
    """The files `name` in the folders of `out`, by folder; raises InputError for a damaged file."""
    records = {}
    for file in out.glob(f"*/{name}"):
        try:
            records[file.parent] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is damaged ({error}); delete its folder to run the cell again") from error
    return dict(sorted(records.items(), key=lambda item: _order(item[1])))


def check_alike(records: Iterable[tuple[Path, Record]]) -> None:
    """Raise UsageError for trials of one cell with different settings, data or versions of noisyknn.

    Settings without effect on the method do not count.
    """
    first: dict[tuple[Any, ...], tuple[Path, Record]] = {}
    for folder, record in records:
        place = _order(record)[:-1]
        other, known = first.setdefault(place, (folder, record))
        if found := _differences(known, record):
            raise UsageError(f"{other} ran with {first_ten(found)}; delete that folder or name another `out`")


def means(records: Iterable[Record], metric: Metric) -> Figures:
    """Mean and standard deviation (n - 1) in per cent over the trials of each cell."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record[metric] is not None:
            found.setdefault((record["method"], record["noise"]), []).append(100 * record[metric])
    return {
        place: Figure(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
        for place, values in found.items()
    }


def describe(records: Iterable[Record]) -> str:
    """Rows and settings of the records in words, with the methods that share them."""
    methods: dict[str, list[str]] = {}
    for record in records:
        settings = [f"{name.replace('_', ' ')} {value}" for name, value in _used(record).items()]
        with_these = methods.setdefault(", ".join([f"{record['rows']:,} rows", *settings]), [])
        if record["method"] not in with_these:
            with_these.append(record["method"])
    return "; ".join(f"{', '.join(names)}: {settings}" for settings, names in methods.items())


def as_record(cell: Cell, about: Record) -> dict[str, Any]:
    """The cell with the ``version``, ``data`` and ``settings`` of its run."""
    return {"cell": cell.name, **dataclasses.asdict(cell), **about}


def _order(record: Record) -> tuple[Any, ...]:
    return record["data_set"], record["noise"], record["method"], record["trial"]


def _used(record: Record) -> dict[str, Any]:
    """The settings that affect the record's method."""
    unused = unused_settings(make_config({"method": record["method"]}))
    return {name: value for name, value in record["settings"].items() if name not in unused}


def _differences(old: Record, new: Record) -> list[str]:
    """The differences between two trials, in words."""
    found = ["other data"] if old["data"] != new["data"] else []
    if old["version"] != new["version"]:
        found.append(f"noisyknn {old['version']}, not {new['version']}")
    before, after = _used(old), _used(new)
    return found + [
        f"{name.replace('_', ' ')} {before.get(name, 'unset')}, not {after.get(name, 'unset')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
