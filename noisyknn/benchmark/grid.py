"""Tables of the paper: data set by noise by method by trial, each cell a whole run of `clean` and a test.

A folder keeps the cells that are done, so that a stopped table goes on where it was.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

import noisyknn
from noisyknn.benchmark.paper import AS_GIVEN, Figure, Figures, Metric
from noisyknn.config import Config, make_config
from noisyknn.data.augment import Pixels
from noisyknn.data.clothing1m import Part, read_part
from noisyknn.data.noise import NoiseName, Row, inject, transition_rows
from noisyknn.data.noise_sources import label_text, read_map
from noisyknn.data.paths import resolve_paths
from noisyknn.data.store import decode_all
from noisyknn.data.table import Label, LabelTable, find_column, read_labels, read_table, write_table
from noisyknn.errors import InputError, UsageError, first_ten
from noisyknn.files import write_json
from noisyknn.methods import METHODS
from noisyknn.models.model_file import load_model
from noisyknn.observer import Observer, Silent
from noisyknn.pipeline import clean
from noisyknn.training.device import find_device, wants_bf16

NOISY, TRUE = "noisy_label", "clean_label"
_PARTS: tuple[Part, Part] = ("noisy_train", "clean_test")
CLOTHING = "clothing1m"
CELLS, NESTED = "cells", ("settings", "config")
ASYMMETRIC: Mapping[str, Mapping[str, float]] = {
    "joint-optimization": {"lr": 0.03, "prior_weight": 0.8, "entropy_weight": 0.4},
    "pencil": {"lr": 0.03, "compatibility_weight": 0.0, "entropy_weight": 0.4, "label_rate": 4000.0},
}
"""What the sources of methods have for asymmetric noise on CIFAR-10 (of 40 and 50 per cent)."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Images to train and to test on."""

    name: str
    """The paper's preset for it."""
    images: Path
    train: LabelTable
    """With true labels, which are made noisy, or with such as are noisy already."""
    test_images: Path
    test: LabelTable

    def __post_init__(self) -> None:
        """Raise InputError where there are classes to test on that none could learn, or no images to test on."""
        known = {label_text(label) for label in self.train.classes}
        if strange := [label for label in self.test.classes if label_text(label) not in known]:
            raise InputError(f"{self.test.table.name} has classes that no row to train on has: {first_ten(strange)}")
        files = resolve_paths(self.test_images, self.test.paths, self.test.table.name)
        if missing := [path for path, file in zip(self.test.paths, files, strict=True) if not file.is_file()]:
            raise InputError(f"{self.test.table.name}: {len(missing)} files do not exist: {first_ten(missing)}")

    def digest(self) -> str:
        """The same for the same folders, paths and labels."""
        both = (self.images, self.train), (self.test_images, self.test)
        about = [[str(at.resolve()), t.paths, [str(c) for c in t.classes], t.given_labels.tolist()] for at, t in both]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()


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


def read_data_set(
    name: str, images: Path, labels: Path, test_images: Path, test_labels: Path, rows: int | None, column: str | None
) -> DataSet:
    """Read both tables, of the first no more than so many rows; raises InputError where they do not fit each other."""
    train, test = read_truth(labels, column, rows), read_truth(test_labels, column, None)
    return DataSet(name=name, images=images, train=train, test_images=test_images, test=test)


def read_clothing1m(root: Path, rows: int | None) -> DataSet:
    """Clothing1M's noisy training images, or the first of them, and its verified test images."""
    train, test = (read_labels(read_part(root, part)[: rows if part == "noisy_train" else None]) for part in _PARTS)
    return DataSet(name=CLOTHING, images=root, train=train, test_images=root, test=test)


