import errno
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Cli
from tests.small_data import contents

Refused = Callable[..., str]


@pytest.fixture
def refused(clean: Cli, data: Path, cache: Path) -> Refused:
    """Runs `clean`, sees that it refuses with the exit code and changes no file, and returns its message."""

    def run(code: int, *options: object, stdin: bytes = b"") -> str:
        before = contents(data)
        result = clean(*options, stdin=stdin)
        assert (result.code, result.stdout) == (code, b"")
        assert contents(data) == before
        assert contents(cache) == {}
        assert "Traceback" not in result.stderr
        assert "bug in noisyknn" not in result.stderr
        return result.stderr

    return run


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        (b"label", b"class", ["none of the columns noisy_label", "name the right one with --label-column"]),
        (b"path", b"name", ["none of the columns path", "name the right one with --path-column"]),
        (b"clean_label", b"status", ["already has the columns status, which clean writes; rename or remove"]),
        (b"clean_label", b"label", ["several columns have the same name: 'label'"]),
        (b"04.png,green", b"04.png,rde", ["column 'label'", "'rde' (row 5)", "correct a misspelt label"]),
        (b"04.png,green", b"04.png,3", ["'label' mixes types", "row 5 is a number ('3')", "correct the odd ones"]),
        (b"04.png,green", b"04.png, green", ["' green' (row 5)", "one class with two spellings", "make them alike"]),
        (b"07.png", b"03.png", ["column 'path'", "'03.png' in rows 4 and 8", "keep one row per image"]),
        (b"07.png", b"./03.png", ["'./03.png' in rows 4 and 8"]),
        (
            b"07.png",
            b"../07.png",
            ["column 'path'", "1 path leads out of the folder", "row 8: '../07.png'", "--images"],
        ),
        (b"07.png", b"/etc/passwd", ["row 8: '/etc/passwd'"]),
        (b"07.png", b" ", ["column 'path'", "1 row has no path (rows 8)"]),
        (b"red", "façade".encode("latin-1"), ["labels.csv is not UTF-8 (line 4, byte 0xe7)", "iconv -f LATIN1"]),
        (b"04.png,", b'04.png,"', ["the row that starts in line 6 is not valid CSV", "close any open quote"]),
        (b"04.png,", b"04.png,a,b,", ["row 5 has 5", "put quotes around cells that contain a comma"]),
        (b",", b";", ["semicolons between its cells"]),
    ],
)
def test_a_table_that_cannot_be_used(refused: Refused, data: Path, old: bytes, new: bytes, messages: list[str]) -> None:
    table = data / "labels.csv"
    raw = table.read_bytes()
    assert old in raw
    table.write_bytes(raw.replace(old, new))
    told = refused(3)
    assert str(table) in told
    for message in messages:
        assert message in told


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "labels.csv is empty (zero bytes)"),
        (b"path,label\n", "labels.csv has no rows"),
        (b"path,label\n00.png,\n01.png,nan\n", "column 'label': no row has a label"),
        (b"path,label\n00.png,x\n01.png,x\n", "all rows have the same label; provide at least two classes"),
        (b"path,label\n00.png,x\n01.png,y\n02.png,x\n", "classes with fewer than two rows: 'y' (row 2)"),
        (b"PAR1 or not", "is a Parquet file; give it the ending .parquet"),
        (b"\xff\xfep\0a\0", "is UTF-16, not UTF-8; convert it"),
    ],
)
def test_tables_too_poor_to_learn_from(refused: Refused, data: Path, raw: bytes, message: str) -> None:
    (data / "labels.csv").write_bytes(raw)
    assert message in refused(3)


