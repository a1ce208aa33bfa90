"""Clothing1M (Xiao et al. 2015) in its published layout.

Its folder has ``images/``, ``category_names_eng.txt`` (a class name a line), ``noisy_label_kv.txt`` and
``clean_label_kv.txt`` (a path and a class number a line), ``noisy_train_key_list.txt``, ``clean_train_key_list.txt``,
``clean_val_key_list.txt`` and ``clean_test_key_list.txt`` (a path a line). Paths begin with ``images/``.
"""

from pathlib import Path
from typing import Literal

import pandas as pd

from noisyknn.errors import InputError, counted, first_ten

Part = Literal["noisy_train", "clean_train", "clean_val", "clean_test"]


def read_part(root: Path, part: Part) -> pd.DataFrame:
    """The images of a part: ``path``, relative to `root`, and ``label``, a class name.

    ``noisy_train`` has noisy labels, the other parts verified ones. Raises InputError if a file is missing, a line
    cannot be parsed, or an image has no label.
    """
    classes = _lines(root / "category_names_eng.txt")
    if len(set(classes)) < len(classes):
        raise InputError(f"{root / 'category_names_eng.txt'} has the same class more than once; keep one")
    wanted = f"a path and a class from 0 to {len(classes) - 1}"
    source = root / ("noisy_label_kv.txt" if part == "noisy_train" else "clean_label_kv.txt")
    labels: dict[str, str] = {}
    for number, line in enumerate(_lines(source), 1):
        path, _, label = line.rpartition(" ")
        if not path or not label.isdecimal() or int(label) >= len(classes):
            raise InputError(f"{source}, line {number}: {line!r} is not {wanted}")
        labels[path] = classes[int(label)]
    keys = root / f"{part}_key_list.txt"
    paths = _lines(keys)
    if unlabelled := [path for path in paths if path not in labels]:
        told = f"{counted(len(unlabelled), 'image has', 'images have')} no label in {source.name}"
        raise InputError(f"{keys}: {told}: {first_ten(unlabelled)}; add or remove them")
    frame = pd.DataFrame({"path": paths, "label": [labels[path] for path in paths]})
    frame.attrs["name"] = str(keys)  # in messages
    return frame


def _lines(file: Path) -> list[str]:
    """The lines of a text file, without empty ones."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); is this the folder of Clothing1M?") from error
    if not any(lines):
        raise InputError(f"{file} is empty; copy it again")
    return [line for line in lines if line]