def run_cells(
    data: DataSet,
    cells: Sequence[Cell],
    settings: Mapping[str, Any],
    folder: Path,
    observer: Observer,
) -> list[dict[str, Any]]:
    """Run the cells that `folder` does not hold; returns all of the data set that it then holds.

    After each, ``cells.json`` and ``cells.csv`` there hold all that are done. Raises UsageError where one of the cells
    was run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"version": noisyknn.__version__, "data": data.digest(), "settings": dict(settings)}
    about = cast(dict[str, Any], json.loads(json.dumps(about)))
    records = _read_cells(folder)
    if records:
        _write_cells(folder, records)  # of which the second file may have been missed, when a table was stopped
    done = {record["cell"]: record for record in records}
    again = [done[cell.name] for cell in cells if cell.name in done]
    if others := [record["cell"] for record in again if any(record.get(name) != about[name] for name in about)]:
        raise UsageError(f"{folder} holds cells of other settings or data ({first_ten(others)}); name another --out")
    for place, cell in enumerate(cells, 1):
        if cell.name in done:
            continue
        observer.note(f"cell {place} of {len(cells)}: {cell.name}")
        figures = _run_cell(data, cell, settings, folder, observer)
        records.append({"cell": cell.name, **dataclasses.asdict(cell), **figures, **about})
        _write_cells(folder, records)
    return [record for record in records if record["data_set"] == data.name]


def cells_of(data: DataSet, methods: Sequence[str], noises: Sequence[str], trials: int) -> list[Cell]:
    """All cells, method by method within a noise; raises UsageError for a method or noise that there is not."""
    if unknown := [method for method in methods if method not in METHODS]:
        raise UsageError(f"--methods {first_ten(unknown)}: there are {', '.join(METHODS)}")
    for noise in noises:
        if data.name != CLOTHING or noise != AS_GIVEN:
            noise_rows(noise, data.name, data.train.classes)
    return [
        Cell(data_set=data.name, noise=noise, method=method, trial=trial)
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
    data: DataSet, cell: Cell, settings: Mapping[str, Any], folder: Path, observer: Observer
) -> dict[str, Any]:
    table = data.train
    known = cell.noise != AS_GIVEN
    noisy = table.given_labels
    if known:
        noisy = inject(noisy, noise_rows(cell.noise, data.name, table.classes), cell.trial)
    frame = pd.DataFrame({"path": table.paths, NOISY: table.as_column(noisy).array})
    if known:
        frame[TRUE] = table.as_column(table.given_labels).array
    model_file, run_dir = folder / f"{cell.name}.safetensors", folder / f"{cell.name}.run"
    model_file.unlink(missing_ok=True)  # of a cell that was stopped at its very end
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
        method=cell.method,
        seed=cell.trial,
        **{**(ASYMMETRIC.get(cell.method, {}) if cell.noise.startswith("asymmetric") else {}), **settings},
    )
    seconds = time.monotonic() - started
    if unreadable := result.summary["status"]["unreadable"]:
        observer.note(f"{cell.name}: {unreadable} images could not be read; they keep their labels")
    config = make_config(result.summary["config"])
    found = {
        "accuracy": accuracy(model_file, data.test_images, data.test, config, run_dir),
        "recovery": result.summary["truth"]["recovery"] if known else None,
        "realised_rate": float((noisy != table.given_labels).mean()) if known else None,
        "unreadable": unreadable,
        "seconds": round(seconds, 1),
        "config": dataclasses.asdict(config),
    }
    model_file.unlink()
    shutil.rmtree(run_dir)
    return found


def accuracy(model_file: Path, images: Path, table: LabelTable, config: Config, folder: Path) -> float:
    """Share of the images of `table` that a saved network classifies right; raises InputError if one cannot be read.

    Where they do not fit into memory, they lie in `folder`.
    """
    model, about = load_model(model_file)
    place = {label_text(label): c for c, label in enumerate(json.loads(about["classes"]))}
    labels = np.array([place[label_text(label)] for label in table.classes])[table.given_labels]
    device = find_device(config.device)
    files = resolve_paths(images, table.paths, table.table.name)
    store = decode_all(files, int(about["store_size"]), config.fit, folder)
    if store.reasons:
        raise InputError(f"{table.table.name}: images cannot be read: {first_ten(list(store.reasons.values()))}")
    pixels = Pixels(
        images=store.tensor(device),
        rows=torch.arange(len(labels), device=device),
        mean=torch.tensor(json.loads(about["mean"]), device=device),
        std=torch.tensor(json.loads(about["std"]), device=device),
        size=config.image_size,
    )
    model = model.to(device).to(memory_format=torch.channels_last)
    bf16 = wants_bf16(config.precision, device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        told = [model(pixels.plain(batch)).argmax(1).cpu() for batch in torch.split(pixels.rows, config.batch_size)]
    return float((torch.cat(told).numpy() == labels).mean())


def noise_rows(noise: str, map_name: str, classes: Sequence[Label]) -> Iterable[Row]:
    """The transition matrix of a noise by its name, row by row; `map_name` is that of asymmetric noise.

    Raises UsageError for another name.
    """
    parts = re.fullmatch(r"(symmetric|asymmetric)-(\d+(?:\.\d+)?)", noise)
    if parts is None:
        raise UsageError(f"--noise {noise!r} is not of the form symmetric-40 or asymmetric-40, per cent")
    kind = cast(NoiseName, parts[1])
    mapping = read_map(map_name, classes) if kind == "asymmetric" else None
    return transition_rows(kind, classes, float(parts[2]) / 100, mapping)


def read_truth(file: Path, column: str | None, rows: int | None) -> LabelTable:
    """The table of true labels in `file`, or its first rows; raises InputError where a row has none."""
    table = read_table(file)
    if rows is not None:
        table = dataclasses.replace(table, frame=table.frame[:rows])
    column = find_column(table, (TRUE, "true_label", "label"), column, "--label-column")
    found = dataclasses.replace(read_labels(table.frame, label_column=column), table=table)
    if unlabelled := int((found.given_labels < 0).sum()):
        raise InputError(f"{file}: {unlabelled} rows have no true label; remove them")
    return found


def _write_cells(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    write_json(folder / f"{CELLS}.json", records)
    flat = [{name: value for name, value in record.items() if name not in NESTED} for record in records]
    write_table(pd.DataFrame(flat), folder / f"{CELLS}.csv")


def _read_cells(folder: Path) -> list[dict[str, Any]]:
    file = folder / f"{CELLS}.json"
    if not file.exists():
        return []
    try:
        return cast(list[dict[str, Any]], json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it, or name another --out") from error
