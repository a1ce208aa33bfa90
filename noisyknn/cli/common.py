"""What the commands share: options, standard streams, the care taken with files, and what becomes of errors."""

import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, ParamSpec

import typer

from noisyknn import files
from noisyknn.errors import NoisyKnnError

if TYPE_CHECKING:
    from rich.table import Table

P = ParamSpec("P")
STANDARD_STREAM = Path("-")

FormatOption = Annotated[
    Literal["csv", "parquet"] | None,
    typer.Option("--format", help="Format of tables whose ending is not .csv, .parquet or .pq, and of -."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing on standard error but errors.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """`command` with every error turned into one message on standard error and its exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _replace_closed_streams()
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # here, since a broken pipe can no longer be caught when Python flushes at its end
        except NoisyKnnError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenPipeError:  # the reader, such as head, has had enough
            _drop_unwritable()
            sys.exit(1)
        except OSError as error:
            _drop_unwritable()
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
        traceback.print_exc()
    note(message)
    sys.exit(exit_code)


def _replace_closed_streams() -> None:
    """Give the standard streams that the caller has closed an end: what is written to None goes to standard output."""
    for name, mode in (("stdin", "r"), ("stdout", "r"), ("stderr", "w")):  # results that nobody takes are an error
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # until the end


def _drop_unwritable() -> None:
    """Send what standard output no longer takes nowhere, so that Python does not complain about it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def note(message: str) -> None:
    """Print a message on standard error."""
    print(f"noisyknn: {printable(message)}", file=sys.stderr)  # noqa: T201


def printable(message: str) -> str:
    """`message` with control characters spelled out: paths and cells in it must not command the terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in message)


def show_table(table: "Table", *, stderr: bool = False) -> None:
    """Print `table` as wide as it is: rich would otherwise cut figures to fit 80 columns into a file or a pipe."""
    from rich.console import Console

    Console(stderr=stderr, width=10_000).print(table)
