"""The run directory: what a run keeps on disk and resumes from."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import reprlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import filelock
import platformdirs
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from noisyknn.errors import InputError, MachineError, UsageError, first_ten
from noisyknn.files import atomic_file, machine_error, write_json


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """A folder with the manifest, the history and the state of one run; made by `open_run`."""

    path: Path
    key: str
    """What tells its state from that of other runs."""
    temporary: bool
    """Whether it goes when the run is finished."""

    @property
    def manifest(self) -> dict[str, Any]:
        """What identifies the run, and its status: ``running`` or ``finished``."""
        return cast(dict[str, Any], _read_json(self.path / _MANIFEST))

    def finish(self, results: Mapping[str, object]) -> None:
        """Remove a temporary run; else keep its results in the manifest, mark it as finished, and free its space."""
        if self.temporary:
            self.remove()
            return
        write_json(self.path / _MANIFEST, self.manifest | {"status": "finished", "results": dict(results)})
        for name in (_CHECKPOINT, "images.u8"):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, as `remove` does."""
        remove(self.path)

    def save_episode(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of a finished episode; what was saved within it is no longer needed."""
        self._save(self.path / f"episode-{index:04d}.safetensors", tensors, {})
        (self.path / _CHECKPOINT).unlink(missing_ok=True)

    def load_last_episode(self) -> tuple[int, dict[str, Tensor]] | None:
        """Index and tensors of the last finished episode, if there is one."""
        saved = self._episodes()
        return (int(saved[-1].stem[8:]), self._load(saved[-1])[0]) if saved else None

    def has_episodes(self) -> bool:
        """Whether an episode was finished, so that there is work to lose."""
        return bool(self._episodes())

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        """Keep the state of an unfinished episode, in place of an earlier one."""
        self._save(self.path / _CHECKPOINT, state, {"episode": str(episode), "epochs_done": str(epochs_done)})

    def load(self, episode: int) -> tuple[int, dict[str, Tensor]] | None:
        """Number of epochs done and the state, if any was saved within this episode."""
        if not (self.path / _CHECKPOINT).exists():
            return None
        state, metadata = self._load(self.path / _CHECKPOINT)
        return (int(metadata["epochs_done"]), state) if metadata["episode"] == str(episode) else None

    def load_history(self) -> list[dict[str, Any]]:
        """What `save_history` kept."""
        file = self.path / _HISTORY
        history = _read_json(file) if file.exists() else []
        if not _is_history(history):
            raise _damaged(file, "not a history")
        return cast(list[dict[str, Any]], history)

    def save_history(self, history: list[dict[str, Any]]) -> None:
        """Keep the history of all epochs and episodes so far."""
        write_json(self.path / _HISTORY, history)

    def _episodes(self) -> list[Path]:
        return sorted(self.path.glob("episode-*.safetensors"))

    def _save(self, path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        sealed = metadata | {_SEAL: self._seal(path.name, plain, metadata)}
        with atomic_file(path) as file:
            file.write(safetensors.torch.save(plain, sealed))

    def _load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        try:
            raw = path.read_bytes()  # safetensors itself opens no file whose name is not UTF-8
            tensors = safetensors.torch.load(raw)
        except (OSError, safetensors.SafetensorError) as error:
            raise _damaged(path, error) from error
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        metadata: dict[str, str] = header.get("__metadata__", {})
        if metadata.pop(_SEAL, None) != self._seal(path.name, tensors, metadata):
            raise _damaged(path, "not what this run has written")
        return tensors, metadata

    def _seal(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
        """A digest of a file's content, its name and the run: nothing else is taken for this run's state."""
        about = [(key, str(tensor.dtype), tensor.shape) for key, tensor in sorted(tensors.items())]
        digest = hashlib.blake2b(json.dumps([self.key, name, sorted(metadata.items()), about]).encode())
        for key in sorted(tensors):
            digest.update(tensors[key].reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


@contextlib.contextmanager
def open_run(path: Path | None, identity: Mapping[str, object], *, overwrite: bool) -> Iterator[RunDirectory]:
    """Open the run directory `path`, making it if need be, and hold its lock.

    An unfinished run of the same identity is there to be resumed. A finished one, or another run's, is refused with
    UsageError, or emptied where `overwrite` says so. Without a path it is a folder of the user's cache, chosen by the
    identity's ``key``, that goes when the run is finished, when it cannot begin, or when its input proves unusable.
    """
    key = str(identity["key"])
    run = RunDirectory(path or cached_run_dir(key), key, temporary=path is None)
    with _locked(run.path):
        try:
            _prepare(run.path, identity, overwrite)
            yield run
        except BaseException as error:
            unusable = isinstance(error, InputError) and not run.has_episodes()
            if run.temporary and (unusable or not (run.path / _MANIFEST).exists()):
                run.remove()
            raise


def cached_run_dir(key: str) -> Path:
    """The folder in the user's cache for the run of that key."""
    return cache() / key[:32]


def unfinished() -> tuple[int, int]:
    """How many runs the user's cache keeps, and their bytes; raises OSError where that cannot be read."""
    count = size = 0
    with contextlib.suppress(FileNotFoundError):  # there was no run yet
        for run in filter(os.DirEntry.is_dir, os.scandir(cache())):
            count += 1
            with contextlib.suppress(FileNotFoundError):  # a run that goes on meanwhile replaces its files, and ends
                size += sum(file.stat(follow_symlinks=False).st_size for file in os.scandir(run))
    return count, size


def refuse_inside(path: Path | None, outputs: Mapping[str, Path | None]) -> None:
    """Raise UsageError for outputs (option to path) that lie in the run directory `path`, where the run owns all files.

    Without a path, in that of any run in the user's cache.
    """
    folder = os.path.realpath(path or cache())
    for option, file in outputs.items():
        if file is not None and Path(os.path.realpath(file)).is_relative_to(folder):
            raise UsageError(f"{option} {file} lies in the run directory; write it elsewhere")


def cache() -> Path:
    """Where runs lie that have no directory of their own."""
    return platformdirs.user_cache_path("noisyknn") / "runs"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be; a folder of something else is refused untouched."""
    try:
        if path.exists():
            _check_own(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / _LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise MachineError(f"another noisyknn is working in {path}; wait for it, or use another --run-dir") from error
    except OSError as error:
        raise MachineError(f"{machine_error(path, error)}; --run-dir FOLDER keeps the run elsewhere") from error
    try:
        yield
    finally:
        lock.release()


def _check_own(path: Path) -> None:
    """Raise UsageError where `path` is no folder, or holds what no run has written."""
    if not path.is_dir():
        raise UsageError(f"--run-dir {path} is not a folder; name a new or empty one")
    names = {item.name for item in path.iterdir()}
    own = _OWN_FILE if _MANIFEST in names else _FIRST_FILE  # without its manifest, nobody knows whose state that is
    strangers = sorted(name for name in names if not own.fullmatch(name))
    if _MANIFEST in names and _status(_read_json(path / _MANIFEST)) is None:
        strangers.append(_MANIFEST)
    if strangers:
        raise UsageError(f"{path} holds files of something else ({first_ten(strangers)}); name a new --run-dir")


def _prepare(path: Path, identity: Mapping[str, object], overwrite: bool) -> None:
    for half_written in path.glob(".noisyknn-*.part"):
        half_written.unlink()
    manifest = path / _MANIFEST
    if manifest.exists():
        found = _read_json(manifest)
        differing = _differences(found, json.loads(json.dumps(identity)))
        if _status(found) == "running" and not differing:
            return
        if not overwrite:
            what = f"belongs to another run ({first_ten(differing)})" if differing else "is finished"
            raise UsageError(f"the run in {path} {what}; --overwrite starts it anew, another --run-dir leaves it be")
        _empty(path)
    write_json(manifest, {**identity, "status": "running"})


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Each setting that is not alike, with both values; the key follows from the others."""
    told = []
    for name in sorted((found.keys() | wanted.keys()) - {"key", "status", "results"}):
        old, new = found.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            told += _differences(old, new)
        elif old != new:
            told.append(f"{name} was {reprlib.repr(old)}, is {reprlib.repr(new)}")
    return told


def _empty(path: Path) -> None:
    """Remove a run's files but the lock, newest state first and the manifest last."""
    for item in sorted(path.iterdir(), reverse=True):
        if item.name not in (_LOCK, _MANIFEST):
            item.unlink()
    (path / _MANIFEST).unlink(missing_ok=True)


def is_run(path: Path) -> bool:
    """Whether `path` is the folder of a run, with nothing else in it."""
    try:
        _check_own(path)
    except UsageError:
        return False
    return not path.is_symlink()


def results(path: Path) -> dict[str, Any] | None:
    """What the finished run in a folder came to; None where there is no such run."""
    found = _read_manifest(path)
    return cast(dict[str, Any] | None, found.get("results")) if found and found["status"] == "finished" else None


def differences(path: Path, identity: Mapping[str, object]) -> list[str]:
    """In what the run in a folder is another one than that of `identity`; nothing where there is no run."""
    found = _read_manifest(path)
    return _differences(found, json.loads(json.dumps(identity))) if found else []


def remove(path: Path) -> None:
    """Remove the folder of a run; killed on the way, what is left is still a run that can be resumed."""
    with contextlib.suppress(FileNotFoundError):  # removed already, when a removal was interrupted at its end
        _empty(path)
    shutil.rmtree(path, ignore_errors=True)


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a folder, None where that is not one of a run."""
    found = _read_json(path / _MANIFEST) if (path / _MANIFEST).exists() else None
    return None if _status(found) is None else cast(dict[str, Any], found)


def _status(manifest: object) -> str | None:
    """The status of a run, None where `manifest` is not that of a run."""
    status = manifest.get("status") if isinstance(manifest, dict) else None
    return status if status in ("running", "finished") else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _is_history(value: object) -> bool:
    """Whether that is a list of entries, each of finite numbers, of which one is its episode."""
    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and "episode" in entry
        and all(isinstance(figure, int | float) and math.isfinite(figure) for figure in entry.values())
        for entry in value
    )


def _damaged(path: Path, reason: object) -> MachineError:
    what = "folder" if path.name == _MANIFEST else "file"
    return MachineError(
        f"{path} is damaged ({reason}); remove that {what}, and the same command does what was in it again"
    )


_SEAL = "seal"
_LOCK, _MANIFEST, _HISTORY, _CHECKPOINT = "run.lock", "manifest.json", "history.json", "checkpoint.safetensors"
_FIRST_FILE = re.compile(r"run\.lock|\.noisyknn-\w+\.part")
_OWN_FILE = re.compile(
    _FIRST_FILE.pattern + r"|manifest\.json|history\.json|images\.u8|(episode-\d+|checkpoint)\.safetensors"
)
