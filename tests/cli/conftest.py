import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from noisyknn.cli import main
from tests.small_data import FAST_SETTINGS, as_options, draw


@dataclass(frozen=True)
class Result:
    code: object
    stdout: bytes
    stderr: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """Runs the command line in this process: `cli("evaluate", path, stdin=b"...")`."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["noisyknn", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsysbinary.readouterr()
        return Result(end.value.code, captured.out, captured.err.decode())

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the tiny image set: images/, labels.csv, and out/, which is empty."""
    folder = tmp_path / "data"
    draw(folder / "images").to_csv(folder / "labels.csv", index=False)
    (folder / "out").mkdir()
    return folder


@pytest.fixture
def clean(cli: Cli, data: Path) -> Cli:
    """Runs `noisyknn clean` on `data` in a second, into out/fixed.csv; options that are given go before its own."""
    own = (
        "--images",
        data / "images",
        "--labels",
        data / "labels.csv",
        "--out",
        data / "out" / "fixed.csv",
        *as_options(FAST_SETTINGS),
    )
    return lambda *options, stdin=b"": cli("clean", *own, *options, stdin=stdin)
