"""Shared by all commands: standard streams, checks of outputs, and messages."""

import contextlib
import dataclasses
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
from noisyknn.config import Config
from noisyknn.errors import NoisyKnnError, one_line

if TYPE_CHECKING:
    from rich.table import Table

P = ParamSpec("P")
STANDARD_STREAM = Path("-")
_OPTIONS: dict[str, str] = {}
"""Setting to option, for the command that runs."""


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """`command`, with every error as one message on standard error and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _prepare_streams()
        _OPTIONS.clear()
        _OPTIONS.update(_options_of(command))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM interrupts, like Ctrl-C
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # here, as nothing catches a broken pipe when Python exits
        except NoisyKnnError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenPipeError:  # the reader, such as head, has stopped
            _drop_unwritable(sys.stdout)
            sys.exit(1)
        except OSError as error:
            _drop_unwritable(sys.stdout)
            _fail(f"the system reports an error: {error}", 1)
        except Exception as error:
            _fail(
                f"{type(error).__name__}: {error}; this is a bug in noisyknn; run again with --debug for the traceback",
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
    """Make the standard streams usable in any environment.

    A closed stream gets a substitute, as output to None would land on standard output. Standard output escapes letters
    that its encoding lacks, as standard error does in Python.
    """
    for name, mode in (
        ("stdin", "r"),
        ("stdout", "r"),
        ("stderr", "w"),
    ):  # writing to a closed stdout must fail
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_unwritable(stream: TextIO) -> None:
    """Discard what a broken `stream` still buffers, so that Python does not complain when it exits."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Guard printing on standard error: a message that cannot be written must not cost the result."""
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
    """`files.check_outputs` of all but ``-``."""
    named = {option: None if path == STANDARD_STREAM else path for option, path in outputs.items()}
    files.check_outputs(named, [path for path in inputs if path != STANDARD_STREAM], overwrite=overwrite)


def _options_of(command: Callable[..., None]) -> dict[str, str]:
    """Setting to option for a command: names of its parameters, also with ``=True`` or ``=False``."""
    options: dict[str, str] = {}
    for name, hint in typing.get_type_hints(command, include_extras=True).items():
        (declared,) = getattr(hint, "__metadata__", [None])
        if isinstance(declared, OptionInfo):
            own = (declared.default, *(declared.param_decls or ()))  # within Annotated, the first lands in `default`
            called = next((str(o) for o in own if str(o).startswith("--")), f"--{name.replace('_', '-')}")
            on, _, off = called.partition("/")
            name = name.rstrip("_")  # map_ avoids Python's own map
            options |= {name: on, f"{name}=True": on, f"{name}=False": off}
    return options


def spoken(message: str) -> str:
    """A message of the library, with settings (`k`, `overwrite=True`) replaced by options of the running command.

    Names that the user gave stand in quotes, and stay as they are.
    """
    elsewhere = "the setting {} (--config)" if "config" in _OPTIONS else "the setting {}"
    settings = {field.name: elsewhere.format(field.name) for field in dataclasses.fields(Config)}
    called = {**settings, **_OPTIONS}
    return re.sub(r"(?<![\w'\"/])`(\w+(?:=\w+)?)`(?![\w'\"/])", lambda name: called.get(name[1]) or name[0], message)


def note(message: str) -> None:
    """Print a message on standard error."""
    with _messages():
        print(f"noisyknn: {one_line(spoken(message))}", file=sys.stderr)  # noqa: T201


def show_table(table: "Table", *, stderr: bool = False) -> None:
    """Print `table` in full width: in a file or a pipe, rich would cut figures to fit 80 columns."""
    from rich.console import Console

    with _messages() if stderr else contextlib.nullcontext():
        Console(stderr=stderr, width=10_000).print(table)
