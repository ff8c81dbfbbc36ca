"""Nothing in a folder of this program leads out of it, whoever made the folder."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from search_spaces.errors import InputError

LARGEST = 2**30  # bytes of a file that is read whole; the journal of a hundred thousand trials is smaller
_READ_WHOLE = {"", ".json", ".jsonl", ".toml", ".txt", ".md", ".journal", ".mark"}  # suffixes of such files
DEEPEST = 64  # folders in each other; this program makes six, and much that walks through them takes a call for each


def refuse_links(
    folder: Path,
    guarded: str | None = None,
    journal: str | None = None,
    appended: Callable[[str], bool] = lambda name: False,
) -> None:
    """Raise InputError, naming the entry, if a link below `folder` leads out of it, or if reading an entry may not end.

    That is a pipe, a device, or a text of more than LARGEST bytes. So what is read, replaced or deleted there lies
    there. A folder that does not exist holds none of them.
    guarded: a folder in it of which the caller follows no link. journal: the name of Optuna's file, whose lock is a
    link that nobody follows. appended: whether the caller adds to a file of this name; it must have no other name
    (hard link), under which what is added would appear, too.
    """
    whole = os.path.realpath(folder)
    for entry in _entries(folder):
        path = Path(entry.path)
        if guarded is not None and path.parent == folder / guarded:
            continue
        if entry.is_symlink():
            if not (journal is not None and path.parent == folder and _is_lock(path, journal)):
                _refuse_outward(path, folder, whole)
        elif entry.is_file(follow_symlinks=False):
            facts = _facts(entry)
            if facts is not None and facts.st_nlink > 1 and appended(entry.name):
                raise InputError(
                    f"{path} is also another file (a hard link), which would change with it; work in a copy of {folder}"
                )
            if facts is not None and facts.st_size > LARGEST and path.suffix in _READ_WHOLE:
                size = facts.st_size / 2**30
                raise InputError(f"{path} has {size:,.0f} GiB, far more than this program writes; remove it")
        elif not entry.is_dir(follow_symlinks=False):
            raise InputError(f"{path} is not a file but a pipe or a device; remove it")


def _facts(file: os.DirEntry[str]) -> os.stat_result | None:
    """The size of a file and how many names it has; None if it was removed meanwhile."""
    with suppress(FileNotFoundError):
        return file.stat(follow_symlinks=False)
    return None


def _refuse_outward(link: Path, folder: Path, whole: str) -> None:
    try:
        link.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{link} is a link that leads to itself; remove it") from error
    if not Path(os.path.realpath(link)).is_relative_to(whole):
        raise InputError(f"{link} is a link that leads out of {folder}; remove it, or copy its target there")


def _is_lock(link: Path, journal: str) -> bool:
    """Whether it is a lock as Optuna makes it: a link to the journal, by a path from where the command was started.

    Optuna only asks for its time, renames it (which adds to its name) and removes it. After a kill it stays.
    """
    try:
        return link.name.startswith(f"{journal}.lock") and link.readlink().name == journal
    except OSError:  # removed meanwhile
        return False


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, apart from what another process removes meanwhile; links are not followed."""
    waiting: list[tuple[str, int]] = [(str(folder), 1)]
    while waiting:
        path, depth = waiting.pop()
        if depth > DEEPEST:
            top = folder / Path(path).relative_to(folder).parts[0]
            raise InputError(f"{top} holds more than {DEEPEST} folders in each other; remove it")
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
            for entry in found:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))
