import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from noisyknn.cli import main


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
