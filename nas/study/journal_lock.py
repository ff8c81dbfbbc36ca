"""JournalLock: Optuna's lock of a journal, given up by a process that is gone, wherever the run folder lies now."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileSymlinkLock

from results.run_folder import RunFolder

GONE = 5.0  # seconds after which a lock that did not change is taken; who lives holds it for milliseconds


def _say(what: str) -> None:
    print(f"nas: note: {what}", file=sys.stderr)


class JournalLock(JournalFileSymlinkLock):
    """The link that Optuna makes, so that its own dashboard is kept out too.

    Optuna asks for the time of what the link names, by the path that the folder had when it was made. If the folder was
    moved or copied since, that path names nothing, or another journal, and Optuna waits for ever. Here the link itself
    counts. is_driver: whether this process holds the lock of the run folder, or nobody can; otherwise nothing is taken
    while a driver lives, however long it holds the journal. say: told when the lock of a process that is gone was
    removed.
    """

    def __init__(self, folder: RunFolder, is_driver: bool = False, say: Callable[[str], None] = _say) -> None:
        super().__init__(str(folder.journal.absolute()))
        self._link = folder.journal.with_name(f"{folder.journal.name}.lock").absolute()
        self._folder, self._is_driver, self._say = folder, is_driver, say

    def acquire(self) -> bool:
        """Wait until the lock is free or its holder is gone; True."""
        seen, since = None, 0.0
        while True:
            with suppress(FileExistsError):
                self._link.symlink_to(self._lock_target_file)
                return True
            made, now = self._made(), time.monotonic()
            if made != seen:
                seen, since = made, now
            elif made is not None and now - since > GONE:
                self._take(made)
            time.sleep(0.005)

    def _made(self) -> tuple[int, int] | None:
        """What tells this lock from the next; None if there is none."""
        try:
            found = self._link.lstat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _take(self, made: tuple[int, int]) -> None:
        if self._is_driver:
            self._remove(made)
            return
        with suppress(Timeout), FileLock(self._folder.lock, timeout=0):  # of several that wait, one removes it
            self._remove(made)

    def _remove(self, made: tuple[int, int]) -> None:
        if self._made() == made:
            self._link.unlink(missing_ok=True)
            self._say(f"{self._folder.journal.name}: removed the lock of a process that is gone")
