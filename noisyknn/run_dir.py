"""The run directory: the files that a run saves and resumes from."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import reprlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from noisyknn.errors import InputError, MachineError, UsageError, first_ten
from noisyknn.files import atomic_file, machine_error, write_json

_LOCK, _MANIFEST, _HISTORY, _CHECKPOINT = "run.lock", "manifest.json", "history.json", "checkpoint.safetensors"
_IMAGES = "images.u8"
_FIRST_FILE = re.compile(r"run\.lock|\.noisyknn-\w+\.part")
_OWN_FILE = re.compile(
    _FIRST_FILE.pattern + r"|manifest\.json|history\.json|images\.u8|(episode-\d+|checkpoint)\.safetensors"
)


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """A folder with the manifest, the history and the state of a run; `open_run` makes it."""

    path: Path
    temporary: bool
    """Whether to remove the run when it finishes."""

    def finish(self, results: Mapping[str, object]) -> None:
        """Remove a temporary run. Otherwise save `results`, mark the run as finished and delete its state."""
        if self.temporary:
            remove(self.path)
            return
        manifest = _read_json(self.path / _MANIFEST)
        write_json(self.path / _MANIFEST, manifest | {"status": "finished", "results": dict(results)})
        for name in (_CHECKPOINT, _IMAGES):
            (self.path / name).unlink(missing_ok=True)

    def save_episode(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Save the tensors of a finished episode and delete the checkpoint within it."""
        _save(self.path / f"episode-{index:04d}.safetensors", tensors, {})
        (self.path / _CHECKPOINT).unlink(missing_ok=True)

    def load_last_episode(self) -> tuple[int, dict[str, Tensor]] | None:
        """Index and tensors of the last finished episode, if any."""
        saved = self._episodes()
        return (int(saved[-1].stem[8:]), _load(saved[-1])[0]) if saved else None

    def has_episodes(self) -> bool:
        """Whether an episode is finished, so that removal would lose work."""
        return bool(self._episodes())

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        """Save the state of an unfinished episode over the previous one."""
        _save(self.path / _CHECKPOINT, state, {"episode": str(episode), "epochs_done": str(epochs_done)})

    def load(self, episode: int) -> tuple[int, dict[str, Tensor]] | None:
        """Number of finished epochs and the state, if this episode has a checkpoint."""
        if not (self.path / _CHECKPOINT).exists():
            return None
        state, metadata = _load(self.path / _CHECKPOINT)
        return (int(metadata["epochs_done"]), state) if metadata["episode"] == str(episode) else None

    def load_history(self) -> list[dict[str, Any]]:
        """The history that `save_history` saved; empty without one."""
        file = self.path / _HISTORY
        history = _read_json(file) if file.exists() else []
        if not isinstance(history, list):
            raise _damaged(file, "not a history")
        return history

    def save_history(self, history: list[dict[str, Any]]) -> None:
        """Save the history of all epochs and episodes so far."""
        write_json(self.path / _HISTORY, history)

    def _episodes(self) -> list[Path]:
        return sorted(self.path.glob("episode-*.safetensors"))


@contextlib.contextmanager
def open_run(path: Path | None, identity: Mapping[str, object], *, overwrite: bool) -> Iterator[RunDirectory]:
    """Open the run directory `path`, or make it, and hold its lock.

    An unfinished run with the same identity resumes. A finished or different run raises UsageError; `overwrite` empties
    it instead. Without a path, the run lies in the user's cache under the identity's ``key``, and is removed when it
    finishes, cannot start, or cannot use its input.
    """
    run = RunDirectory(path or cached_run_dir(str(identity["key"])), temporary=path is None)
    with _locked(run.path):
        try:
            _prepare(run.path, identity, overwrite)
            yield run
        except BaseException as error:
            unusable = isinstance(error, InputError) and not run.has_episodes()
            if run.temporary and (unusable or not (run.path / _MANIFEST).exists()):
                remove(run.path)
            raise


def cached_run_dir(key: str) -> Path:
    """The folder of the run with this key in the user's cache."""
    return cache() / key[:32]


def unfinished() -> tuple[int, int]:
    """Number and bytes of the runs in the user's cache; raises OSError if it cannot be read."""
    count = size = 0
    with contextlib.suppress(FileNotFoundError):  # no run yet
        for run in filter(os.DirEntry.is_dir, os.scandir(cache())):
            count += 1
            with contextlib.suppress(FileNotFoundError):  # an active run replaces its files, and ends
                size += sum(file.stat(follow_symlinks=False).st_size for file in os.scandir(run))
    return count, size


