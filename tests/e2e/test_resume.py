"""A run that was stopped at any moment, started again, ends as an undisturbed one: byte for byte."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import noisyknn
from tests.small_data import FAST_SETTINGS, as_options, contents, draw

SETTINGS: dict[str, Any] = {**FAST_SETTINGS, "epochs": 10, "episodes": 3, "folds": 2}

DIES = """
import os, signal, sys
from noisyknn.run_dir import RunDirectory
from noisyknn.cli import main
from noisyknn.training import trainer

owner = {"RunDirectory": RunDirectory, "os": os}[sys.argv.pop(1)]
name, count = sys.argv.pop(1), int(sys.argv.pop(1))
original, calls = getattr(owner, name), 0

def dying(*arguments):
    global calls
    calls += 1
    if calls == count and name == "fsync":
        os.kill(os.getpid(), signal.SIGKILL)
    original(*arguments)
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, dying)
trainer.SECONDS_BETWEEN_CHECKPOINTS = 0
main()
"""
"""Takes a function and a number, and dies of SIGKILL when that call of it returns (or, of fsync, begins)."""

SLOW = """
import signal
import time
from noisyknn.run_dir import RunDirectory
from noisyknn.cli import main
from noisyknn.training import trainer

save = RunDirectory.save

def slow(*arguments):
    save(*arguments)
    time.sleep(0.1)

RunDirectory.save = slow
trainer.SECONDS_BETWEEN_CHECKPOINTS = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have told its background jobs to ignore
main()
"""
"""Keeps every epoch, and sleeps after each, so that there is time to be stopped."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    table = draw(folder / "images")
    table.to_csv(folder / "labels.csv", index=False)
    table.to_parquet(folder / "labels.parquet", index=False)
    (folder / "out").mkdir()
    return folder


@pytest.fixture
def start(data: Path) -> Start:
    """Begins to clean `data` in a process of its own that runs one of the scripts above."""

    def begin(
        script: str, *arguments: object, out: Path, run_dir: Path | None = None, method: str = "crossfit"
    ) -> "subprocess.Popen[str]":
        labels = data / f"labels{out.suffix}"
        options = ["clean", "--images", data / "images", "--labels", labels, "--out", out, *as_options(SETTINGS)]
        options += ["--method", method]
        options += [] if run_dir is None else ["--run-dir", run_dir]
        command = [sys.executable, "-c", script, *map(str, [*arguments, *options])]
        threads = str(torch.get_num_threads())  # more or fewer of them would round sums otherwise
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    return begin


class Watcher:
    """An observer that remembers the episodes that were gone through, and at which image the first one began."""

    def __init__(self) -> None:
        self.episodes: list[str] = []
        self.first_image: int | None = None
        self.resumed = False
        self._stage = ""

    def note(self, message: str) -> None:
        if message.startswith("episode"):
            self.episodes.append(message[:9])
        self.resumed |= message.startswith("resuming ")

    def start(self, stage: str, total: int, unit: str) -> None:  # noqa: ARG002
        self._stage = stage

    def advance(self, done: int) -> None:
        if self._stage.startswith("episode") and self.first_image is None:
            self.first_image = done


def clean(data: Path, out: Path, run_dir: Path | None = None, method: str = "crossfit") -> Watcher:
    """The same command as a call."""
    watcher = Watcher()
    labels = data / f"labels{out.suffix}"
    noisyknn.clean(data / "images", labels, out=out, run_dir=run_dir, observer=watcher, method=method, **SETTINGS)
    return watcher


@pytest.mark.parametrize(
    ("method", "moment", "suffix", "episodes", "images_done"),
    [
        ("crossfit", ("RunDirectory", "save", 7), ".csv", ["episode 1", "episode 2", "episode 3"], 7 * 24),
        ("crossfit", ("RunDirectory", "save_episode", 1), ".parquet", ["episode 2", "episode 3"], 0),
        ("crossfit", ("os", "fsync", 95), ".csv", ["episode 3"], 5 * 24),
        ("selknn", ("os", "fsync", 55), ".csv", ["episode 3"], 5 * 48),
    ],
    ids=[
        "within the first episode",
        "between two episodes",
        "while state of the last episode is written",
        "while state of the last episode of selknn is written",
    ],
)
def test_killed_and_started_again(
    data: Path,
    start: Start,
    cache: Path,
    method: str,
    moment: tuple[object, ...],
    suffix: str,
    episodes: list[str],
    images_done: int,
) -> None:
    out, undisturbed = data / "out" / f"fixed{suffix}", data / f"undisturbed{suffix}"
    before = contents(data)
    with start(DIES, *moment, out=out, method=method) as process:
        assert process.wait() == -signal.SIGKILL
    assert contents(data) == before
    assert contents(cache) != {}
    watcher = clean(data, out, method=method)
    assert (watcher.episodes, watcher.first_image, watcher.resumed) == (episodes, images_done, True)
    assert contents(cache) == {}
    assert len(clean(data, undisturbed, method=method).episodes) == 3
    assert out.read_bytes() == undisturbed.read_bytes()


@pytest.mark.parametrize(("number", "in_cache"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_interrupted_and_started_again(data: Path, start: Start, cache: Path, number: int, in_cache: bool) -> None:
    out, run_dir = data / "out" / "fixed.csv", None if in_cache else data / "run"
    with start(SLOW, out=out, run_dir=run_dir) as process:
        state = wait_for(run_dir or cache, "checkpoint.safetensors", process)
        process.send_signal(number)
        _, told = process.communicate()
    assert process.returncode == 130
    assert told.endswith(f"noisyknn: interrupted; run the same command again to resume from {state}\n")
    assert "Traceback" not in told
    assert contents(data / "out") == {}
    assert state.is_dir()
    watcher = clean(data, out, run_dir)
    assert len(watcher.episodes) == 3
    assert watcher.first_image
    assert state.exists() is not in_cache
    clean(data, data / "undisturbed.csv")
    assert out.read_bytes() == (data / "undisturbed.csv").read_bytes()


def wait_for(folder: Path, name: str, process: "subprocess.Popen[str]") -> Path:
    """The folder in which a file of that name has appeared."""
    while process.poll() is None:
        for path in folder.rglob(name):
            return path.parent
        time.sleep(0.01)
    raise AssertionError(f"ended before there was a {name}: {process.communicate()}")
