"""Files and folders that appear under their name only once they are whole."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_FLUSHING_THREADS = 16  # every file waits for the disk once, and the waits of many threads are one


def aside(path: Path) -> Path:
    """The temporary name, in the same folder, under which this process makes what will be called `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end of the context; after an exception it is gone.

    Readers see the old content or the new one, never a part, also after a power cut. The umask says who may read it.
    """
    part = aside(path)
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:  # never through a link that somebody else put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path, replacing: bool = False) -> Iterator[Path]:
    """A new folder that gets the name `path` at the end of the context, as by `put_in_place`; gone after an exception.

    Folders above it are made. What is written into it needs no flushing of its own.
    """
    part = aside(path)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        put_in_place(part, path, replacing)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_in_place(part: Path, path: Path, replacing: bool = False) -> None:
    """Give a complete folder its name, once everything in it is flushed to disk.

    replacing: it takes the place of a folder of that name; otherwise only an empty one may be there, or OSError is
    raised. A kill or a power cut leaves under `path` what was there before or all of the new folder, never a part of
    it; while one folder replaces another there is a moment when neither is, and the old one is called `.NAME.old`. The
    unfinished folder may stay behind under its temporary name.
    """
    _flush(part)
    old = path.with_name(f".{path.name}.old")
    if replacing and path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    part.replace(path)
    sync_folder(path.parent)
    if replacing:
        shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Flush a folder with all files and folders below it."""
    below = [Path(parent, name) for parent, _, names in os.walk(folder) for name in (*names, ".")]
    with ThreadPoolExecutor(_FLUSHING_THREADS) as pool:
        list(pool.map(_sync, below))


def write_atomically(path: Path, text: str) -> None:
    """Replace the text of a file, as `whole_file` does."""
    with whole_file(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename inside it survives a power cut."""
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
