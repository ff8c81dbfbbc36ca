"""The name of a converted volume in the cache, which changes whenever something in its files does."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainers.data.slices import Slices

# Part of every key: a new number makes every volume be converted again. Raise it when the converted files change.
CONVERSION_VERSION = 4
_SAMPLE_BYTES = 4 * 2**10  # of the beginning, the middle and the end of a file of images
_MOST_SAMPLED = 4_096  # files of images; a kidney has fewer slices, a Zarr store may have more chunks
_READ_BYTES = 2**22


def cache_key(name: str, said: str, image: Slices, label: Slices | None) -> str:
    """A name for what conversion makes of these files; said: all else that it depends on.

    Labels are corrected by hand, so every byte of them counts. Of images count names, sizes, times, and the bytes at
    the beginning, the middle and the end of each file: reading all of a kidney at every start would take minutes. The
    location of the folder makes no difference.
    """
    digest = hashlib.blake2b(f"{CONVERSION_VERSION} {name} {said}".encode(), digest_size=8)
    for stack in (image, label):
        if stack is not None:
            digest.update(f"\n{stack.geometry} {stack.dtype} {stack.choice}".encode())
            _add_names(digest, stack)
    every = -(-len(image.files) // _MOST_SAMPLED)
    for file in image.files:
        state = file.stat()
        digest.update(f"\n{state.st_size} {state.st_mtime_ns}".encode())
    for file in image.files[::every]:
        for part in _samples(file):
            digest.update(part)
    for file in label.files if label is not None else ():
        with file.open("rb") as opened:
            while part := opened.read(_READ_BYTES):
                digest.update(part)
    return f"{name}-{digest.hexdigest()}"


def _add_names(digest: Any, stack: Slices) -> None:
    """The names of a stack's files; those of one file or folder say nothing, so that it may be moved."""
    for file in stack.files:
        inside = file.relative_to(stack.path) if file != stack.path and stack.path in file.parents else file.name
        digest.update(f"\n{inside}".encode())


def _samples(file: Path) -> Iterable[bytes]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        for begin in sorted({0, max(0, size // 2 - _SAMPLE_BYTES // 2), max(0, size - _SAMPLE_BYTES)}):
            opened.seek(begin)
            yield opened.read(_SAMPLE_BYTES)
