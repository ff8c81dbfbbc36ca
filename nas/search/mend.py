"""What a kill or a full disk leaves in a run folder: found when a driver starts, mended if nothing can be lost.

Only the holder of the run folder's lock may call this, so that everything half-written belongs to a process that is
gone.
"""

import re
import shutil
import time
from pathlib import Path

from pydantic_core import from_json

from nas.study.journal_lock import JournalLock
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.atomic import sync_folder, whole_file
from trainers.checkpoint import damaged_checkpoints

_LINE_START = b'{"op_code":'  # of every line that Optuna writes
# Our temporary names beside the trials, where users may keep files too.
_OURS = re.compile(r"\.(best|phantoms|.+\.(json|toml|md|mark|journal))\.\d+")
_RETRAIN_SECONDS = 3600.0  # much longer than it takes to write a bundle


def mend(folder: RunFolder) -> list[str]:
    """What was wrong and has been mended, one line each. Raises InputError for what cannot be mended."""
    return [*_journal(folder), *_trials(folder), *_rest(folder)]


def _journal(folder: RunFolder) -> list[str]:
    """Take out lines that a kill or a full disk cut short, and keep them beside the journal; free the journal's lock.

    The driver writes their content again. Lines are only ever appended, so only the end is torn, or what was the end
    before something else, such as a dashboard's note, was appended right after it. Any other damage has another cause,
    and taking such a line out would change the numbers of all later trials.
    """
    journal, found = folder.journal, list[str]()
    if not journal.is_file():
        return found
    lock = JournalLock(folder, is_driver=True, say=found.append)
    lock.acquire()  # a dashboard may be writing
    try:
        whole, torn = _part(journal)
        if not torn:
            return found
        with journal.with_name(f"{journal.name}.torn").open("ab") as kept:
            kept.writelines(torn)
        with whole_file(journal) as file:
            file.writelines(whole)
    finally:
        lock.release()
    count = sum(map(len, torn))
    return [*found, f"{journal.name}: cut off {count} torn bytes ({journal.name}.torn keeps them)"]


def _part(journal: Path) -> tuple[list[bytes], list[bytes]]:
    """The whole lines of a journal, and the torn pieces between them. Raises InputError for any other damage."""
    whole: list[bytes] = []
    torn: list[bytes] = []
    bad: int | None = None
    with journal.open("rb") as file:
        for number, line in enumerate(file, start=1):
            good = line if _good(line) else _behind(line)
            if good is None:
                bad = bad or number
                torn.append(line)
            elif bad is not None:
                raise InputError(
                    f"{journal} is damaged in line {bad}, before lines that are whole: restore it from a copy, or "
                    "search in another --run"
                )
            else:
                whole.append(good)
                torn += [line.removesuffix(good)] if good is not line else []
    return whole, torn


def _behind(line: bytes) -> bytes | None:
    """The whole line that was written right after a torn one; None if there is none."""
    starts = [at for at in range(1, len(line)) if line.startswith(_LINE_START, at)]
    return next((line[at:] for at in starts if _good(line[at:])), None)


def _good(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        known = from_json(line)
        return isinstance(known, dict) and isinstance(known.get("op_code"), int)
    except ValueError:
        return False


def _trials(folder: RunFolder) -> list[str]:
    """Remove half-written files and checkpoints, and what an ended trial should no longer have."""
    found = []
    places = [(f"trial {number}", place.path, place.checkpoints) for number, place in folder.trial_folders()]
    places += [(f"cell search {name}", place.path, place.checkpoints) for name, place in folder.cell_folders()]
    for what, path, checkpoints in places:
        if halves := _halves(path, checkpoints, path / "genotypes"):
            found.append(f"{what}: removed {halves} half-written file(s) or checkpoint(s)")
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


def _rest(folder: RunFolder) -> list[str]:
    """Remove half-written files beside the trials; those of retrainings, which hold no lock, only after an hour."""
    found = []
    if halves := _halves(folder.path, ours=_OURS) + _halves(folder.retrained, older_than=_RETRAIN_SECONDS):
        found.append(f"removed {halves} half-written file(s) or bundle(s)")
    for old in (*folder.path.glob(".best.old"), *folder.retrained.glob(".*.old")):
        new = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
        if not new.exists():  # killed between putting the old one away and the new one in its place
            old.rename(new)
            found.append(f"put {new.name} back, which was to be replaced")
    return found


def _halves(*parents: Path, older_than: float = 0.0, ours: re.Pattern[str] = re.compile(r"\..+\.\d+")) -> int:
    """Remove what was being written under a temporary name, `.NAME.PID`; returns how many there were."""
    halves = [half for parent in parents for half in parent.glob(".*.*") if ours.fullmatch(half.name)]
    halves = [half for half in halves if time.time() - half.lstat().st_mtime >= older_than]
    for half in halves:
        shutil.rmtree(half) if half.is_dir() and not half.is_symlink() else half.unlink()
    return len(halves)
