"""Data sets of torchvision as image folders and tables."""

import secrets
import shutil
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
from PIL import Image

from noisyknn.data.table import write_table
from noisyknn.errors import InputError, UsageError
from noisyknn.files import make_folder
from noisyknn.observer import Observer

_CLASSES = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def write_parts(name: str, root: Path, folder: Path, observer: Observer, *, download: bool) -> tuple[Path, Path]:
    """Write what torchvision holds in `root` under `folder`; returns the folders of the training and the test part.

    Each has ``images`` (PNG) and ``labels.csv`` (path, clean_label); a part that is there already is left alone, and
    one that another process writes is waited for. Raises InputError where `root` lacks the data set and `download` does
    not say to fetch it.
    """
    make_folder("--out", folder)
    folders = [folder / f"{name}-{part}" for part in ("train", "test")]
    with filelock.FileLock(folder / f"{name}.lock"):
        for target in folders:
            if not (target / "labels.csv").exists():
                _write(_read(name, root, target == folders[0], download), target, observer)
    return folders[0], folders[1]


def _read(name: str, root: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, _CLASSES[name])(str(root), train=train, download=download)
    except RuntimeError as error:
        cure = "" if download else "; --download fetches it"
        raise InputError(f"--torchvision {root}: {error}{cure}") from error
    except Exception as error:  # whatever torchvision meets in files that are none of this data set
        raise InputError(f"--torchvision {root}: {_CLASSES[name]} cannot be had: {error}") from error


def _write(data: Any, target: Path, observer: Observer) -> None:
    for half_written in target.parent.glob(f"{target.name}-*.part"):  # by a process that was killed: ours is the lock
        shutil.rmtree(half_written)
    if target.exists():
        raise UsageError(f"{target} holds something else; name another --out")
    unfinished = target.with_name(f"{target.name}-{secrets.token_hex(8)}.part")
    (unfinished / "images").mkdir(parents=True)
    observer.start(f"writing {target.name}", len(data), "images")
    names, labels = [], []
    for row, (image, label) in enumerate(data):
        names.append(f"{row:05d}.png")
        labels.append(data.classes[label] if data.classes[label].isidentifier() else label)
        assert isinstance(image, Image.Image)
        image.save(unfinished / "images" / names[-1])
        observer.advance(1)
    write_table(pd.DataFrame({"path": names, "clean_label": labels}), unfinished / "labels.csv")
    unfinished.rename(target)
