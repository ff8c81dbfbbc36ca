"""Report: where long work says what its user should know, and how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace


def _ignore(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Report:
    """Who hears of a piece of work: nobody, unless told otherwise."""

    note: Callable[[str], None] = _ignore  # something the user should know, as a sentence
    progress: Callable[[str, int, int], None] = _ignore  # the name of the work, how much of it is done, of how much
    remark: Callable[[str], None] = _ignore  # a few words beside the progress, in place of those before: the loss

    def part(self, before: int, count: int, size: int = 1) -> "Report":
        """For work that is `size` of the `count` equal parts of a whole, of which `before` are done."""

        def progress(what: str, done: int, total: int) -> None:
            self.progress(what, 1000 * before + 1000 * size * done // total, 1000 * count)

        return replace(self, progress=progress)

    def of(self, owner: str) -> "Report":
        """For one of several things whose work has the same names: `owner` is named before them."""
        return replace(self, progress=lambda what, done, total: self.progress(f"{owner}: {what}", done, total))


SILENT = Report()
