"""Nothing in a folder of this program leads out of it, whoever made the folder."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from search_spaces.errors import InputError


def refuse_links(folder: Path, guarded: str | None = None) -> None:
    """Raise InputError, naming the entry, if a link below `folder` leads out of it, or an entry is a pipe or a device.

    So what is read, replaced or deleted there lies there, and reading it ends. A folder that does not exist holds none.
    guarded: a folder in it of which the caller follows no link.
    """
    whole = folder.resolve()
    for entry in _entries(folder):
        if guarded is not None and Path(entry.path).parent == folder / guarded:
            continue
        if entry.is_symlink():
            if not Path(entry.path).resolve().is_relative_to(whole):
                raise InputError(
                    f"{entry.path} is a link that leads out of {folder}; remove it, or copy its target there"
                )
        elif not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
            raise InputError(f"{entry.path} is no file but a pipe or a device; remove it")


def _entries(path: Path | str) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, apart from what another process removes meanwhile; links are not followed."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
        for entry in found:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)
