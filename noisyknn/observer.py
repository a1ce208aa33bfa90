"""Who is told what a run is doing: the command line draws it, the library is silent."""

from typing import Protocol


class Observer(Protocol):
    """Told about the stages of a run as they go."""

    def note(self, message: str) -> None:
        """Something worth knowing: what was chosen, what an episode found."""
        ...

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage of `total` units begins; the one before it, if any, is over."""
        ...

    def advance(self, done: int) -> None:
        """So many more units of the stage are done."""
        ...


class Silent:
    """The observer that says nothing."""

    def note(self, message: str) -> None:
        """Ignore it."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Ignore it."""

    def advance(self, done: int) -> None:
        """Ignore it."""