def test_what_is_wrong_with_standard_input(refused: Refused) -> None:
    assert "standard input is empty; check the command before the pipe" in refused(3, "--labels", "-")
    assert "standard input, column 'label': no row has a label" in refused(
        3, "--labels", "-", stdin=b"path,label\n00.png,\n"
    )


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--labels", "nowhere.csv"], ["nowhere.csv: no such file"]),
        (["--labels", "/"], ["/ is a folder"]),
        (["--labels", "/dev/null"], ["/dev/null"]),
        (["--images", "nowhere"], ["--images nowhere: no such folder"]),
        (["--images", "/dev/null"], ["--images /dev/null: not a folder"]),
        (["--images", "/"], ["none of the 48 images could be read", "/00.png: no such file", "check --images"]),
        (["--label-column", "species"], ["no column 'species' (--label-column)", "path, label, clean_label"]),
        (["--path-column", "where"], ["no column 'where' (--path-column)"]),
        (["--truth-column", "truth"], ["no column 'truth' (--truth-column)"]),
        (
            ["--k", 24],
            ["too few rows for 24 neighbours", "48 rows with a label, 24 vote", "give a smaller --k"],
        ),
        (["--k", 47, "--method", "selknn"], ["too few rows for 47 neighbours", "give a smaller --k"]),
        (["--k", 48, "--method", "iterknn"], ["of 48 rows with a label, 48 vote", "give a smaller --k"]),
        (["--weights", "none.safetensors"], ["none.safetensors: no such file (--weights takes"]),
    ],
)
def test_options_that_do_not_fit_the_data(refused: Refused, options: list[object], messages: list[str]) -> None:
    told = refused(3, *options)
    for message in messages:
        assert message in told


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("mnist", "too few rows for 100 neighbours: of 48 rows with a label, 9 vote in the first episode"),
        ("cifar10", "too few rows for 100 neighbours: of 48 rows with a label, 9 vote in the first episode"),
        ("cifar100", "too few rows for 100 neighbours: of 48 rows with a label, 9 vote in the first episode"),
        ("clothing1m", "too few rows for 500 neighbours: of 48 rows with a label, 48 vote in the first episode"),
    ],
)
def test_a_preset_of_the_paper_needs_more_rows(cli: Cli, data: Path, preset: str, message: str) -> None:
    before = contents(data)
    files = ["--images", data / "images", "--labels", data / "labels.csv", "--out", data / "out" / "fixed.csv"]
    result = cli("clean", *files, "--preset", preset)
    assert result.code == 3
    assert f"{message}; give a smaller --k" in result.stderr
    assert contents(data) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "cnn6"], "there is no --backbone cnn6; did you mean cnn8, cnn5?"),
        (["--layer", "stage9"], "--layer stage9: the backbone has no such layer; its stages are stem, stage1"),
        (["--weights", "DEFAULT"], "cnn5 has no published weights"),
        (["--device", "tpu"], "--device 'tpu' is not one of auto, cpu, cuda, cuda:N"),
        (["--lr", "nan"], "--lr nan is not a finite number"),
        (["--episodes", 0], "--episodes 0 is out of range (1 to 1000)"),
        (["--preset", "cifar"], "'cifar' is not one of"),
        (["--config", "nowhere.toml"], "--config nowhere.toml cannot be read"),
        (["--truth-column", "label"], "--truth-column 'label' is the column of given labels"),
        (["--summary", "-"], "--summary cannot be standard output; name a file"),
        (["--save-model", "-"], "--save-model cannot be standard output"),
        (["--save-model", "model.pt"], "--save-model model.pt does not end in .safetensors"),
        (["--out", "fixed.txt"], "--out fixed.txt: the ending shows no known format; add --format"),
        (["--save-probabilities", "p.txt"], "--save-probabilities p.txt: the ending shows no known format"),
        (["--labels", __file__], "test_clean_bad_input.py: the ending shows no known format; add --format"),
    ],
)
def test_wrong_usage(refused: Refused, options: list[object], message: str) -> None:
    assert message in refused(2, *options)


