"""Notes and progress bars for commands that take long."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from search_spaces.errors import printable
from trainers.report import Report


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """A report whose notes are lines, and whose progress is one bar per kind of work."""
    bars = progress_bars(console)
    tasks: dict[str, TaskID] = {}
    latest = ""

    def progress(what: str, done: int, total: int) -> None:
        nonlocal latest
        latest = what
        bars.start()  # not before: bars that never were leave an empty line
        if what not in tasks:
            tasks[what] = bars.add_task(what)
        bars.update(tasks[what], completed=done, total=total)

    def remark(text: str) -> None:
        if latest in tasks:
            bars.update(tasks[latest], description=f"{latest} ({text})")

    try:
        yield Report(lambda text: console.print(f"note: {printable(text)}", soft_wrap=True), progress, remark)
    finally:
        if tasks:
            bars.stop()


def progress_bars(console: Console) -> Progress:
    """Bars with their share done and the time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
    )
