"""Observers of a run: the command line draws its progress, the library is silent."""

from typing import Protocol


class Observer(Protocol):
    """Receives the progress of a run."""

    def note(self, message: str) -> None:
        """Report a message: a choice, the result of an episode, a warning."""
        ...

    def start(self, stage: str, total: int, unit: str) -> None:
        """Start a stage of `total` units; the previous stage, if any, is over."""
        ...

    def advance(self, done: int) -> None:
        """Report that `done` more units of the stage are done."""
        ...


class Silent:
    """The observer that says nothing."""

    def note(self, message: str) -> None:
        """Ignore it."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Ignore it."""

    def advance(self, done: int) -> None:
        """Ignore it."""
