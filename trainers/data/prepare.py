"""Opens a volume as memory maps; the first time, it is converted into the cache."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from pydantic import ValidationError

from search_spaces.errors import InputError
from trainers.atomic import put_in_place
from trainers.data.convert import IMAGE, LABEL, STATISTICS, VESSELS, convert, needed_bytes
from trainers.data.masks import MOST_VESSEL
from trainers.data.place import VolumeSource
from trainers.data.statistics import VolumeStatistics
from trainers.data.volume import HIGH_PERCENTILE, LOW_PERCENTILE, Volume
from trainers.report import SILENT, Report

CACHE_VARIABLE = "NAS_CACHE"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def default_cache() -> Path:
    """The folder for converted volumes: $NAS_CACHE, or else vessel-nas in the user's cache folder.

    Raises InputError for a user without a home, as in some containers, and for one who is not known here (~NAME).
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    place = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vessel-nas"
    try:
        return place.expanduser()
    except RuntimeError:
        raise InputError(
            f"{place}: there is no such home; set {CACHE_VARIABLE} to a folder for converted volumes"
        ) from None


def prepare(source: VolumeSource, cache: Path, report: Report = SILENT) -> Volume:
    """The volume as memory maps in `<cache>/<key>/`, converted first if it is not there yet.

    A conversion appears under its name only once it is complete and on disk; a killed one continues where it stopped,
    and a second process waits for the first. Progress in slices, and what was changed, are reported.
    Raises InputError for voxels that cannot be used, a full disk, and a cache that cannot be written.
    """
    try:
        folder = cache / source.key
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    part = cache / f"{source.key}.part"
    try:
        volume = _open(source, folder)
        if volume is not None:
            return _told(source, volume, cache, report)
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f"{source.key}.lock", source.name, report):
            volume = _open(source, folder)
            if volume is None:
                if folder.exists():
                    report.note(f"{source.name}: its converted files are damaged and are made again")
                    shutil.rmtree(folder)
                _check_room(source, cache, part)
                convert(source, part, report)
                put_in_place(part, folder)
                volume = _open(source, folder)
    except OSError as error:
        raise _explain(source, cache, part, error) from error
    assert volume is not None, f"{folder} was written and cannot be opened"
    return _told(source, volume, cache, report)


def doubts(statistics: VolumeStatistics) -> tuple[str, ...]:
    """What everybody who uses a converted volume should know, every time."""
    share = statistics.vessel_share
    if share is None or share <= MOST_VESSEL:
        return ()
    return (f"{share:.0%} of its voxels are labelled as vessel: are its labels inverted, or those of the whole organ?",)


def statistics_of(source: VolumeSource, cache: Path) -> VolumeStatistics:
    """The statistics of a volume that `prepare` has opened."""
    return VolumeStatistics.model_validate_json((cache / source.key / STATISTICS).read_bytes())


def _told(source: VolumeSource, volume: Volume, cache: Path, report: Report) -> Volume:
    if source.label is not None:
        for doubt in doubts(statistics_of(source, cache)):
            report.note(f"{source.name}: {doubt}")
    return volume


def _open(source: VolumeSource, folder: Path) -> Volume | None:
    """The converted volume, or None if there is none or its files are incomplete."""
    try:
        statistics = VolumeStatistics.model_validate_json((folder / STATISTICS).read_bytes())
        image = np.load(folder / IMAGE, mmap_mode="r", allow_pickle=False)
        label = np.load(folder / LABEL, mmap_mode="r", allow_pickle=False) if source.label is not None else None
        vessels = np.load(folder / VESSELS, mmap_mode="r" if source.label is not None else None, allow_pickle=False)
    except (FileNotFoundError, EOFError, ValueError, ValidationError):
        return None
    if any(array is not None and array.shape != source.shape for array in (image, label)):
        return None
    return Volume(
        name=source.name,
        kidney=source.kidney,
        image=image,
        label=label,
        vessel_voxels=vessels,
        spacing_um=source.spacing_um,
        annotated=source.annotated,
        grey_low=statistics.percentiles[LOW_PERCENTILE],
        grey_high=statistics.percentiles[HIGH_PERCENTILE],
        content_hash=statistics.content_hash,
        soft=source.soft and source.soft.hashed(statistics.levels_hash),
        grey_meaning=statistics.meaning,
    )


@contextmanager
def _alone(path: Path, name: str, report: Report) -> Iterator[None]:
    """Only one process converts a volume; the operating system frees the lock of a killed process."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report.note(f"{name}: another process is converting it; waiting until it is done")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_room(source: VolumeSource, cache: Path, part: Path) -> None:
    present = sum(file.stat().st_size for file in part.iterdir()) if part.is_dir() else 0
    free = shutil.disk_usage(cache).free
    if free < needed_bytes(source) - present:
        raise _no_room(source, cache, needed_bytes(source) - present, free)


def _no_room(source: VolumeSource, cache: Path, needed: int, free: int) -> InputError:
    return InputError(
        f"{cache}: no room to convert {source.name}: {needed / 1e9:.2f} GB more are needed and {free / 1e9:.2f} GB are "
        f"free; free some space, or set {CACHE_VARIABLE} to a folder on another disk"
    )


def _explain(source: VolumeSource, cache: Path, part: Path, error: OSError) -> Exception:
    if error.errno in _NO_ROOM:
        # The partial result is removed: it would fill the disk for everybody, which is worse than losing it.
        shutil.rmtree(part, ignore_errors=True)
        return _no_room(source, cache, needed_bytes(source), shutil.disk_usage(cache).free)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
        where = error.filename or cache
        return InputError(f"{where}: cannot be written ({error.strerror}); set {CACHE_VARIABLE} to another folder")
    return error
