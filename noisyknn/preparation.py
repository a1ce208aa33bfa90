"""Everything before a run: checks of labels and settings, the configuration, and the identity of the run."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from noisyknn.config import Config
from noisyknn.data.images import typical_size
from noisyknn.data.paths import resolve_paths
from noisyknn.data.table import Label, LabelTable, encode_labels, find_column, label_text, note_spelled_missing
from noisyknn.errors import InputError, UsageError, first_ten, quoted
from noisyknn.knn.search import find_search
from noisyknn.methods.spec import DEFAULT, find_method, unused_settings
from noisyknn.models.backbone import Backbone
from noisyknn.models.factory import build_backbone, check_bf16, check_size
from noisyknn.observer import Observer
from noisyknn.output import NEW_COLUMNS, Labels, prediction_columns
from noisyknn.presets import describe, overridden, preset_settings
from noisyknn.training.device import find_device, thread_count, wants_bf16
from noisyknn.training.schedule import smaller_sizes
from noisyknn.version import __version__

RARE = 20
"""A class this many times rarer than the median class triggers a warning."""
FEW, ENOUGH = 10, 150
"""A median class with fewer rows triggers a warning: FEW, right labels may break; ENOUGH, wrong ones may stay."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The input and settings of a run: N rows, one per image."""

    table: LabelTable
    images: Path
    """The folder of the images; paths are relative to it."""
    files: list[Path]
    """N absolute paths; files may be missing."""
    truth: Labels | None
    """(N,) true labels, only for the summary: see `read_truth`."""
    config: Config

    def new_model(self) -> Backbone:
        """The network with its initial weights."""
        config = self.config
        return build_backbone(
            config.backbone,
            classes=len(self.table.classes),
            image_size=config.image_size,
            width=config.width,
            weights=config.weights,
            layer=config.layer,
            seed=config.seed,
        )

    def inputs(self) -> list[Path]:
        """The files that the run reads, apart from its table."""
        weights = self.config.weights
        return [*self.files, *([] if weights in (None, "DEFAULT") else [Path(weights)])]


def prepare(
    table: LabelTable,
    images: Path,
    truth_column: str | None,
    preset: str,
    overrides: Mapping[str, object],
    observer: Observer,
) -> Job:
    """Check everything that needs no decoded image, and make the configuration.

    `overrides` replace settings of the preset. Raises InputError, UsageError or MachineError.
    """
    if taken := [column for column in NEW_COLUMNS if column in table.table.frame.columns]:
        raise InputError(
            f"{table.table.name} already has the columns {first_ten(taken)}, which clean writes; rename or remove them"
        )
    if table.path_column in prediction_columns(table.classes):
        raise InputError(
            f"{table.table.name}: the column of paths has the name {table.path_column!r}, which `save_probabilities` "
            "writes; rename it"
        )
    truth = read_truth(table, truth_column)
    check_classes(table, table.given_labels, "")
    files = resolve_paths(images, table.paths, f"{table.table.name}, column {table.path_column!r}")
    config = configure(table, files, preset, overrides, observer)
    check_labels(table, table.given_labels, config, "")
    note_spelled_missing(table.table, table.label_column, observer.note)
    _note_classes(table, observer)
    job = Job(table=table, images=images, files=files, truth=truth, config=config)
    model = job.new_model()  # fails now, before any work
    for size in smaller_sizes(config):
        check_size(model, size)
    device = find_device(config.device)
    if device.type == "cpu" and wants_bf16(config.precision, device):
        for size in (config.image_size, *smaller_sizes(config)):
            check_bf16(model, size)
    return job


def read_truth(table: LabelTable, column: str | None) -> Labels | None:
    """True labels (N,) as class indices: -1 for an empty cell, C for a class without given labels.

    Raises InputError if the column is missing, empty or not a column of labels, UsageError if it is the given labels.
    """
    if column is None:
        return None
    if column == table.label_column:
        raise UsageError(f"`truth_column` {column!r} is the column of given labels; name that one with `label_column`")
    true_classes, truth = encode_labels(table.table, find_column(table.table, (), column, "`truth_column`"))
    index = {label_text(label): c for c, label in enumerate(table.classes)}
    known = np.array([index.get(label_text(label), len(index)) for label in true_classes], dtype=np.int64)
    if (known == len(index)).all():
        raise InputError(
            f"{table.table.name}: `truth_column` {column!r} has none of the given classes; name another column"
        )
    return np.where(truth >= 0, known[truth], -1)


