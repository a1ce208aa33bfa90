"""Data of the paper's tables: training and test images, and label noise."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from noisyknn.data.clothing1m import read_part
from noisyknn.data.noise import NoiseName, inject, transition_rows
from noisyknn.data.noise_sources import read_map
from noisyknn.data.paths import resolve_paths
from noisyknn.data.table import LabelTable, find_column, label_text, read_labels, read_table
from noisyknn.errors import InputError, UsageError, counted, first_ten
from noisyknn.observer import Observer
from noisyknn.paper.torchvision_data import write_parts

TRUE, NOISY = "clean_label", "noisy_label"
CLOTHING1M = "clothing1m"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Training and test images."""

    name: str
    """Name of its preset."""
    images: Path
    train: LabelTable
    """True labels before noise is added, or labels that are already noisy."""
    test_images: Path
    test: LabelTable

    def __post_init__(self) -> None:
        """Raise InputError for a test class without training rows."""
        known = {label_text(label) for label in self.train.classes}
        if strange := [label for label in self.test.classes if label_text(label) not in known]:
            raise InputError(
                f"{self.test.table.name} has classes without training rows: {first_ten(strange)}; remove them"
            )

    def digest(self) -> str:
        """SHA-256 of the paths, labels and file sizes of the images, whatever their folder."""
        digest = hashlib.sha256()
        for option, folder, table in (
            ("`images`", self.images, self.train),
            ("`test_images`", self.test_images, self.test),
        ):
            files = resolve_paths(folder, table.paths, table.table.name, option)
            sizes = [file.stat().st_size if file.is_file() else None for file in files]
            classes = [str(label) for label in table.classes]
            digest.update(json.dumps([table.paths, classes, table.given_labels.tolist(), sizes]).encode())
        return digest.hexdigest()


def read_data_set(
    name: str,
    out: Path,
    observer: Observer,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    test_images: Path | None = None,
    test_labels: Path | None = None,
    torchvision: Path | None = None,
    download: bool = False,
    label_column: str | None = None,
    rows: int | None = None,
) -> DataSet:
    """Read Clothing1M in `images`, four files and folders, or a torchvision data set, which is written into `out`.

    The training set is the first `rows` rows. Raises UsageError for arguments that exclude each other, InputError for
    tables that do not match.
    """
    if name == CLOTHING1M and images is not None:
        train, test = read_labels(read_part(images, "noisy_train")[:rows]), read_labels(read_part(images, "clean_test"))
        return DataSet(name=name, images=images, train=train, test_images=images, test=test)
    if torchvision is not None:
        if images or labels or test_images or test_labels:
            raise UsageError("give either `torchvision` or `images`, `labels`, `test_images` and `test_labels`")
        parts = write_parts(name, torchvision, out / "data", observer, download=download)
        (images, labels), (test_images, test_labels) = ((part / "images", part / "labels.csv") for part in parts)
    elif download:
        raise UsageError("`download` needs `torchvision`; add it")
    if images is None or labels is None or test_images is None or test_labels is None:
        raise UsageError("give `images`, `labels`, `test_images` and `test_labels`, or `torchvision`")
    train, test = read_truth(labels, label_column, rows), read_truth(test_labels, label_column, None)
    return DataSet(name=name, images=images, train=train, test_images=test_images, test=test)


def with_noise(table: LabelTable, noise: str, map_name: str, seed: int) -> tuple[pd.DataFrame, float]:
    """Paths, noisy and true labels, and the share of wrong labels; `map_name` names the pairs of asymmetric noise.

    Raises UsageError for an unknown noise, InputError for noise that leaves a class with a single row.
    """
    kind, rate = parse_noise(noise)
    into = read_map(map_name, table.classes, f"`noise` {noise} of {map_name}") if kind == "asymmetric" else None
    given = inject(table.given_labels, transition_rows(kind, table.classes, rate, into), seed)
    counts = np.bincount(given, minlength=len(table.classes))
    if lonely := [table.classes[c] for c in np.flatnonzero(counts == 1)]:
        raise InputError(
            f"{table.table.name}: the noise leaves a single row of the classes {first_ten(lonely)}; give more rows"
        )
    frame = pd.DataFrame({"path": table.paths, NOISY: table.as_column(given).array})
    frame[TRUE] = table.as_column(table.given_labels).array
    frame.attrs["name"] = table.table.name  # in messages
    return frame, float((given != table.given_labels).mean())


def parse_noise(noise: str) -> tuple[NoiseName, float]:
    """Kind and rate of the noise with this name; raises UsageError for an unknown name."""
    parts = re.fullmatch(r"(symmetric|asymmetric)-(100|[1-9]?[0-9])", noise)
    if parts is None:
        raise UsageError(f"`noise` {noise!r} is not of the form symmetric-40 or asymmetric-40, per cent (0 to 100)")
    return cast(NoiseName, parts[1]), int(parts[2]) / 100


def read_truth(file: Path, column: str | None, rows: int | None) -> LabelTable:
    """The table of true labels in `file`, or its first `rows`; raises InputError for a row without a label."""
    table = read_table(file)
    table = dataclasses.replace(table, frame=table.frame[:rows], arrow=None)
    table.frame.attrs["name"] = table.name
    column = find_column(table, (TRUE, "true_label", "label"), column, "`label_column`")
    found = dataclasses.replace(read_labels(table.frame, label_column=column), table=table)
    if unlabelled := int((found.given_labels < 0).sum()):
        told = counted(unlabelled, "row has no true label; remove it", "rows have no true label; remove them")
        raise InputError(f"{file}: {told}")
    return found
