"""Files that appear whole or not at all."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from noisyknn.errors import MachineError, UsageError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` only when the block ends well; else nothing is left behind.

    Where `path` is a link, the file that it points to is replaced. Raises MachineError where the folder is missing or
    cannot be written, the disk is full, or `path` is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".noisyknn-{secrets.token_hex(8)}.part"
    try:
        if target.exists() and not target.is_file():
            raise MachineError(f"{path} is not an ordinary file, so it cannot be replaced; name another")
        with temporary.open("xb") as file:  # a file of tempfile's would be closed to all but its owner
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise machine_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # gone after the replacement; any trouble is told already
            temporary.unlink()


def machine_error(path: Path, error: OSError) -> MachineError:
    """`error`, met when writing `path`, in words."""
    cures = {
        errno.ENOSPC: "the disk is full; free some space or write elsewhere",
        errno.ENOENT: "its folder does not exist; make it first",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "that disk is read-only",
    }
    return MachineError(f"{path} cannot be written: {cures.get(error.errno or 0, error.strerror or str(error))}")


def check_writable(path: Path) -> None:
    """Raise MachineError where a file of that name cannot be made, as far as can be told before writing it."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise machine_error(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise machine_error(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None], *, overwrite: bool) -> None:
    """Refuse, before any work, what writing an output (option to path) would destroy, and what cannot be written.

    Raises UsageError for an input, another output, what is no regular file and, without `overwrite`, what exists;
    MachineError where the folder cannot be written. None is left alone.
    """
    seen: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise UsageError(f"{other} and {option} are the same file, {path}")
        if path.exists():
            if not path.is_file():
                raise UsageError(f"{option} {path} is not a regular file; name a file (or - for standard output)")
            if any(read is not None and _same_file(read, path) for read in inputs):
                raise UsageError(f"{option} {path} is also an input; inputs are never modified, write to another file")
            if not overwrite:
                raise UsageError(f"{option} {path} exists already; add --overwrite to replace it")
        check_writable(path)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # what is missing, or has a name that no file can have, is not the same
        return False


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, whole or not at all."""
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