def refuse_inside(path: Path | None, outputs: Mapping[str, Path | None]) -> None:
    """Raise UsageError for outputs (option to path) inside the run directory `path`, or inside the cache without one.

    All files there belong to runs.
    """
    folder = os.path.realpath(path or cache())
    for option, file in outputs.items():
        if file is not None and Path(os.path.realpath(file)).is_relative_to(folder):
            raise UsageError(f"{option} {file} lies in the run directory; write it elsewhere")


def cache() -> Path:
    """The folder of runs without a directory of their own."""
    return platformdirs.user_cache_path("noisyknn") / "runs"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if missing; a folder with other files is refused and left alone."""
    try:
        if path.exists():
            _check_own(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / _LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise MachineError(f"another noisyknn is running in {path}; wait for it, or name another `run_dir`") from error
    except OSError as error:
        raise MachineError(f"{machine_error(path, error)}; `run_dir` FOLDER keeps the run elsewhere") from error
    try:
        yield
    finally:
        lock.release()


def _check_own(path: Path) -> None:
    """Raise UsageError if `path` is not a folder, or has files that no run wrote."""
    if not path.is_dir():
        raise UsageError(f"`run_dir` {path} is not a folder; name a new or empty one")
    names = {item.name for item in path.iterdir()}
    own = _OWN_FILE if _MANIFEST in names else _FIRST_FILE  # without a manifest, state belongs to no known run
    strangers = sorted(name for name in names if not own.fullmatch(name))
    if _MANIFEST in names and _read_manifest(path) is None:
        strangers.append(_MANIFEST)
    if strangers:
        raise UsageError(f"{path} contains files that are not of a run ({first_ten(strangers)}); name a new `run_dir`")


def _prepare(path: Path, identity: Mapping[str, object], overwrite: bool) -> None:
    for half_written in path.glob(".noisyknn-*.part"):
        half_written.unlink()
    if (found := _read_manifest(path)) is not None:
        differing = differences(path, identity)
        if found["status"] == "running" and not differing:
            return
        if not overwrite:
            what = f"belongs to another run ({first_ten(differing)})" if differing else "is finished"
            raise UsageError(f"the run in {path} {what}; add `overwrite=True` to start anew, or name another `run_dir`")
        _empty(path)
    write_json(path / _MANIFEST, {**identity, "status": "running"})


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Each setting that differs, with both values; the key is not compared, as it depends on the others."""
    told = []
    for name in sorted((found.keys() | wanted.keys()) - {"key", "status", "results"}):
        old, new = found.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            told += _differences(old, new)
        elif old != new:
            told.append(f"{name} was {reprlib.repr(old)}, is {reprlib.repr(new)}")
    return told


def _empty(path: Path) -> None:
    """Remove all files of a run but the lock, newest state first and the manifest last."""
    for item in sorted(path.iterdir(), reverse=True):
        if item.name not in (_LOCK, _MANIFEST):
            item.unlink()
    (path / _MANIFEST).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove the folder of a run; after an interruption, the rest can still be resumed."""
    with contextlib.suppress(FileNotFoundError):  # an earlier removal may have stopped at its end
        _empty(path)
    shutil.rmtree(path, ignore_errors=True)


def differences(path: Path, identity: Mapping[str, object]) -> list[str]:
    """Differences between the run in a folder and `identity`; empty without a run."""
    found = _read_manifest(path)
    return _differences(found, json.loads(json.dumps(identity))) if found else []


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a folder; None without a valid one."""
    found = _read_json(path / _MANIFEST) if (path / _MANIFEST).exists() else None
    return found if isinstance(found, dict) and found.get("status") in ("running", "finished") else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(plain, metadata | {"checksum": _checksum(plain)}))


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        raw = path.read_bytes()  # safetensors cannot open a file whose name is not UTF-8
        tensors = safetensors.torch.load(raw)
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    if metadata.get("checksum") != _checksum(tensors):
        raise _damaged(path, "its checksum is wrong")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _damaged(path: Path, reason: object) -> MachineError:
    what = "its folder" if path.name == _MANIFEST else "it"
    return MachineError(f"{path} is damaged ({reason}); delete {what} and rerun; that part is recomputed")
