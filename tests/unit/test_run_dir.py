import errno
import json
import os
from pathlib import Path
from typing import Any

import filelock
import pytest
import safetensors.torch
import torch

from noisyknn import run_dir
from noisyknn.errors import InputError, MachineError, UsageError
from noisyknn.run_dir import RunDirectory, cached_run_dir, open_run, refuse_inside

IDENTITY: dict[str, Any] = {"input": {"rows": 3}, "config": {"seed": 0, "drops": (60, 90)}, "key": "0123456789" * 5}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "run.lock")


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def enter(path: Path, *, overwrite: bool) -> None:
    with open_run(path, IDENTITY, overwrite=overwrite):
        pass


def begin(path: Path | None, **config: object) -> None:
    """Begin a run that saves an episode, a part of the next, and images."""
    with open_run(path, IDENTITY | {"config": IDENTITY["config"] | config}, overwrite=False) as run:
        run.save_episode(0, {"labels": torch.tensor([1, 2])})
        run.save(1, 5, {"x": torch.zeros(2)})
        run.save_history([{"episode": 0}])
        (run.path / "images.u8").write_bytes(b"pixels")


def test_a_new_run_has_a_manifest_of_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with open_run(path, IDENTITY, overwrite=False) as run:
        assert run.path == path
        assert run.load_last_episode() is None
        assert run.load(0) is None
        assert run.load_history() == []
        assert not run.has_episodes()
    assert names(path) == ["manifest.json"]
    assert manifest_of(path) == {
        "input": {"rows": 3},
        "config": {"seed": 0, "drops": [60, 90]},
        "key": IDENTITY["key"],
        "status": "running",
    }


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    labels, view = torch.tensor([3, -1, 2]), torch.arange(6.0).reshape(2, 3).t()
    with open_run(tmp_path, IDENTITY, overwrite=False) as run:
        for index in (0, 2, 10):
            run.save_episode(index, {"labels": labels + index, "view": view})
        last = run.load_last_episode()
    assert last is not None
    index, tensors = last
    assert index == 10
    assert tensors["labels"].tolist() == [13, 9, 12]
    assert tensors["labels"].dtype == torch.int64
    assert torch.equal(tensors["view"], view)


def test_a_checkpoint_is_of_its_episode_only_and_goes_with_its_end(tmp_path: Path) -> None:
    with open_run(tmp_path, IDENTITY, overwrite=False) as run:
        run.save(2, 5, {"x": torch.zeros(1)})
        run.save(2, 7, {"x": torch.ones(1)})
        found = run.load(2)
        assert found is not None
        assert found[0] == 7
        assert found[1]["x"].item() == 1
        assert run.load(1) is run.load(3) is None
        run.save_episode(2, {})
        assert run.load(2) is None


def test_an_unfinished_run_of_the_same_identity_goes_on(tmp_path: Path) -> None:
    begin(tmp_path)
    half_written = tmp_path / ".noisyknn-00ff.part"
    half_written.write_bytes(b"half")
    for overwrite in (False, True):
        with open_run(tmp_path, IDENTITY, overwrite=overwrite) as run:
            assert run.has_episodes()
            assert run.load(1) is not None
            assert run.load_history() == [{"episode": 0}]
            assert not half_written.exists()


def test_a_finished_run_keeps_its_episodes_and_results_but_no_work_files(tmp_path: Path) -> None:
    begin(tmp_path)
    with open_run(tmp_path, IDENTITY, overwrite=False) as run:
        run.finish({"recovery": 0.5})
        assert manifest_of(run.path)["status"] == "finished"
        assert manifest_of(run.path)["results"] == {"recovery": 0.5}
        assert manifest_of(run.path)["input"] == {"rows": 3}
    assert names(tmp_path) == ["episode-0000.safetensors", "history.json", "manifest.json"]


