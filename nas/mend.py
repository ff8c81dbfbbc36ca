"""What a kill or a full disk leaves in a run folder: found when a driver starts, mended where nothing can be lost.

Only the holder of the run folder's lock may call this: everything that is half written belongs to a process that is
gone.
"""

import json
import os
import shutil
import time
from pathlib import Path

from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.checkpoint import damaged_checkpoints, sync_folder

_LOCK_SECONDS = 2.0  # a living dashboard holds the journal's lock for milliseconds


def mend(folder: RunFolder) -> list[str]:
    """What was wrong and has been mended, one line each. Raises InputError for what cannot be mended."""
    return [*_lock(folder.journal), *_journal(folder.journal), *_trials(folder)]


def _lock(journal: Path) -> list[str]:
    """Optuna's own lock of the journal; a process that was killed while it wrote has left it."""
    lock = journal.with_name(journal.name + ".lock")
    first = _changed(lock)
    if first is None:
        return []
    time.sleep(_LOCK_SECONDS)
    if _changed(lock) != first:
        return []
    lock.unlink(missing_ok=True)
    return [f"{journal.name}: removed the lock of a process that is gone"]


def _changed(lock: Path) -> int | None:
    try:
        return lock.lstat().st_mtime_ns  # it is a link: not the time of what it points to
    except FileNotFoundError:
        return None


def _journal(journal: Path) -> list[str]:
    """Cut a torn end off the journal, and keep it beside it. What it was about to say is said again by the driver.

    Lines are only ever added, so a kill or a full disk tears the end alone; a line that is damaged further up was
    damaged by something else, and taking it out would change the numbers of all trials after it.
    """
    if not journal.is_file():
        return []
    whole = 0  # bytes up to the end of the last good line
    bad: int | None = None
    with journal.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not _good(line):
                bad = bad or number
            elif bad is not None:
                raise InputError(
                    f"{journal} is damaged in line {bad}, before lines that are whole: restore it from a copy, or "
                    "search in another --run"
                )
            else:
                whole += len(line)
    size = journal.stat().st_size
    if size == whole:
        return []
    torn = journal.with_name(f"{journal.name}.torn")
    with journal.open("rb+") as file:
        file.seek(whole)
        with torn.open("ab") as kept:
            kept.write(file.read())
        file.truncate(whole)
        os.fsync(file.fileno())
    return [f"{journal.name}: cut off {size - whole} torn bytes at its end ({torn.name} keeps them)"]


def _good(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _trials(folder: RunFolder) -> list[str]:
    """Half-written files and checkpoints, and what an ended trial should not have any more."""
    found = []
    places = [(f"trial {number}", place.path, place.checkpoints) for number, place in folder.trial_folders()]
    places += [(f"cell search {name}", place.path, place.checkpoints) for name, place in folder.cell_folders()]
    for what, path, checkpoints in places:
        halves = [half for parent in (path, checkpoints) for half in parent.glob(".*.*")]
        for half in halves:
            shutil.rmtree(half) if half.is_dir() else half.unlink()
        if halves:
            found.append(f"{what}: removed {len(halves)} half-written file(s) or checkpoint(s)")
        for damaged in damaged_checkpoints(checkpoints):
            shutil.rmtree(damaged)
            found.append(f"{what}: removed a damaged checkpoint ({damaged.name}); the one before it counts")
        if checkpoints.is_dir():
            sync_folder(checkpoints)
    for number, place in folder.trial_folders():
        if place.record.is_file() and place.scratch.is_dir():
            shutil.rmtree(place.scratch)
            found.append(f"trial {number}: removed scratch files of an ended trial")
    return found
