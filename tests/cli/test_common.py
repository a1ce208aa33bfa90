import signal
import subprocess
import sys
from pathlib import Path

import pytest

import noisyknn
from noisyknn.cli.common import check_outputs, guarded
from noisyknn.errors import InputError, UsageError
from tests.cli.conftest import Cli

MAIN = "from noisyknn.cli import main; main()"


def test_help_needs_none_of_the_heavy_packages() -> None:
    heavy = ["torch", "torchvision", "pandas", "numpy", "sklearn", "pyarrow", "faiss", "matplotlib", "PIL"]
    code = f"import sys, noisyknn.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_cleaning_does_not_wait_for_scikit_learn() -> None:
    code = "import sys, noisyknn.api; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("arguments", [["--help"], ["inject-noise", "-h"], ["evaluate", "--help"]])
def test_help_tells_the_exit_codes(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code == 0
    assert "Exit codes" in result.stdout.decode()


def test_version(cli: Cli) -> None:
    result = cli("--version")
    assert (result.code, result.stdout) == (0, b"noisyknn 0.1.0\n")


def test_a_polite_kill_of_any_command_is_an_interruption() -> None:
    before = signal.getsignal(signal.SIGTERM)
    tidied = []

    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            tidied.append(True)

    try:
        with pytest.raises(SystemExit) as end:
            guarded(command)()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 130
    assert tidied == [True]


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "noisyknn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"noisyknn {noisyknn.__version__}\n"


@pytest.mark.parametrize("arguments", [["clear"], ["evaluate"], ["evaluate", "--rate", "1"]])
def test_wrong_usage_exits_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).code == 2


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("row 3 is odd"), 3, "noisyknn: row 3 is odd\n"),
        (KeyboardInterrupt(), 130, "noisyknn: interrupted\n"),
        (OSError(28, "No space left"), 1, "noisyknn: the system reports an error: [Errno 28] No space left\n"),
        (
            KeyError("cat"),
            1,
            "noisyknn: KeyError: 'cat'; this is a bug in noisyknn; run again with --debug for the traceback\n",
        ),
    ],
)
def test_an_error_is_one_message_and_with_debug_also_a_traceback(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        raise error

    for argv, traced in (["noisyknn", "x"], False), (["noisyknn", "x", "--debug"], True):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as end:
            guarded(command)()
        assert end.value.code == code
        printed = capsys.readouterr().err
        assert printed.endswith(message)
        assert printed.startswith("Traceback") is traced
        assert traced or printed == message


def test_a_reader_that_stops_early_sees_no_traceback(tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("path,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(20_000)))
    command = ["inject-noise", "--labels", str(table), "--out", "-", "--noise", "uniform", "--rate", "0.5", "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_outputs_that_do_not_exist_and_standard_output_are_fine(tmp_path: Path) -> None:
    check_outputs({"--out": Path("-"), "--summary": None, "--x": tmp_path / "new"}, [Path("-"), None], overwrite=False)


def test_an_existing_output_needs_overwrite(tmp_path: Path) -> None:
    old = tmp_path / "old.csv"
    old.touch()
    with pytest.raises(UsageError, match=r"--out .*old.csv exists already; add `overwrite=True`"):
        check_outputs({"--out": old}, [], overwrite=False)
    check_outputs({"--out": old}, [], overwrite=True)


def test_an_input_is_never_an_output_by_whatever_name(tmp_path: Path) -> None:
    file, link = tmp_path / "in.csv", tmp_path / "link.csv"
    file.touch()
    link.symlink_to(file)
    for out in (file, link, tmp_path / "." / "in.csv"):
        with pytest.raises(UsageError, match="also an input"):
            check_outputs({"--out": out}, [None, Path("-"), file], overwrite=True)


def test_two_outputs_are_never_one_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--out and --summary are the same file"):
        check_outputs({"--out": tmp_path / "a", "--summary": tmp_path / "b" / ".." / "a"}, [], overwrite=True)


@pytest.mark.parametrize("path", [Path("/dev/null"), Path("/")])
def test_an_output_is_a_regular_file(path: Path) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        check_outputs({"--out": path}, [], overwrite=True)


@pytest.mark.parametrize("arguments", [["--help"], ["clean", "--help"], ["--version"], []])
def test_help_that_cannot_be_printed_is_one_message(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    if arguments:
        assert done.returncode == 1
        assert done.stderr == "noisyknn: the system reports an error: [Errno 28] No space left on device\n"
    else:  # a version of typer may print it on standard error
        assert "Traceback" not in done.stderr


def test_messages_that_cannot_be_printed_do_not_cost_the_result(tmp_path: Path) -> None:
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("path,label\na.png,cat\nb.png,dog\n")
    options = ["--labels", str(table), "--noise", "symmetric", "--rate", "1"]
    with Path("/dev/full").open("w") as full:
        for target, expected in ((out, 0), (tmp_path / "nowhere" / "out.csv", 2)):
            command = [sys.executable, "-c", MAIN, "inject-noise", *options, "--out", str(target)]
            assert subprocess.run(command, stderr=full, check=False).returncode == expected
    assert out.read_text() == "path,label,noisy_label\na.png,cat,dog\nb.png,dog,cat\n"


def test_a_message_is_one_line_whatever_it_quotes(cli: Cli) -> None:
    result = cli("evaluate", "no\nnoisyknn: all is well.csv", "--truth-column", "label")
    assert result.code == 3
    assert result.stderr == "noisyknn: no\\nnoisyknn: all is well.csv: no such file; name another\n"


def test_settings_in_messages_become_options_and_names_of_the_user_stay(clean: Cli, data: Path) -> None:
    table = data / "labels.csv"
    table.write_text(table.read_text().replace("00.png", "`overwrite`.png"))
    told = clean("--truth-column", "`k`").stderr
    assert "has no column '`k`' (--truth-column)" in told
    told = clean("--store-size", 8).stderr
    assert "No such option" in told
    (data / "settings.toml").write_text("store_size = 8\n")
    told = clean("--config", data / "settings.toml", "--image-size", 16).stderr
    assert "--image-size 16 is larger than the setting store_size (--config) 8" in told
    assert "row 1 '`overwrite`.png'" in clean().stderr