def test_a_finished_run_is_refused_or_emptied(tmp_path: Path) -> None:
    begin(tmp_path)
    with open_run(tmp_path, IDENTITY, overwrite=False) as run:
        run.finish({})
    before = names(tmp_path)
    with pytest.raises(UsageError, match="is finished; add `overwrite=True` to start anew"):
        enter(tmp_path, overwrite=False)
    assert names(tmp_path) == before
    with open_run(tmp_path, IDENTITY, overwrite=True) as run:
        assert names(tmp_path) == ["manifest.json"]
        assert manifest_of(run.path)["status"] == "running"


def test_another_run_is_refused_naming_what_differs_or_emptied(tmp_path: Path) -> None:
    begin(tmp_path, seed=1, lr=0.1)
    with pytest.raises(UsageError, match=r"another run \(lr was 0\.1, is None, seed was 1, is 0\); add `overwrite"):
        enter(tmp_path, overwrite=False)
    with open_run(tmp_path, IDENTITY, overwrite=True) as run:
        assert not run.has_episodes()
        assert manifest_of(run.path)["config"]["seed"] == 0


def test_only_one_process_works_in_a_run(tmp_path: Path) -> None:
    with (
        open_run(tmp_path, IDENTITY, overwrite=False),
        pytest.raises(MachineError, match=r"another noisyknn is running in .*; wait for it"),
    ):
        enter(tmp_path, overwrite=True)
    with filelock.FileLock(tmp_path / "run.lock", timeout=0):  # is free again
        pass


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"notes.txt": "x"}, "notes.txt"),
        ({"manifest.json": '{"name": "a web page"}', "history.json": "[]"}, "manifest.json"),
        ({"manifest.json": "[1]"}, "manifest.json"),
        ({"history.json": "[]"}, "history.json"),
        ({"episode-0000.safetensors": ""}, "episode-0000.safetensors"),
        ({"manifest.json": '{"status": "running"}', "a.png": "", "b.png": ""}, "a.png, b.png"),
        ({".hidden.part": ""}, ".hidden.part"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_as_it_is(
    tmp_path: Path, files: dict[str, str], named: str, overwrite: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf"contains files that are not of a run \({named}\); name a new `run_dir`"):
        enter(tmp_path, overwrite=overwrite)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is not a folder"):
        enter(tmp_path / "file", overwrite=True)
    with pytest.raises(MachineError, match="Not a directory; `run_dir` FOLDER keeps the run elsewhere"):
        enter(tmp_path / "file" / "run", overwrite=True)


@pytest.mark.parametrize("name", ["episode-0000.safetensors", "checkpoint.safetensors", "history.json"])
def test_what_is_damaged_is_named_and_without_it_the_run_goes_on(tmp_path: Path, name: str) -> None:
    begin(tmp_path)
    (tmp_path / name).write_bytes(b"\x00damaged")
    with open_run(tmp_path, IDENTITY, overwrite=False) as run:
        with pytest.raises(MachineError, match=rf"{name} is damaged .*; delete it and rerun; that part is recomputed"):
            load_all(run)
        (tmp_path / name).unlink()
        assert sum(bool(found) for found in load_all(run)) == 2


def load_all(run: RunDirectory) -> list[object]:
    return [run.load_last_episode(), run.load(1), run.load_history()]


@pytest.mark.parametrize("text", ['{"a": 1}', "3", "[" * 100_000])
def test_json_that_is_no_history_is_damaged(tmp_path: Path, text: str) -> None:
    begin(tmp_path)
    (tmp_path / "history.json").write_text(text)
    with (
        open_run(tmp_path, IDENTITY, overwrite=False) as run,
        pytest.raises(MachineError, match=r"history\.json is damaged .*; delete it and rerun"),
    ):
        run.load_history()


@pytest.mark.parametrize("name", ["episode-0000.safetensors", "checkpoint.safetensors"])
@pytest.mark.parametrize("foreign", [True, False])
def test_state_that_the_run_has_not_written_or_with_a_bit_changed_is_damaged(
    tmp_path: Path, name: str, foreign: bool
) -> None:
    begin(tmp_path)
    file = tmp_path / name
    if foreign:
        safetensors.torch.save_file({"labels": torch.tensor([1, 999])}, file, {"episode": "1", "epochs_done": "5"})
    else:
        raw = file.read_bytes()
        file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with (
        open_run(tmp_path, IDENTITY, overwrite=False) as run,
        pytest.raises(MachineError, match=rf"{name} is damaged \(its checksum is wrong\); delete it and rerun"),
    ):
        load_all(run)


def test_a_folder_whose_name_is_not_utf8_holds_a_run(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff")
    begin(folder)
    with open_run(folder, IDENTITY | {"input": {"rows": 3, "table": os.fsdecode(b"\xff")}}, overwrite=True) as run:
        run.save_episode(0, {"labels": torch.tensor([1])})
        run.save(1, 5, {"x": torch.zeros(2, dtype=torch.bfloat16)})
        run.save_history([{"episode": 0}])
        assert all(load_all(run))
        assert manifest_of(run.path)["input"]["table"] == os.fsdecode(b"\xff")


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(MachineError, match=r"manifest\.json is damaged .*; delete its folder and rerun"):
        enter(tmp_path, overwrite=True)
    assert "episode-0000.safetensors" in names(tmp_path)


def test_a_run_of_the_cache_lies_under_its_key_and_goes_when_finished(cache: Path) -> None:
    folder = cached_run_dir(IDENTITY["key"])
    assert folder == cache / "noisyknn" / "runs" / IDENTITY["key"][:32]
    begin(None)
    assert "episode-0000.safetensors" in names(folder)
    with open_run(None, IDENTITY, overwrite=False) as run:
        assert run.path == folder
        assert run.has_episodes()
        run.finish({})
    assert not folder.exists()


@pytest.mark.parametrize(
    ("error", "episodes", "kept"),
    [
        (InputError("no image"), 0, False),
        (InputError("no such type in Parquet"), 1, True),
        (KeyboardInterrupt(), 0, True),
        (MachineError("disk full"), 1, True),
    ],
)
def test_a_run_of_the_cache_that_fails_is_kept_if_it_is_worth_something(
    error: BaseException, episodes: int, kept: bool
) -> None:
    def fail() -> None:
        with open_run(None, IDENTITY, overwrite=False) as run:
            for index in range(episodes):
                run.save_episode(index, {})
            raise error

    with pytest.raises(type(error)):
        fail()
    assert cached_run_dir(IDENTITY["key"]).exists() is kept


def test_a_run_of_the_cache_that_cannot_begin_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="the disk is full"):
        begin(None)
    assert list((cache / "noisyknn" / "runs").iterdir()) == []


def test_outputs_in_a_run_directory_are_refused(tmp_path: Path, cache: Path) -> None:
    run, cached = tmp_path / "run", cached_run_dir(IDENTITY["key"])
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "link.csv").symlink_to(run / "x.csv")
    inside = [run / "x.csv", tmp_path / "link" / "x.csv", tmp_path / "link.csv", run / ".." / "run" / "x" / "y", run]
    for file in inside:
        with pytest.raises(UsageError, match=rf"`out` {file} lies in the run directory; write it elsewhere"):
            refuse_inside(run, {"`summary`": None, "`out`": file})
        refuse_inside(None, {"`out`": file})
    for file in (tmp_path / "x.csv", tmp_path / "run.csv", run / ".." / "x.csv"):
        refuse_inside(run, {"`out`": file})
    with pytest.raises(UsageError, match=r"`save_model` .* lies in the run directory"):
        refuse_inside(None, {"`save_model`": cached / "x"})
    refuse_inside(None, {"`save_model`": cache / "x"})


def test_a_named_run_is_never_removed(tmp_path: Path) -> None:
    def fail() -> None:
        with open_run(tmp_path, IDENTITY, overwrite=False):
            raise InputError("no image")

    with pytest.raises(InputError):
        fail()
    assert names(tmp_path) == ["manifest.json"]


def test_a_removal_that_is_cut_short_leaves_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path)
    unlink, gone = Path.unlink, list[str]()

    def die(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("episode"):
            raise KeyboardInterrupt
        gone.append(path.name)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            run_dir.remove(tmp_path)
    assert gone
    with open_run(tmp_path, IDENTITY, overwrite=False) as run:
        assert run.has_episodes()
