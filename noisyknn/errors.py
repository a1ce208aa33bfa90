"""The errors that a user can meet, each with the exit code of the command line.

NoisyKnnError             1   a fault of the tool or of the machine
├── MachineError          1   the disk is full, a folder cannot be written, a device is missing
├── UsageError            2   options that do not fit together or do not exist
├── InputError            3   the input data cannot be used
├── GateError             4   a gate such as ``--max-noise`` failed; the table was still written
└── InterruptedRunError 130   Ctrl-C or SIGTERM; what was done so far is saved
"""

from collections.abc import Sequence


class NoisyKnnError(Exception):
    """Base of every error that noisyknn raises on purpose; the message is meant for the user as it stands."""

    exit_code = 1


class MachineError(NoisyKnnError):
    """The machine cannot do what was asked: no space, no permission, no such device."""


class UsageError(NoisyKnnError):
    """The options do not make sense, alone or together."""

    exit_code = 2


class InputError(NoisyKnnError):
    """The input data cannot be used; the message names file, row, column and cure."""

    exit_code = 3


class GateError(NoisyKnnError):
    """The result was written, but a limit set by the user was not kept."""

    exit_code = 4


class InterruptedRunError(NoisyKnnError):
    """The user or the system stopped the run; the message says how to resume it."""

    exit_code = 130


def first_ten(items: Sequence[object]) -> str:
    """Join the first ten items for a message and count the rest: ``a, b … and 3 more``."""
    shown = ", ".join(str(item) for item in items[:10])
    return shown if len(items) <= 10 else f"{shown} … and {len(items) - 10} more"
