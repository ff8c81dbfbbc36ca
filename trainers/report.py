"""Report: how long-running work tells its user about events and progress."""

from collections.abc import Callable
from dataclasses import dataclass, replace


def _ignore(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Report:
    """The functions that receive the news of a piece of work; by default they ignore it."""

    note: Callable[[str], None] = _ignore  # something the user should know, as a sentence
    progress: Callable[[str, int, int], None] = _ignore  # the name of the work, the amount done, the total
    remark: Callable[[str], None] = _ignore  # a few words beside the progress that replace the previous ones: the loss

    def part(self, before: int, count: int, size: int = 1) -> "Report":
        """A report for work that makes up `size` of `count` equal parts of a whole, of which `before` are done."""

        def progress(what: str, done: int, total: int) -> None:
            self.progress(what, 1000 * before + 1000 * size * done // total, 1000 * count)

        return replace(self, progress=progress)

    def of(self, owner: str) -> "Report":
        """A report for one of several things whose work has the same name: puts `owner` in front of that name."""
        return replace(self, progress=lambda what, done, total: self.progress(f"{owner}: {what}", done, total))


SILENT = Report()
