"""Data of the paper's tables: images to train and to test on, and the noise of the labels."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import cast

from noisyknn.data.clothing1m import read_part
from noisyknn.data.noise import NoiseName, Row, transition_rows
from noisyknn.data.noise_sources import label_text, read_map
from noisyknn.data.paths import resolve_paths
from noisyknn.data.table import Label, LabelTable, find_column, read_labels, read_table
from noisyknn.errors import InputError, UsageError, counted, first_ten
from noisyknn.observer import Observer
from noisyknn.paper.torchvision_data import write_parts

TRUE = "clean_label"


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where images and true labels lie: in four places, or in a folder of torchvision."""

    images: Path | None = None
    labels: Path | None = None
    test_images: Path | None = None
    test_labels: Path | None = None
    torchvision: Path | None = None
    download: bool = False
    """Whether torchvision may fetch the data set."""
    label_column: str | None = None
    """Column of true labels, found by name if not given."""
    rows: int | None = None
    """Number of rows to train on, the first ones; all if not given."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Images to train and to test on."""

    name: str
    """Its preset in the paper."""
    images: Path
    train: LabelTable
    """With true labels, to be made noisy, or with labels that are noisy already."""
    test_images: Path
    test: LabelTable

    def __post_init__(self) -> None:
        """Raise InputError for a test class that has no row to train on."""
        known = {label_text(label) for label in self.train.classes}
        if strange := [label for label in self.test.classes if label_text(label) not in known]:
            raise InputError(f"{self.test.table.name} has classes that no row to train on has: {first_ten(strange)}")

    def digest(self) -> str:
        """SHA-256 of paths, labels and sizes of the image files; independent of the folders they lie in."""
        digest = hashlib.sha256()
        for option, folder, table in (
            ("--images", self.images, self.train),
            ("--test-images", self.test_images, self.test),
        ):
            files = resolve_paths(folder, table.paths, table.table.name, option)
            sizes = [file.stat().st_size if file.is_file() else None for file in files]
            classes = [str(label) for label in table.classes]
            digest.update(json.dumps([table.paths, classes, table.given_labels.tolist(), sizes]).encode())
        return digest.hexdigest()


def read_data_set(name: str, files: Files, out: Path, observer: Observer) -> DataSet:
    """Read both tables; a data set of torchvision is written into `out` first.

    Raises UsageError for files that do not go together, InputError for tables that do not fit each other.
    """
    four = (files.images, files.labels, files.test_images, files.test_labels)
    if files.torchvision is not None:
        if any(four):
            raise UsageError("give either --torchvision or --images, --labels, --test-images and --test-labels")
        parts = write_parts(name, files.torchvision, out / "data", observer, download=files.download)
        (images, labels), (test_images, test_labels) = ((part / "images", part / "labels.csv") for part in parts)
    elif files.download:
        raise UsageError("--download goes with --torchvision")
    elif all(four):
        images, labels, test_images, test_labels = cast(tuple[Path, Path, Path, Path], four)
    else:
        raise UsageError("give --images, --labels, --test-images and --test-labels, or --torchvision")
    train = read_truth(labels, files.label_column, files.rows)
    test = read_truth(test_labels, files.label_column, None)
    return DataSet(name=name, images=images, train=train, test_images=test_images, test=test)


def read_clothing1m(root: Path, rows: int | None) -> DataSet:
    """Clothing1M's noisy training images, or the first `rows` of them, and its verified test images."""
    train, test = read_labels(read_part(root, "noisy_train")[:rows]), read_labels(read_part(root, "clean_test"))
    return DataSet(name="clothing1m", images=root, train=train, test_images=root, test=test)


def parse_noise(noise: str) -> tuple[NoiseName, float]:
    """Kind and rate of a noise by its name; raises UsageError for any other name."""
    parts = re.fullmatch(r"(symmetric|asymmetric)-([0-9]{1,3}(?:\.[0-9]{1,6})?)", noise)
    if parts is None:
        raise UsageError(f"--noise {noise!r} is not of the form symmetric-40 or asymmetric-40, per cent")
    if float(parts[2]) > 100:
        raise UsageError(f"--noise {noise}: more than 100 per cent")
    return cast(NoiseName, parts[1]), float(parts[2]) / 100


def noise_name(noise: str) -> str:
    """The canonical name of a noise: ``symmetric-40`` for ``symmetric-40.0``; raises as `parse_noise` does."""
    kind, _ = parse_noise(noise)
    return f"{kind}-{Decimal(noise.removeprefix(f'{kind}-')).normalize():f}"


def noise_rows(noise: str, map_name: str, classes: Sequence[Label]) -> Iterable[Row]:
    """Rows of the transition matrix of a noise; `map_name` names the class pairs of asymmetric noise.

    Raises as `parse_noise` does.
    """
    kind, rate = parse_noise(noise)
    into = read_map(map_name, classes, f"--noise {noise} of {map_name}") if kind == "asymmetric" else None
    return transition_rows(kind, classes, rate, into)


def read_truth(file: Path, column: str | None, rows: int | None) -> LabelTable:
    """The table of true labels in `file`, or its first rows; raises InputError for a row without a label."""
    table = read_table(file)
    table = dataclasses.replace(table, frame=table.frame[:rows])
    table.frame.attrs["name"] = table.name
    column = find_column(table, (TRUE, "true_label", "label"), column, "--label-column")
    found = dataclasses.replace(read_labels(table.frame, label_column=column), table=table)
    if unlabelled := int((found.given_labels < 0).sum()):
        told = counted(unlabelled, "row has no true label; remove it", "rows have no true label; remove them")
        raise InputError(f"{file}: {told}")
    return found