def test_labels_that_are_mostly_missing_are_too_few_to_vote(refused: Refused, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    table.loc[12:, "label"] = None
    table.to_csv(data / "labels.csv", index=False)
    assert "too few rows for 6 neighbours: of 12 rows with a label, 6 vote" in refused(3, "--k", 6)


def test_true_labels_that_are_all_missing_are_told_before_any_work(refused: Refused, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv").assign(clean_label="")
    table.to_csv(data / "labels.csv", index=False)
    assert "column 'clean_label': no row has a label" in refused(3, "--truth-column", "clean_label")


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and holds none of them."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_images_that_cannot_be_read_are_marked_and_the_others_cleaned(clean: Cli, data: Path) -> None:
    images, table = data / "images", pd.read_csv(data / "labels.csv")
    (images / "03.png").unlink()
    (images / "04.png").write_bytes((images / "04.png").read_bytes()[:200])
    (images / "05.png").write_bytes(b"")
    (images / "06.jpg").write_text("this is no picture")
    (images / "08.png").write_bytes(png_of(50_000, 50_000))
    (images / "09.png").unlink()
    (images / "09.png").mkdir()
    table.loc[6, "path"] = "06.jpg"
    table.loc[8, "label"] = ""
    table.to_csv(data / "labels.csv", index=False)
    before = contents(data)
    result = clean()
    assert result.code == 0
    assert "6 images could not be read and keep their labels: " in result.stderr
    for reason in (
        "row 4 '03.png' (no such file)",
        "row 5 '04.png' (truncated or damaged)",
        "row 6 '05.png' (zero bytes)",
        "row 7 '06.jpg' (not an image that Pillow can read)",
        "row 9 '08.png' (2,500,000,000 pixels; at most",
        "row 10 '09.png' (a folder, not a file)",
    ):
        assert reason in result.stderr
    fixed = pd.read_csv(data / "out" / "fixed.csv")
    unreadable = fixed["path"].isin(["03.png", "04.png", "05.png", "06.jpg", "08.png", "09.png"])
    assert (fixed["status"] == "unreadable").equals(unreadable)
    labelled = unreadable & fixed["label"].notna()
    assert fixed["corrected_label"][labelled].equals(fixed["label"][labelled])
    assert fixed["corrected_label"].notna().all()
    figures = ["confidence", "cumulative_loss", "label_score"]
    assert fixed.loc[unreadable, figures].isna().all(axis=None)
    assert fixed.loc[~unreadable, figures].notna().all(axis=None)
    assert not fixed.loc[unreadable, "is_label_issue"].any()
    assert {name: raw for name, raw in contents(data).items() if name != "out/fixed.csv"} == before


def test_where_no_image_can_be_read_all_is_wrong(refused: Refused, data: Path) -> None:
    for image in (data / "images").iterdir():
        image.write_bytes(b"")
    told = refused(3)
    assert "none of the 48 images could be read" in told
    assert "00.png: zero bytes" in told
    assert "and 38 more" in told


def test_paths_do_not_command_the_terminal(refused: Refused, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    table["path"] = "\x1b[31m\x07\x9b" + table["path"]
    table.to_csv(data / "labels.csv", index=False)
    assert r"/images/\x1b[31m\x07\x9b00.png: no such file" in refused(3)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_standard_stream_may_be_closed(clean: Cli, data: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    monkeypatch.setattr(sys, closed, None)
    result = clean()
    getattr(sys, closed).close()
    assert (result.code, result.stdout) == (0, b"")
    assert (result.stderr == "") is (closed == "stderr")
    assert "fault" not in result.stderr
    assert (data / "out" / "fixed.csv").exists()


def test_a_result_for_a_closed_standard_output_is_not_lost_in_silence(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    told = refused(1, "--out", "-", "--labels", "nowhere.csv")
    sys.stdout.close()
    assert told == "noisyknn: standard output is closed or not writable; name a file with --out\n"


def test_a_standard_output_that_is_open_for_reading_only_is_told_before_any_work(
    refused: Refused, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with os.fdopen(os.open(data / "labels.csv", os.O_RDONLY), "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert "standard output is closed or not writable" in refused(1, "--out", "-", "--labels", "nowhere.csv")


def test_where_unreadable_images_leave_a_class_without_rows(refused: Refused, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    for path in table["path"][table["label"] == "red"].iloc[1:]:
        (data / "images" / path).unlink()
    told = refused(3)
    assert "classes with fewer than two readable rows: 'red' (row 3)" in told


def test_where_unreadable_images_leave_too_few_to_vote(refused: Refused, data: Path) -> None:
    for row in range(12, 48):
        (data / "images" / f"{row:02d}.png").unlink()
    assert "of 12 readable rows with a label, 6 vote" in refused(3, "--k", 6)


def test_an_output_that_exists_is_refused_before_any_work(refused: Refused, data: Path) -> None:
    for option, name in (("--out", "x.csv"), ("--summary", "x.json"), ("--save-model", "x.safetensors")):
        file = data / "out" / name
        file.write_text("precious")
        told = refused(2, option, file, "--labels", "nowhere.csv", "--images", "nowhere")
        assert f"{option} {file} exists already; add --overwrite to replace it" in told


def test_an_input_is_never_written_to(refused: Refused, data: Path) -> None:
    (data / "c.toml").write_text("k = 3\n")
    (data / "link.csv").symlink_to("labels.csv")
    inputs = [data / "labels.csv", data / "link.csv", data / "c.toml", data / "images" / "07.png"]
    for file in inputs:
        told = refused(2, "--overwrite", "--config", data / "c.toml", "--summary", file)
        assert f"--summary {file} is also an input, which noisyknn never modifies" in told
    assert "is also an input" in refused(2, "--overwrite", "--out", data / "labels.csv")


def test_two_outputs_are_never_one_file(refused: Refused, data: Path) -> None:
    both = data / "out" / "fixed.csv"
    assert "--out and --summary are the same file" in refused(2, "--summary", both)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    ("option", "name"),
    [("--out", "fixed.csv"), ("--summary", "manifest.json"), ("--save-model", "checkpoint.safetensors")],
)
def test_an_output_never_lies_in_a_run_directory(
    refused: Refused, data: Path, cache: Path, option: str, name: str, overwrite: list[str]
) -> None:
    for folder, options in ((data / "run", ["--run-dir", data / "run"]), (cache / "noisyknn" / "runs" / "x", [])):
        told = refused(2, option, folder / name, *options, *overwrite, "--labels", "nowhere.csv")
        assert f"{option} {folder / name} lies in the run directory; write it elsewhere" in told


def test_an_output_that_is_a_circle_of_links_is_refused_before_any_work(refused: Refused, data: Path) -> None:
    for option in ("--out", "--summary", "--save-model"):
        loop = data / f"loop{option}.csv"
        loop.symlink_to(loop.name)
        told = refused(1, option, loop, "--labels", "nowhere.csv")
        assert f"{option} {loop} cannot be written: Too many levels of symbolic links" in told


@pytest.mark.parametrize("option", ["--images", "--labels", "--out", "--config", "--run-dir", "--summary"])
def test_a_name_longer_than_any_file_has_is_refused(refused: Refused, data: Path, option: str) -> None:
    name = data / ("x" * 300)
    assert f"{option} {name} is too long for a file name; shorten it" in refused(2, option, name)


@pytest.mark.parametrize("option", ["--out", "--summary", "--save-model"])
def test_an_output_without_its_folder_is_refused_before_any_work(refused: Refused, data: Path, option: str) -> None:
    told = refused(2, option, data / "none" / "x.csv", "--labels", "nowhere.csv")
    assert "x.csv cannot be written: its folder does not exist; create it first" in told


def test_an_output_in_a_read_only_folder_is_refused_before_any_work(
    refused: Refused, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # to root, no folder is read-only
    monkeypatch.setattr(os, "access", lambda path, *_, **__: Path(os.fsdecode(path)) != data / "out")
    assert "fixed.csv cannot be written: no permission to write there" in refused(1, "--labels", "nowhere.csv")


def test_a_cache_that_cannot_be_written_is_told_with_its_cure(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    told = refused(1)
    assert "cannot be written: Not a directory" in told
    assert "--run-dir FOLDER keeps the run elsewhere" in told


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A list of folders whose disk is full: no file that is written there comes safely to the disk."""
    folders: list[Path] = []
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        for folder in folders:
            if any(os.path.samestat(path.stat(), os.fstat(descriptor)) for path in folder.glob("**/.*.part")):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    return folders


def test_a_full_disk_loses_nothing_but_the_table(clean: Cli, data: Path, cache: Path, full: list[Path]) -> None:
    assert clean("--out", data / "undisturbed.csv").code == 0
    full.append(data / "out")
    result = clean("--summary", data / "out" / "summary.json")
    assert result.code == 1
    assert "summary.json cannot be written: the disk is full; free some space or write elsewhere" in result.stderr
    assert contents(data / "out") == {}
    assert contents(cache) != {}
    full.clear()
    result = clean()
    assert result.code == 0
    assert "episode 1 of" not in result.stderr
    assert (data / "out" / "fixed.csv").read_bytes() == (data / "undisturbed.csv").read_bytes()
    assert contents(cache) == {}


def test_a_full_disk_under_the_run_directory(clean: Cli, data: Path, cache: Path, full: list[Path]) -> None:
    full.append(cache)
    result = clean()
    assert result.code == 1
    assert "cannot be written: the disk is full" in result.stderr
    assert contents(data / "out") == {}
    full.clear()
    assert clean().code == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(clean: Cli, data: Path, small_disk: Path) -> None:
    result = clean("--run-dir", small_disk / "run", "--width", 1, "--save-model", small_disk / "x.safetensors")
    assert result.code == 1
    assert "x.safetensors cannot be written: the disk is full; free some space or write elsewhere" in result.stderr
    assert contents(data / "out") == {}
    assert not any(path.suffix in (".part", ".safetensors") for path in small_disk.iterdir())
