"""The errors that users see, each with its exit code on the command line.

NoisyKnnError             1   a fault of the tool or of the machine
├── MachineError          1   the disk is full, a folder cannot be written, a device is missing
├── UsageError            2   options that do not fit together or do not exist
├── InputError            3   the input data cannot be used
├── GateError             4   the labels are noisier than the user allows; all results are written
└── InterruptedRunError 130   Ctrl-C or SIGTERM; the work so far is saved
"""

from collections.abc import Sequence

_LONGEST_ITEM = 600  # characters of a list item, which may quote two cells
_LONGEST_CELL = 200


class NoisyKnnError(Exception):
    """Base of every error that noisyknn raises on purpose; its message is written for the user."""

    exit_code = 1


class MachineError(NoisyKnnError):
    """The machine cannot do the job: no space, no permission, no such device."""


class UsageError(NoisyKnnError):
    """The options do not make sense, alone or together."""

    exit_code = 2


class InputError(NoisyKnnError):
    """The input data cannot be used; the message names file, row, column and cure."""

    exit_code = 3


class GateError(NoisyKnnError):
    """The result exceeds a limit that the user set; all results are written."""

    exit_code = 4


class InterruptedRunError(NoisyKnnError):
    """The user or the system stopped the run; the message says how to resume it."""

    exit_code = 130


def one_line(text: str) -> str:
    """`text` with control characters and line breaks escaped, so that quoted data cannot control the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def shortened(text: str, longest: int = _LONGEST_CELL) -> str:
    """`text` on one line, cut after `longest` characters and followed by its length if it is longer."""
    line = one_line(text[:longest])
    return line if len(text) <= longest else f"{line}… ({len(text):,} characters)"


def quoted(value: object) -> str:
    """A cell, path or name for a message: its repr, shortened."""
    return shortened(repr(value))


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun: ``1 row has`` or ``3 rows have``."""
    return f"{number:,} {one if number == 1 else many}"


def first_ten(items: Sequence[object]) -> str:
    """The first ten items, each shortened, and the number of the others: ``a, b … and 3 more``."""
    shown = ", ".join(shortened(str(item), _LONGEST_ITEM) for item in items[:10])
    return shown if len(items) <= 10 else f"{shown} … and {len(items) - 10} more"
