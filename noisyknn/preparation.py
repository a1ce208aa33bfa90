"""All that is checked and settled before a run begins: outputs, labels, configuration, and what identifies the run."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import noisyknn
from noisyknn.config import Config, make_config
from noisyknn.data.images import typical_size
from noisyknn.data.noise_sources import label_text
from noisyknn.data.table import LabelTable, find_column
from noisyknn.errors import InputError, UsageError, first_ten
from noisyknn.files import check_writable
from noisyknn.observer import Observer
from noisyknn.presets import preset_settings
from noisyknn.results import Labels
from noisyknn.training.device import find_device, wants_bf16


def check_outputs(outputs: Mapping[str, object], source: object, overwrite: bool) -> None:
    """Refuse, before any work, files that exist, that are the input, or whose folder cannot be written."""
    files = {option: path for option, path in outputs.items() if isinstance(path, Path)}
    for option, path in files.items():
        if isinstance(source, Path) and path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"{option} {path} is the input; inputs are never modified, name another file")
        if path.is_dir():
            raise UsageError(f"{option} {path} is a folder; name a file")
        if path.exists() and not overwrite:
            raise UsageError(f"{option} {path} exists already; --overwrite replaces it")
        check_writable(path)
    if len({path.resolve() for path in files.values()}) < len(files):
        raise UsageError(f"{' and '.join(files)} name the same file")


def read_truth(table: LabelTable, column: str | None) -> Labels | None:
    """True labels (N,) as class indices: -1 where the cell is empty, C for a class that no given label has."""
    if column is None:
        return None
    if column == table.label_column:
        raise UsageError(f"--truth-column {column!r} is the column of given labels; name that with --label-column")
    cells = table.table.frame[find_column(table.table, (), column, "--truth-column")]
    index = {label_text(label): c for c, label in enumerate(table.classes)}
    texts = ["" if gone else label_text(cell) for cell, gone in zip(cells.tolist(), cells.isna(), strict=True)]
    return np.array([index.get(text, len(index)) if text else -1 for text in texts], dtype=np.int64)


def configure(
    table: LabelTable, files: Sequence[Path], preset: str, overrides: Mapping[str, object], observer: Observer
) -> Config:
    """Preset, overridden by the file and the options, and checked against the data."""
    check_classes(table.given_labels, table, "")
    device = find_device(str(overrides.get("device", "auto")))
    size, grey = typical_size(files)
    settings, reason = preset_settings(
        preset, rows=len(files), classes=len(table.classes), size=size, grey=grey, gpu=device.type == "cuda"
    )
    config = make_config({**settings, **overrides})
    observer.note(f"{reason}; {describe(config)}")
    voters = int(len(files) * config.reference_start) if config.method == "selknn" else len(files)
    if voters <= config.k and config.references_per_class is None:
        raise InputError(
            f"{table.table.name} has {len(files)} rows, of which {voters} vote in the first episode: too few for "
            f"{config.k} neighbours; give a smaller --k or a larger --reference-start"
        )
    return config


def describe(config: Config) -> str:
    """The settings that matter most, in a line."""
    return (
        f"{config.method} with {config.backbone} at {config.image_size} pixels, {config.episodes} episodes of "
        f"{config.epochs} epochs, k = {config.k}"
    )


def check_classes(given: Labels, table: LabelTable, which: str) -> None:
    """Refuse labels from which nothing can be learnt: one class only, or a class with a single row."""
    where = f"{table.table.name}, column {table.label_column!r}"
    counts = np.bincount(given[given >= 0], minlength=len(table.classes))
    if (counts > 0).sum() < 2:
        raise InputError(f"{where}: all {which}rows have the same label; correcting needs at least two classes")
    if lonely := np.flatnonzero(counts < 2).tolist():
        named = [
            f"{table.classes[c]!r} ({f'row {int(np.flatnonzero(given == c)[0]) + 1}' if counts[c] else 'no row'})"
            for c in lonely
        ]
        raise InputError(
            f"{where}: {len(named)} classes have fewer than two {which}rows: {first_ten(named)}; "
            "correct a misspelt label, empty the cell to have it filled, or remove the row"
        )


def identify(table: LabelTable, files: Sequence[Path], images: Path, config: Config) -> dict[str, Any]:
    """What makes a run the same run: configuration, input and versions, with a key made of all of it."""
    device = find_device(config.device)
    digest = hashlib.sha256(json.dumps([table.paths, [str(label) for label in table.classes]]).encode())
    digest.update(table.given_labels.tobytes())
    for file in files:
        try:
            stat = file.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns};".encode())
        except (OSError, ValueError):  # a file that is not there is a row marked unreadable
            digest.update(b"-;")
    identity = {
        "input": {
            "table": table.table.name,
            "images": str(images.resolve()),
            "rows": len(files),
            "label_column": table.label_column,
            "sha256": digest.hexdigest(),
        },
        "config": dataclasses.asdict(config),
        "device": {"type": device.type, "bf16": wants_bf16(config.precision, device)},
        "versions": {
            "noisyknn": noisyknn.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    }
    return identity | {"key": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()}
