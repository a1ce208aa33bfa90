"""The files that a table names, inside the folder of the images."""

import posixpath
from collections.abc import Sequence
from pathlib import Path

from noisyknn.errors import InputError, counted, first_ten, quoted


def resolve_paths(root: Path, paths: Sequence[str], where: str, option: str = "`images`") -> list[Path]:
    """The absolute paths of a table's files; `paths` are relative to the folder `root`, or absolute and inside it.

    Messages call the table and column `where`, and the setting of the folder `option`. Files need not exist, and links
    in the folder may lead anywhere. Raises InputError if `root` is not a folder, or paths leave it, naming the rows.
    """
    _check_folder(root, option)
    base = "/" + posixpath.normpath(root.absolute()).lstrip("/")  # POSIX distinguishes two leading slashes from one
    inside = tuple(f"{folder}/".replace("//", "/") for folder in (base, root.resolve()))
    resolved, outside = [], []
    for row, path in enumerate(paths, 1):
        # Normalised before the check: "link/.." would mean one folder here and another to the system.
        target = posixpath.normpath(posixpath.join(base, path))
        resolved.append(Path(target))
        if not f"{target}/".startswith(inside):
            outside.append(f"row {row}: {quoted(path)}")
    if outside:
        raise InputError(
            f"{where}: {counted(len(outside), 'path leads', 'paths lead')} out of the folder {root} "
            f"({first_ten(outside)}); set {option} to a folder that contains all images"
        )
    return resolved


def _check_folder(root: Path, option: str) -> None:
    try:
        if not root.is_dir():
            raise InputError(f"{option} {root}: {'not a folder' if root.exists() else 'no such folder'}; name another")
    except OSError as error:
        raise InputError(f"{option} {root} cannot be read: {str(error.strerror).lower()}") from error
