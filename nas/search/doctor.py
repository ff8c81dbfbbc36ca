"""Checks of machine, data and run folder, and what would help."""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel

from nas.config.runs import read_run
from nas.search.mend import mend
from results.run_folder import RUNS, RunFolder
from search_spaces.errors import InputError
from trainers.data.prepare import default_cache

Level = Literal["fine", "notice", "problem", "repaired"]
LOW_DISK_GIB = 20


class Finding(BaseModel, frozen=True, extra="forbid"):
    """One thing that was looked at."""

    level: Level
    what: str

    def line(self) -> str:
        """As printed."""
        return f"{self.level:>8}  {self.what}"


def examine(run: Path | None) -> list[Finding]:
    """Look at the machine, then at the run folder if there is one."""
    return [*_libraries(), _device(), *_disks(), *_run(run)]


def _libraries() -> list[Finding]:
    names = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "optuna", "numpy")
    found = ", ".join(f"{name} {version(name)}" for name in names)
    return [Finding(level="fine", what=f"Python {sys.version.split()[0]}, {found}")]


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(level="notice", what="no GPU that torch can use: searches run on the CPU (preset demo or cpu)")
    names = [
        f"{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB)"
        for i in range(torch.cuda.device_count())
    ]
    return Finding(level="fine", what=f"GPU: {', '.join(names)}")


def _disks() -> list[Finding]:
    try:
        cache = _free("converted volumes", default_cache())
    except InputError as error:
        cache = Finding(level="problem", what=str(error))
    return [_free("runs", RUNS), cache]


def _free(name: str, place: Path) -> Finding:
    there = next(p for p in (place, *place.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    return Finding(level="fine" if free > LOW_DISK_GIB else "notice", what=f"{free:.0f} GiB free for {name} ({place})")


def _run(run: Path | None) -> list[Finding]:
    try:
        config, folder = read_run(run, writes=True)
    except InputError as error:
        return [Finding(level="notice" if run is None else "problem", what=str(error))]
    found = [Finding(level="fine", what=f"run {folder.path}: configuration is readable")]
    if config.data.root is not None and not config.data.root.is_dir():
        found.append(Finding(level="problem", what=f"the scans of this run are gone: {config.data.root}"))
    found += _left_behind(folder)
    for number, place in folder.trial_folders():
        if not place.job.is_file():
            found.append(Finding(level="notice", what=f"trial {number}: not begun; the next search begins it"))
    return found


def _left_behind(folder: RunFolder) -> list[Finding]:
    """Mend what a kill left behind, unless a search that it may belong to is running."""
    try:
        with FileLock(folder.lock, timeout=0):
            return [Finding(level="repaired", what=what) for what in mend(folder)]
    except Timeout:
        return [Finding(level="notice", what="a search is running here: its files are left alone")]
    except InputError as error:
        return [Finding(level="problem", what=str(error))]
