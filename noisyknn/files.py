"""Files that appear whole or not at all."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

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


def make_folder(option: str, path: Path) -> None:
    """Make the folder `path` unless it is there; raises UsageError for a file, MachineError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{option} {path} is not a folder, or lies in a file; name a new one") from error
    except OSError as error:
        raise machine_error(f"{option} {path}", error) from error


def machine_error(what: object, error: OSError) -> MachineError:
    """`error`, met when writing the file `what`, in words."""
    cures = {
        errno.ENOSPC: "the disk is full; free some space or write elsewhere",
        errno.ENOENT: "its folder does not exist; make it first",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "that disk is read-only",
    }
    return MachineError(f"{what} cannot be written: {cures.get(error.errno or 0, error.strerror or str(error))}")


def as_path(option: str, value: object) -> Path:
    """What was given for `option` as a path; raises UsageError for what no file can be called."""
    try:
        path = Path(value)  # type: ignore[arg-type]  # the very question
        path.lstat()
    except TypeError as error:
        raise UsageError(f"{option} takes a path, not {type(value).__name__}") from error
    except ValueError as error:
        raise UsageError(f"{option} {str(value)!r} is no name that a file can have ({error})") from error
    except OSError as error:  # any other than this one is met again, and told, where the file is used
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{option} {path} is longer than the name of a file can be") from error
    return path


def takes_bytes(stream: Any) -> bool:
    """Whether `stream` is a binary stream that can be written to, as far as can be told without writing."""
    try:
        getattr(stream, "raw", stream).write(b"")  # a buffer would keep what the system refuses to itself
    except (AttributeError, TypeError, ValueError, OSError):  # no stream, of text, closed, open for reading only
        return False
    return True


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None], *, overwrite: bool) -> None:
    """Refuse, before any work, what writing an output (option to path) would destroy, and what cannot be written.

    Raises UsageError for an input, another output, what is no regular file or in no folder and, without `overwrite`,
    what exists; MachineError where it cannot be written. None is left alone.
    """
    seen: dict[str, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        other = seen.setdefault(os.path.realpath(path), option)
        if other != option:
            raise UsageError(f"{other} and {option} are the same file, {path}")
        try:
            _check_output(option, path, inputs, overwrite)
        except OSError as error:
            raise machine_error(f"{option} {path}", error) from error


def _check_output(option: str, path: Path, inputs: Iterable[Path | None], overwrite: bool) -> None:
    """`check_outputs` of one; raises OSError where it cannot be written."""
    if path.exists():
        if not path.is_file():
            raise UsageError(f"{option} {path} is not a regular file; name a file (or - for standard output)")
        if any(read is not None and _same_file(read, path) for read in inputs):
            raise UsageError(f"{option} {path} is also an input; inputs are never modified, write to another file")
        if not overwrite:
            raise UsageError(f"{option} {path} exists already; add `overwrite=True` to replace it")
    with contextlib.suppress(FileNotFoundError):
        path.stat()  # tells what `exists` takes for a missing file, such as links that go round in a circle
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise UsageError(f"{option} {path} cannot be written: its folder does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # what is missing, or has a name that no file can have, is not the same
        return False


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON in ASCII, which holds file names of any encoding, whole or not at all."""
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
