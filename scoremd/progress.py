"""Progress bars with the rate and the time left, on a terminal only; of bars within a bar only the outer one is shown."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_shown = False


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Items per second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s", style="progress.data.speed")


class Bar:
    """Handle of a running bar."""

    def __init__(self, bar: Progress, task: int) -> None:
        self._progress, self._task = bar, task

    def advance(self, n: float) -> None:
        """`n` more are done."""
        self._progress.advance(self._task, n)  # type: ignore[arg-type]


def _on_terminal() -> bool:
    """Not what rich says, which FORCE_COLOR, as notebooks set it, makes take anything for a terminal."""
    return sys.stderr.isatty()


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0, *, shown: bool = True) -> Iterator[Bar]:
    """A bar on stderr for `total` items, `done` of them before; silent where stderr is no terminal, within another, or if not `shown`."""
    global _shown  # noqa: PLW0603  one terminal
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    outermost, _shown = not _shown, True
    try:
        with Progress(*columns, console=console, disable=not (shown and outermost and _on_terminal())) as bar:
            yield Bar(bar, bar.add_task(title, total=total, completed=done))
    finally:
        _shown = not outermost
