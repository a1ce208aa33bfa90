"""Torchvision data sets as image folders and tables."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from noisyknn.data.table import write_table
from noisyknn.errors import InputError, UsageError
from noisyknn.files import make_folder
from noisyknn.observer import Observer

_CLASSES = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def write_parts(name: str, root: Path, folder: Path, observer: Observer, *, download: bool) -> tuple[Path, Path]:
    """Write the torchvision data set in `root` into `folder`; returns the folders of the training and test parts.

    Each part has ``images`` (PNG) and ``labels.csv`` (path, clean_label). A finished part is left alone. Raises
    InputError for a missing data set, unless `download` lets torchvision fetch it.
    """
    make_folder("`out`", folder)
    train, test = (folder / f"{name}-{part}" for part in ("train", "test"))
    for target in (train, test):
        if not (target / "labels.csv").exists():
            _write(_read(name, root, target == train, download), target, observer)
    return train, test


def _read(name: str, root: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, _CLASSES[name])(str(root), train=train, download=download)
    except Exception as error:  # for other files, torchvision may raise anything
        cure = "" if download else "; add `download` to fetch it"
        raise InputError(f"`torchvision` {root}: cannot read {_CLASSES[name]}: {error}{cure}") from error


def _write(data: Any, target: Path, observer: Observer) -> None:
    """Write a part under another name, and rename it when complete."""
    if target.exists():
        raise UsageError(f"{target} contains something else; name another `out`")
    unfinished = target.with_name(f"{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "images").mkdir(parents=True)
    observer.start(f"writing {target.name}", len(data), "images")
    names, labels = [], []
    for row, (image, label) in enumerate(data):
        names.append(f"{row:05d}.png")
        labels.append(data.classes[label] if data.classes[label].isidentifier() else label)
        image.save(unfinished / "images" / names[-1])
        observer.advance(1)
    write_table(pd.DataFrame({"path": names, "clean_label": labels}), unfinished / "labels.csv")
    unfinished.rename(target)
