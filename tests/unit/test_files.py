import errno
import io
import json
import os
import stat
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from noisyknn.errors import MachineError, UsageError
from noisyknn.files import as_path, atomic_file, check_outputs, takes_bytes, write_json

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def write(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)


def write_half(path: Path, error: BaseException) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
        raise error


def write_to_full_disk(path: Path) -> None:
    with atomic_file(path) as file, Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), file.fileno())
        file.write(b"new")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_with_its_content_and_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "out.csv", b"path,label\n")
    assert (tmp_path / "out.csv").read_bytes() == b"path,label\n"
    assert names(tmp_path) == ["out.csv"]


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        with atomic_file(path) as file:
            file.write(b"new and longer")
            file.flush()
            assert path.read_bytes() == b"old"
        assert path.read_bytes() == b"new and longer"
        assert reader.read() == b"old"  # who has it open goes on reading the old file whole
    assert names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), MachineError("y")])
def test_an_error_in_the_block_passes_and_leaves_all_as_it_was(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "old.csv").write_bytes(b"old")
    for name in ("old.csv", "new.csv"):
        with pytest.raises(type(error)) as caught:
            write_half(tmp_path / name, error)
        assert caught.value is error
    assert names(tmp_path) == ["old.csv"]
    assert (tmp_path / "old.csv").read_bytes() == b"old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_is_that_of_any_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "out.csv", b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == mode


def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "out.csv").write_bytes(b"old")
    with pytest.raises(MachineError, match=r"out\.csv cannot be written: the disk is full; free some space"):
        write(tmp_path / "out.csv", b"new")
    assert names(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_bytes() == b"old"


def test_a_disk_that_is_full_at_the_last_flush_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the disk is full"):
        write_to_full_disk(tmp_path / "out.csv")
    assert names(tmp_path) == []


def test_a_missing_folder_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="its folder does not exist; create it first"):
        write(tmp_path / "none" / "out.csv", b"")
    assert names(tmp_path) == []


def test_a_file_for_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError, match=r"out\.csv cannot be written: Not a directory"):
        write(tmp_path / "file" / "out.csv", b"")


@needs_permissions
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(MachineError, match="no permission to write there"):
        write(tmp_path / "out.csv", b"")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, "no permission to write there"), (errno.EROFS, "the disk is read-only")]
)
def test_what_the_system_refuses_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MachineError, match=rf"out\.csv cannot be written: {words}"):
        write(tmp_path / "out.csv", b"")
    assert names(tmp_path) == []


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(MachineError, match=r"out\.csv is not a regular file"):
        write(tmp_path / "out.csv", b"")
    assert (tmp_path / "out.csv").is_dir()
    assert names(tmp_path) == ["out.csv"]


def test_what_is_no_file_is_never_replaced_not_even_through_a_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # a device would do as well, but a test that fails must not cost the machine one
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(MachineError, match=f"{name} is not a regular file"):
            write(tmp_path / name, b"")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["link", "pipe"]


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "real.csv"
    target.write_bytes(b"old")
    link = tmp_path / "out.csv"
    link.symlink_to(Path("data") / "real.csv")
    write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "data") == ["real.csv"]


def test_a_link_to_nothing_makes_the_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "out.csv").symlink_to("real.csv")
    write(tmp_path / "out.csv", b"new")
    assert (tmp_path / "real.csv").read_bytes() == b"new"
    assert (tmp_path / "out.csv").is_symlink()


def test_the_longest_name_that_the_system_takes_is_taken(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    write(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("out.csv"), b"new")
    assert names(tmp_path) == ["out.csv"]


def test_writers_at_the_same_time_leave_one_of_their_files_whole(tmp_path: Path) -> None:
    contents = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write, args=(tmp_path / "out.bin", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "out.bin").read_bytes() in contents
    assert names(tmp_path) == ["out.bin"]


def test_json_holds_names_of_any_encoding(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    write_json(tmp_path / "x.json", {"table": name})
    assert (tmp_path / "x.json").read_bytes().isascii()
    assert json.loads((tmp_path / "x.json").read_text()) == {"table": name}


def test_an_output_that_no_file_can_be_is_told_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "link.csv").symlink_to("x" * 300)
    (tmp_path / "file").touch()
    for name, reason in {
        "loop.csv": "Too many levels of symbolic links",
        "loop.csv/x.csv": "Too many levels of symbolic links",
        "link.csv": "File name too long",
        "x" * 300: "File name too long",
        "file/x.csv": "Not a directory",
    }.items():
        for overwrite in (False, True):
            with pytest.raises(MachineError, match=rf"^`out` {tmp_path / name} cannot be written: {reason}"):
                check_outputs({"`out`": tmp_path / name}, [], overwrite=overwrite)
    with pytest.raises(UsageError, match=r"none/x\.csv cannot be written: its folder does not exist; create it first"):
        check_outputs({"`out`": tmp_path / "none" / "x.csv"}, [], overwrite=False)


def test_a_path_is_what_a_file_can_be_called(tmp_path: Path) -> None:
    assert as_path("`out`", "a/b.csv") == as_path("`out`", Path("a/b.csv")) == Path("a/b.csv")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("", "loop", "loop/x", "none/x", os.fsdecode(b"\xff"), "x" * 255):
        assert as_path("`out`", str(tmp_path / name)) == tmp_path / name
    for name in ("a\0b", "\ud800", "x" * 256, "x/" * 4000):
        with pytest.raises(UsageError, match=r"^`out` .*(is not a valid file name|is too long for a file name)"):
            as_path("`out`", tmp_path / name)


@pytest.mark.parametrize("value", [None, 5, b"out.csv", [Path("x")], io.StringIO()])
def test_what_is_no_path(value: object) -> None:
    with pytest.raises(UsageError, match=f"`images` takes a path, not {type(value).__name__}"):
        as_path("`images`", value)


def closed(stream: IO[Any]) -> IO[Any]:
    stream.close()
    return stream


def test_streams_that_take_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as buffered, path.open("wb", buffering=0) as raw, path.open("r+b") as both:
        assert all(map(takes_bytes, (buffered, raw, both, io.BytesIO(), sys.__stdout__.buffer)))  # type: ignore[union-attr]
    reading = os.open(path, os.O_RDONLY)
    with path.open("rb") as reader, path.open("w") as text, os.fdopen(reading, "wb") as unwritable:
        for stream in (reader, text, unwritable, io.StringIO(), closed(io.BytesIO()), closed(path.open("wb")), 5, None):
            assert not takes_bytes(stream)
    assert path.read_bytes() == b""
