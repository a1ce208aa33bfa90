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
    """A binary file that gets the name `path` when the block succeeds, and vanishes when it fails.

    If `path` is a link, its target is replaced. Raises MachineError if the folder is missing or not writable, the disk
    is full, or `path` is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".noisyknn-{secrets.token_hex(8)}.part"
    try:
        if target.exists() and not target.is_file():
            raise MachineError(f"{path} is not a regular file and cannot be replaced; name another")
        with temporary.open("xb") as file:  # tempfile would let only the owner read it
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise machine_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # renamed by now, or the error is already raised
            temporary.unlink()


def make_folder(option: str, path: Path) -> None:
    """Make the folder `path` if it is missing; raises UsageError for a file, MachineError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{option} {path} is not a folder; name a new one") from error
    except OSError as error:
        raise machine_error(f"{option} {path}", error) from error


def machine_error(what: object, error: OSError) -> MachineError:
    """The MachineError for an `error` while writing the file `what`."""
    cures = {
        errno.ENOSPC: "the disk is full; free some space or write elsewhere",
        errno.ENOENT: "its folder does not exist; create it first",
        errno.EACCES: "no permission to write there; choose another folder",
        errno.EPERM: "no permission to write there; choose another folder",
        errno.EROFS: "the disk is read-only; choose another folder",
    }
    return MachineError(f"{what} cannot be written: {cures.get(error.errno or 0, error.strerror or str(error))}")


def as_path(option: str, value: object) -> Path:
    """The value of `option` as a path; raises UsageError for a name that no file can have."""
    try:
        path = Path(value)  # type: ignore[arg-type]  # TypeError if not a path
        path.lstat()
    except TypeError as error:
        raise UsageError(f"{option} takes a path, not {type(value).__name__}") from error
    except ValueError as error:
        raise UsageError(f"{option} {str(value)!r} is not a valid file name ({error}); name another") from error
    except OSError as error:  # all others are reported when the file is used
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{option} {path} is too long for a file name; shorten it") from error
    return path


def takes_bytes(stream: Any) -> bool:
    """Whether `stream` is a writable binary stream, as far as writing nothing can show."""
    try:
        getattr(stream, "raw", stream).write(b"")  # a buffer would hide an error of the system
    except (AttributeError, TypeError, ValueError, OSError):  # not a stream, of text, closed, or read-only
        return False
    return True


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None], *, overwrite: bool) -> None:
    """Check, before any work, that outputs (option to path, or None) can be written and destroy nothing.

    Raises UsageError for an output that is also an input, another output, not a regular file, in a missing folder or,
    without `overwrite`, already there; MachineError for one that cannot be written.
    """
    seen: dict[str, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        other = seen.setdefault(os.path.realpath(path), option)
        if other != option:
            raise UsageError(f"{other} and {option} are the same file, {path}; name two")
        try:
            _check_output(option, path, inputs, overwrite)
        except OSError as error:
            raise machine_error(f"{option} {path}", error) from error


def _check_output(option: str, path: Path, inputs: Iterable[Path | None], overwrite: bool) -> None:
    """`check_outputs` for one output; raises OSError if it cannot be written."""
    if path.exists():
        if not path.is_file():
            raise UsageError(f"{option} {path} is not a regular file; name a file (or - for standard output)")
        if any(read is not None and _same_file(read, path) for read in inputs):
            raise UsageError(f"{option} {path} is also an input, which noisyknn never modifies; name another file")
        if not overwrite:
            raise UsageError(f"{option} {path} exists already; add `overwrite=True` to replace it")
    with contextlib.suppress(FileNotFoundError):
        path.stat()  # raises what `exists` hides, such as a loop of links
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise UsageError(f"{option} {path} cannot be written: its folder does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # missing, or an impossible name
        return False


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, whole or not at all; in ASCII, which can hold file names of any encoding."""
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