def configure(
    table: LabelTable, files: Sequence[Path], preset: str, overrides: Mapping[str, object], observer: Observer
) -> Config:
    """The configuration: the preset, with the overrides of file and options."""
    device = find_device(str(overrides.get("device", "auto")))
    labelled = int((table.given_labels >= 0).sum())
    size, grey = typical_size(files)
    settings, reason = preset_settings(
        preset,
        method=str(overrides.get("method", DEFAULT)),
        rows=labelled,
        classes=len(table.classes),
        size=size,
        grey=grey,
        gpu=device.type == "cuda",
    )
    config = overridden(settings, overrides)
    find_search(config.search, device)  # fails now if it is not installed
    observer.note(reason)
    if unused := sorted(unused_settings(config) & overrides.keys()):
        observer.note(f"settings without effect here: {first_ten([f'`{name}`' for name in unused])}; remove them")
    observer.note(f"{describe(config)}; {'bf16' if wants_bf16(config.precision, device) else 'fp32'} on {device}")
    return config


def check_labels(table: LabelTable, given: Labels, config: Config, which: str) -> None:
    """Refuse given labels (N,), -1 for none, if they have too few classes, rows or voters for training."""
    check_classes(table, given, which)
    counts = np.bincount(given[given >= 0])
    count_voters = find_method(config.method).voters
    if count_voters is not None and (voters := count_voters(config, counts)) <= config.k:
        raise InputError(
            f"{table.table.name}: too few rows for {config.k} neighbours: of {counts.sum()} {which}rows with a label, "
            f"{voters} vote in the first episode; give a smaller `k`"
        )


def check_classes(table: LabelTable, given: Labels, which: str) -> None:
    """Refuse a single class, or a class with fewer than two rows."""
    where = f"{table.table.name}, column {table.label_column!r}"
    counts = np.bincount(given[given >= 0], minlength=len(table.classes))
    if (counts > 0).sum() < 2:
        raise InputError(f"{where}: all {which}rows have the same label; provide at least two classes")
    if lonely := np.flatnonzero(counts < 2).tolist():
        named = [
            f"{quoted(table.classes[c])} ({f'row {int(np.flatnonzero(given == c)[0]) + 1}' if counts[c] else 'no row'})"
            for c in lonely
        ]
        raise InputError(
            f"{where}: classes with fewer than two {which}rows: {first_ten(named)}; correct a misspelt label, empty "
            "the cell so that clean fills it, remove the row, or name another column with `label_column`"
        )


def _note_classes(table: LabelTable, observer: Observer) -> None:
    """Warn about tiny classes, and about rare or similar ones, which may be misspelt."""
    counts = np.bincount(table.given_labels[table.given_labels >= 0])
    if np.median(counts) < FEW:
        observer.note(
            f"half of the classes have {int(np.median(counts))} rows or fewer, which is little to train on: some right "
            "labels may be broken and confidence too high; add rows, or review the corrections"
        )
    elif np.median(counts) < ENOUGH:
        observer.note(
            f"half of the classes have {int(np.median(counts))} rows or fewer: if many labels are wrong, some may be "
            "kept with too high a confidence; add rows, or review the corrections"
        )
    if rare := np.flatnonzero(counts * RARE < np.median(counts)).tolist():
        named = [f"{quoted(table.classes[c])} ({counts[c]} rows)" for c in rare]
        observer.note(f"classes much rarer than the others: {first_ten(named)}; correct any that are misspelt")
    spellings: dict[str, list[Label]] = {}
    for label in table.classes:
        spellings.setdefault(label_text(label).casefold(), []).append(label)
    if alike := [label for group in spellings.values() if len(group) > 1 for label in group]:
        observer.note(
            f"classes that differ only in capital letters: {first_ten(alike)}; make those alike that are the same"
        )


def identify(job: Job) -> dict[str, Any]:
    """The identity of a run: configuration, input, device and versions, and a key made of them."""
    table, config = job.table, job.config
    device = find_device(config.device)
    digest = hashlib.sha256(json.dumps([table.paths, [str(label) for label in table.classes]]).encode())
    digest.update(table.given_labels.tobytes())
    for file in job.inputs():
        try:
            stat = file.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns};".encode())
        except (OSError, ValueError):  # the row of a missing file is unreadable
            digest.update(b"-;")
    identity = {
        "input": {
            "table": table.table.name,
            "images": str(job.images.resolve()),
            "rows": len(job.files),
            "label_column": table.label_column,
            "sha256": digest.hexdigest(),
        },
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name != "device"},
        "device": {"type": device.type, "bf16": wants_bf16(config.precision, device), "threads": thread_count(config)},
        "versions": {
            "noisyknn": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    }
    return identity | {"key": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()}
