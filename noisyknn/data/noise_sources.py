"""Sources of noise: the maps of the literature by name, and maps and matrices from files."""

import json
from collections import Counter
from collections.abc import Container, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from noisyknn.data.table import Label, label_text, read_table
from noisyknn.errors import InputError, first_ten, quoted, shortened

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR100_SUPERCLASSES = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}
"""The 20 superclasses of CIFAR-100 with the fine classes of each, alphabetically."""

CIFAR100_CLASSES = tuple(sorted(" ".join(CIFAR100_SUPERCLASSES.values()).split()))
"""The 100 fine classes in the order of their indices."""


def _cycle(names: Sequence[str]) -> dict[str, str]:
    """Each name to the next, the last to the first."""
    return dict(pairwise((*names, names[0])))


_NAMED_MAPS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "mnist": (tuple("0123456789"), {"7": "1", "2": "7", "5": "6", "6": "5", "3": "8"}),
    "cifar10": (
        CIFAR10_CLASSES,
        {"truck": "automobile", "bird": "airplane", "cat": "dog", "dog": "cat", "deer": "horse"},
    ),
    "cifar100": (
        CIFAR100_CLASSES,
        {a: b for start in range(0, 100, 5) for a, b in _cycle(CIFAR100_CLASSES[start : start + 5]).items()},
    ),
    "cifar100-superclass": (
        CIFAR100_CLASSES,
        {a: b for fine in CIFAR100_SUPERCLASSES.values() for a, b in _cycle(fine.split()).items()},
    ),
}
"""Map name to the class names in the order of their indices, and the map between them."""

NAMED_MAPS = tuple(_NAMED_MAPS)


def read_map(source: str, classes: Sequence[Label], where: str | None = None) -> dict[Label, Label]:
    """The map of asymmetric noise, class to class: `source` is a name or a file.

    A file is a JSON object or a CSV with the columns ``from`` and ``to``. A named map fits a table of class names or of
    indices. Messages call the map `where`. Raises InputError if the file cannot be read, names a class twice, or names
    one that is not in `classes`.
    """
    where = where or f"`map` {source}"
    if source in _NAMED_MAPS:
        names, named_pairs = _NAMED_MAPS[source]
        spelled = {label_text(label) for label in classes} & set(names)
        text_of = {name: name if spelled else str(i) for i, name in enumerate(names)}
        pairs: list[tuple[object, object]] = [(text_of[a], text_of[b]) for a, b in named_pairs.items()]
    else:
        pairs = _read_pairs(Path(source))
    by_text = {label_text(label): label for label in classes}
    texts = [(label_text(a), label_text(b)) for a, b in pairs]
    _check_known([text for pair in texts for text in pair], by_text, where)
    _check_once([a for a, _ in texts], where)
    return {by_text[a]: by_text[b] for a, b in texts}


def _read_pairs(path: Path) -> list[tuple[object, object]]:
    if not path.exists():
        raise InputError(f"`map` {path}: no such file; name a file or one of {', '.join(NAMED_MAPS)}")
    if path.suffix.lower() == ".json":
        return _read_json_pairs(path)
    frame = read_table(path, chosen_format="csv").frame
    if list(frame.columns) != ["from", "to"]:
        raise InputError(f"{path} has the columns {first_ten(list(frame.columns))}; a map needs from,to")
    incomplete = (frame.isna() | (frame.astype(str) == "")).any(axis=1)
    if rows := [row for row, yes in enumerate(incomplete.tolist(), 1) if yes]:
        raise InputError(f"{path}: rows without a class on one side: {first_ten(rows)}; fill or remove them")
    return list(frame.itertuples(index=False, name=None))


def _read_json_pairs(path: Path) -> list[tuple[object, object]]:
    wanted = f'{path}: a map is one JSON object from class to class, such as {{"cat": "dog"}}'
    try:
        # as pairs: a dict would hide a class that is named twice
        pairs = json.loads(path.read_bytes(), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON or bad UTF-8
        raise InputError(f"{wanted} ({error})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(pairs, tuple) or not pairs or not all(isinstance(target, str | int) for _, target in pairs):
        raise InputError(wanted)
    return list(pairs)


def read_matrix(path: Path, classes: Sequence[Label]) -> npt.NDArray[np.float64]:
    """A transition matrix (C, C) in the order of `classes`, from a CSV with class names as header and first column.

    Raises InputError, naming the row, for classes other than `classes`, a cell that is not a probability, or a row that
    does not sum to 1 (within 1e-6).
    """
    frame = read_table(path, chosen_format="csv").frame
    columns = [label_text(name) for name in frame.columns[1:]]
    rows = [label_text(name) for name in frame.iloc[:, 0].tolist()]
    texts = [label_text(label) for label in classes]
    for axis, names in (("header", columns), ("first column", rows)):
        where = f"{path}, {axis}"
        _check_known(names, texts, where)
        _check_once(names, where)
        if missing := [text for text in texts if text not in names]:
            raise InputError(f"{where} lacks classes of the table: {first_ten(missing)}; add them")
    cells = zip(*(frame.iloc[:, c].tolist() for c in range(1, frame.shape[1])), strict=True)
    values = {
        name: _probabilities(list(row), f"{path}, row {quoted(name)}") for name, row in zip(rows, cells, strict=True)
    }
    order = [columns.index(text) for text in texts]
    return np.array([values[text] for text in texts])[:, order]


def _probabilities(cells: Sequence[object], where: str) -> list[float]:
    try:
        values = [float(str(cell)) for cell in cells]
    except ValueError as error:
        raise InputError(f"{where}: {shortened(str(error))}; write a probability in every cell") from error
    if wrong := [value for value in values if not 0 <= value <= 1]:
        raise InputError(f"{where}: {first_ten(wrong)} is not a probability (0 to 1); correct it")
    if abs(sum(values) - 1) > 1e-6:
        raise InputError(f"{where} sums to {sum(values):.9g}; make it sum to 1")
    return values


def _check_known(names: Sequence[str], classes: Container[str], where: str) -> None:
    if unknown := sorted({name for name in names if name not in classes}):
        raise InputError(f"{where} names classes that the table lacks: {first_ten(unknown)}; remove or correct them")


def _check_once(names: Sequence[str], where: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{where} names classes twice: {first_ten(twice)}; keep one of each")
