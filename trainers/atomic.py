"""Files and folders that appear under their name only once they are whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder that is called `path` at the end of the context; after an exception it is gone.

    At most an empty folder of that name may be there.
    """
    part = aside(path)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Replace the text of a file, as `whole_file` does."""
    with whole_file(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename inside it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
