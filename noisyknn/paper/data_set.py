"""What the paper's tables are run on: images to train and to test on, and the noise of the labels."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import cast

from noisyknn.data.clothing1m import Part, read_part
from noisyknn.data.images import evenly_spread
from noisyknn.data.noise import NoiseName, Row, transition_rows
from noisyknn.data.noise_sources import read_map
from noisyknn.data.paths import resolve_paths
from noisyknn.data.table import Label, LabelTable, find_column, label_text, read_labels, read_table
from noisyknn.errors import InputError, UsageError, counted, first_ten

TRUE = "clean_label"
CLOTHING = "clothing1m"
_LOOKED_INTO = 64
_PARTS: tuple[Part, Part] = ("noisy_train", "clean_test")


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
        if (unlabelled := int((self.test.given_labels < 0).sum())) > 0:
            told = counted(unlabelled, "row has no label", "rows have no label")
            raise InputError(f"{self.test.table.name}: {told} to test by")
        files = resolve_paths(self.test_images, self.test.paths, self.test.table.name, "--test-images")
        if missing := [path for path, file in zip(self.test.paths, files, strict=True) if not file.is_file()]:
            told = counted(len(missing), "file does not exist", "files do not exist")
            raise InputError(f"{self.test.table.name}: {told}: {first_ten(missing)}")

    def digest(self) -> str:
        """The same for the same paths, labels and (as sizes and some contents tell) images, wherever these lie."""
        digest = hashlib.sha256()
        for folder, table in ((self.images, self.train), (self.test_images, self.test)):
            about = [table.paths, [str(label) for label in table.classes], table.given_labels.tolist()]
            digest.update(json.dumps(about).encode())
            files = resolve_paths(folder, table.paths, table.table.name)
            digest.update(json.dumps([_size(file) for file in files]).encode())
            for row in evenly_spread(len(files), _LOOKED_INTO):
                digest.update(files[row].read_bytes() if _size(files[row]) else b"")
        return digest.hexdigest()


def _size(file: Path) -> int:
    """Bytes in a file, 0 where there is none that can be read."""
    return file.stat().st_size if file.is_file() and os.access(file, os.R_OK) else 0


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


def parse_noise(noise: str) -> tuple[NoiseName, float]:
    """Kind and rate of a noise by its name; raises UsageError for another name."""
    parts = re.fullmatch(r"(symmetric|asymmetric)-([0-9]{1,3}(?:\.[0-9]{1,6})?)", noise)
    if parts is None:
        raise UsageError(f"--noise {noise!r} is not of the form symmetric-40 or asymmetric-40, per cent")
    if float(parts[2]) > 100:
        raise UsageError(f"--noise {noise}: more than 100 per cent")
    return cast(NoiseName, parts[1]), float(parts[2]) / 100


def noise_name(noise: str) -> str:
    """The one name of a noise: ``symmetric-40`` of ``symmetric-40.0``; raises UsageError for what is none."""
    kind, _ = parse_noise(noise)
    return f"{kind}-{Decimal(noise.removeprefix(f'{kind}-')).normalize():f}"


def noise_rows(noise: str, map_name: str, classes: Sequence[Label]) -> Iterable[Row]:
    """The transition matrix of a noise by its name, row by row; `map_name` is that of asymmetric noise.

    Raises UsageError for another name.
    """
    kind, rate = parse_noise(noise)
    into = read_map(map_name, classes, f"--noise {noise} of {map_name}") if kind == "asymmetric" else None
    return transition_rows(kind, classes, rate, into)


def read_truth(file: Path, column: str | None, rows: int | None) -> LabelTable:
    """The table of true labels in `file`, or its first rows; raises InputError where a row has none."""
    table = read_table(file)
    if rows is not None:
        table = dataclasses.replace(table, frame=table.frame[:rows], arrow=None)
    table.frame.attrs["name"] = table.name
    column = find_column(table, (TRUE, "true_label", "label"), column, "--label-column")
    found = dataclasses.replace(read_labels(table.frame, label_column=column), table=table)
    if unlabelled := int((found.given_labels < 0).sum()):
        told = counted(unlabelled, "row has no true label; remove it", "rows have no true label; remove them")
        raise InputError(f"{file}: {told}")
    return found
