"""What the commands share: standard streams, the care taken with files, and what becomes of errors."""

import contextlib
import functools
import io
import os
import re
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ParamSpec, TextIO

from typer.models import OptionInfo

from noisyknn import files
from noisyknn.errors import NoisyKnnError, one_line

if TYPE_CHECKING:
    from rich.table import Table

P = ParamSpec("P")
STANDARD_STREAM = Path("-")
_OPTIONS: dict[str, str] = {}
"""How settings are called on the line of the command that runs."""


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """`command` with every error turned into one message on standard error and its exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _prepare_streams()
        _OPTIONS.clear()
        _OPTIONS.update(_options_of(command))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is an interruption too
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # here, since a broken pipe can no longer be caught when Python flushes at its end
        except NoisyKnnError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenPipeError:  # the reader, such as head, has had enough
            _drop_unwritable(sys.stdout)
            sys.exit(1)
        except OSError as error:
            _drop_unwritable(sys.stdout)
            _fail(f"the machine refused: {error}", 1)
        except Exception as error:
            _fail(
                f"{type(error).__name__}: {error}; this is a fault of noisyknn; "
                "run again with --debug for the traceback",
                1,
            )

    return run


def _fail(message: str, exit_code: int) -> None:
    if "--debug" in sys.argv:
        with _messages():
            traceback.print_exc()
    note(message)
    sys.exit(exit_code)


def _prepare_streams() -> None:
    """Make standard streams usable whatever the caller made of them.

    Those that are closed get an end: what is written to None goes to standard output. Letters that the encoding of
    standard output lacks are spelled out, as Python does on standard error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "r"), ("stderr", "w")):  # results that nobody takes are an error
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_unwritable(stream: TextIO) -> None:
    """Send what `stream` no longer takes nowhere, so that Python does not complain about it at its end."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """For printing on standard error: a message that nobody can take must not cost the result."""
    try:
        yield
        sys.stderr.flush()
    except OSError:
        _drop_unwritable(sys.stderr)


def source(path: Path) -> Path | BinaryIO:
    """`path`, or standard input for ``-``."""
    return sys.stdin.buffer if path == STANDARD_STREAM else path


def sink(path: Path) -> Path | BinaryIO:
    """`path`, or standard output for ``-``."""
    return sys.stdout.buffer if path == STANDARD_STREAM else path


def check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[Path | None], *, overwrite: bool) -> None:
    """`files.check_outputs` of all that are files, which ``-`` is not."""
    named = {option: None if path == STANDARD_STREAM else path for option, path in outputs.items()}
    files.check_outputs(named, [path for path in inputs if path != STANDARD_STREAM], overwrite=overwrite)


def _options_of(command: Callable[..., None]) -> dict[str, str]:
    """How settings are called on a command's line: its parameters' names, also with ``=True``, to options."""
    options: dict[str, str] = {}
    for name, hint in typing.get_type_hints(command, include_extras=True).items():
        (declared,) = getattr(hint, "__metadata__", [None])
        if isinstance(declared, OptionInfo):
            own = (declared.default, *(declared.param_decls or ()))  # within Annotated, the first lands in `default`
            called = next((str(o) for o in own if str(o).startswith("--")), f"--{name.replace('_', '-')}")
            on, _, off = called.partition("/")
            name = name.rstrip("_")  # of what Python has a name for already, such as map
            options |= {name: on, f"{name}=True": on, f"{name}=False": off}
    return options


def spoken(message: str) -> str:
    """A message of the library, which names settings (`k`, `overwrite=True`), in the running command's options."""
    elsewhere = "the setting {} (--config)" if "config" in _OPTIONS else "the setting {}"
    return re.sub(r"`(\w+(?:=\w+)?)`", lambda name: _OPTIONS.get(name[1]) or elsewhere.format(name[1]), message)


def note(message: str) -> None:
    """Print a message on standard error."""
    with _messages():
        print(f"noisyknn: {one_line(spoken(message))}", file=sys.stderr)  # noqa: T201


def show_table(table: "Table", *, stderr: bool = False) -> None:
    """Print `table` as wide as it is: rich would otherwise cut figures to fit 80 columns into a file or a pipe."""
    from rich.console import Console

    with _messages() if stderr else contextlib.nullcontext():
        Console(stderr=stderr, width=10_000).print(table)
