"""Draws a run on standard error: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from noisyknn.cli.common import note, spoken
from noisyknn.errors import one_line

if TYPE_CHECKING:
    from rich.progress import Progress


class Terminal:
    """An observer and context manager that prints notes and, on a terminal, draws the current stage."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = None if quiet or not sys.stderr.isatty() else _bar()

    def __enter__(self) -> "Terminal":
        """Begin to draw."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop drawing and leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def note(self, message: str) -> None:
        """Print a line."""
        if self._quiet:
            return
        if self._bar is not None:
            text = f"noisyknn: {one_line(spoken(message))}"
            self._bar.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            note(message)

    def start(self, stage: str, total: int, unit: str) -> None:
        """Put a new bar in place of the last one."""
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(stage, total=total, unit=unit)

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._bar.task_ids:
            self._bar.advance(self._bar.task_ids[-1], done)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} {task.fields['unit']}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
