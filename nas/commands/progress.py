"""Progress bars of commands that take long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@contextmanager
def step_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for one long piece of work; the callback takes (done, total)."""
    with retrain_progress(console) as report:
        yield lambda done, total: report("predicting", done, total, None)


@contextmanager
def retrain_progress(console: Console) -> Iterator[Callable[[str, int, int, float | None], None]]:
    """Progress of a retraining; the callback takes (phase, done, total, loss)."""
    bar = progress_bars(console)
    tasks: dict[str, TaskID] = {}

    def report(phase: str, done: int, total: int, loss: float | None) -> None:
        if phase not in tasks:
            tasks[phase] = bar.add_task(phase)
        words = phase if loss is None else f"{phase} (loss {loss:.3f})"
        bar.update(tasks[phase], completed=done, total=total, description=words)

    with bar:
        yield report


def progress_bars(console: Console) -> Progress:
    """Bars with their share done and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
    )
