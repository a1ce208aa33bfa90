"""The files that a table names, within the folder of the images."""

import posixpath
from collections.abc import Sequence
from pathlib import Path

from noisyknn.errors import InputError, counted, first_ten, quoted


def resolve_paths(root: Path, paths: Sequence[str], where: str, option: str = "`images`") -> list[Path]:
    """The absolute path of each of a table's files, given relative to the folder `root` or absolute and inside it.

    `where` names the table and column in messages, `option` the one that gives the folder. Files need not exist, and
    links inside the folder may lead anywhere. Raises InputError where `root` is no folder or paths leave it, naming all
    their rows.
    """
    _check_folder(root, option)
    base = "/" + posixpath.normpath(root.absolute()).lstrip("/")  # POSIX keeps two leading slashes apart from one
    inside = tuple(f"{folder}/".replace("//", "/") for folder in (base, root.resolve()))
    resolved, outside = [], []
    for row, path in enumerate(paths, 1):
        # What is checked is what is opened: "link/.." would otherwise mean one folder here and another to the system.
        target = posixpath.normpath(posixpath.join(base, path))
        resolved.append(Path(target))
        if not f"{target}/".startswith(inside):
            outside.append(f"row {row}: {quoted(path)}")
    if outside:
        raise InputError(
            f"{where}: {counted(len(outside), 'path leads', 'paths lead')} out of the folder {root} "
            f"({first_ten(outside)}); give {option} a folder that holds all images"
        )
    return resolved


def _check_folder(root: Path, option: str) -> None:
    try:
        if not root.is_dir():
            raise InputError(f"{option} {root}: {'not a folder' if root.exists() else 'no such folder'}")
    except OSError as error:
        raise InputError(f"{option} {root} cannot be looked into: {str(error.strerror).lower()}") from error
