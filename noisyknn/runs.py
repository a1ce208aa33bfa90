"""The run directory: what a run keeps on disk and resumes from."""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import filelock
import platformdirs
import safetensors
import safetensors.torch
from torch import Tensor

from noisyknn.errors import MachineError, UsageError
from noisyknn.files import atomic_file, machine_error, write_json


def cached_run_dir(key: str) -> Path:
    """The folder in the user's cache for the run of that key."""
    return platformdirs.user_cache_path("noisyknn") / "runs" / key[:32]


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """A folder with the manifest, the history and the state of one run; made by `open_run`."""

    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What identifies the run, and its status: ``running`` or ``finished``."""
        return cast(dict[str, Any], json.loads((self.path / "manifest.json").read_text(encoding="utf-8")))

    def finish(self, results: Mapping[str, object]) -> None:
        """Mark the run as finished and keep its results in the manifest."""
        write_json(self.path / "manifest.json", self.manifest | {"status": "finished", "results": dict(results)})
        self._checkpoint.unlink(missing_ok=True)

    def save_episode(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of a finished episode; what was saved within it is no longer needed."""
        self._save(self.path / f"episode-{index:04d}.safetensors", tensors, {})
        self._checkpoint.unlink(missing_ok=True)

    def load_last_episode(self) -> tuple[int, dict[str, Tensor]] | None:
        """Index and tensors of the last finished episode, if there is one."""
        saved = sorted(self.path.glob("episode-*.safetensors"))
        return (int(saved[-1].stem[8:]), self._load(saved[-1])[0]) if saved else None

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        """Keep the state of an unfinished episode, in place of an earlier one."""
        self._save(self._checkpoint, state, {"episode": str(episode), "epochs_done": str(epochs_done)})

    def load(self, episode: int) -> tuple[int, dict[str, Tensor]] | None:
        """Number of epochs done and the state, if any was saved within this episode."""
        if not self._checkpoint.exists():
            return None
        state, metadata = self._load(self._checkpoint)
        return (int(metadata["epochs_done"]), state) if metadata["episode"] == str(episode) else None

    def load_history(self) -> list[dict[str, Any]]:
        """What `save_history` kept."""
        file = self.path / "history.json"
        return cast(list[dict[str, Any]], json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []

    def save_history(self, history: list[dict[str, Any]]) -> None:
        """Keep the history of all epochs and episodes so far."""
        write_json(self.path / "history.json", history)

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def _save(self, path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with atomic_file(path) as file:
            file.write(safetensors.torch.save(plain, metadata))

    def _load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise MachineError(f"{path} is damaged ({error}); --overwrite starts the run anew") from error


@contextlib.contextmanager
def open_run(path: Path, identity: Mapping[str, object], *, overwrite: bool) -> Iterator[RunDirectory]:
    """Open the run directory `path`, making it if need be, and hold its lock.

    An unfinished run of the same identity is there to be resumed. A finished one, or another run's, is refused with
    UsageError, or emptied where `overwrite` says so.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / "run.lock", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise MachineError(f"another noisyknn is working in {path}; wait for it, or use another --run-dir") from error
    except OSError as error:
        raise machine_error(path, error) from error
    try:
        _prepare(path, identity, overwrite)
        yield RunDirectory(path)
    finally:
        lock.release()


def _prepare(path: Path, identity: Mapping[str, object], overwrite: bool) -> None:
    manifest = path / "manifest.json"
    strangers = [item.name for item in path.iterdir() if not _OWN_FILE.fullmatch(item.name)]
    if strangers:
        raise UsageError(f"--run-dir {path} holds files of something else ({strangers[0]}); name a new or empty folder")
    found = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else None
    if found is not None:
        differing = [name for name, value in identity.items() if found.get(name) != json.loads(json.dumps(value))]
        if found["status"] == "running" and not differing:
            return
        if not overwrite:
            what = f"belongs to another run (it differs in {', '.join(differing)})" if differing else "is finished"
            raise UsageError(f"the run in {path} {what}; --overwrite starts it anew, another --run-dir leaves it be")
        for item in path.iterdir():
            if item.name != "run.lock":
                item.unlink()
    write_json(manifest, {**identity, "status": "running"})


_OWN_FILE = re.compile(
    r"run\.lock|manifest\.json|history\.json|images\.u8|(episode-\d+|checkpoint)\.safetensors|\..*\.part"
)


def remove_run(path: Path) -> None:
    """Remove a run directory of the cache."""
    shutil.rmtree(path, ignore_errors=True)
