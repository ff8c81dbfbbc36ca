"""What this process may use of the machine: cores and memory, of which a container often gets only a part.

Limits stand in the files of control groups (version 2, or 1), in the folder of this process's group and in those above
it. What cannot be read there is no limit.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Groups:
    """The control groups of a process, as the kernel shows them."""

    own: Path = Path("/proc/self/cgroup")  # a line for each hierarchy: number, controllers, path
    mounted: Path = Path("/sys/fs/cgroup")

    def cores(self) -> float:
        """Cores' worth of time that may be used; infinite without a limit."""
        limits = [math.inf]
        for folder in self._folders("cpu"):
            quota, period = _numbers(folder / "cpu.max", 2) or (
                *(_numbers(folder / "cpu.cfs_quota_us", 1) or (math.inf,)),
                *(_numbers(folder / "cpu.cfs_period_us", 1) or (1.0,)),
            )
            limits += [quota / period] if quota > 0 and period > 0 else []  # -1: no limit
        return min(limits)

    def memory(self) -> float:
        """Bytes that may be used; infinite without a limit."""
        return min((limit for limit, _ in self._memory()), default=math.inf)

    def free_memory(self) -> float:
        """Bytes of these that nothing uses now, or only copies of files; infinite without a limit."""
        return min((max(0.0, limit - used) for limit, used in self._memory()), default=math.inf)

    def _memory(self) -> Iterator[tuple[float, float]]:
        """Limit and use of every group that has both; the kernel drops its copies of files before it refuses memory."""
        for folder in self._folders("memory"):
            for limit_in, used_in in (("max", "current"), ("limit_in_bytes", "usage_in_bytes")):
                limit, used = (_numbers(folder / f"memory.{name}", 1) for name in (limit_in, used_in))
                if limit and used:
                    yield limit[0], used[0] - _copies_of_files(folder / "memory.stat")

    def _folders(self, controller: str) -> Iterator[Path]:
        """The folders of this process's groups and of those above them, as far as they are mounted here."""
        with suppress(OSError, ValueError):
            for line in self.own.read_text().splitlines():
                _, names, path = line.split(":", 2)
                if names and controller not in names.split(","):
                    continue
                top = self.mounted / controller if names else self.mounted
                place = top / path.strip("/")
                yield from (folder for folder in (place, *place.parents) if folder.is_relative_to(top))


def _numbers(file: Path, count: int) -> tuple[float, ...] | None:
    """The numbers in a file, of which "max" is infinite; None if it does not hold so many."""
    try:
        found = tuple(math.inf if word == "max" else float(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return None
    return found if len(found) == count else None


def _copies_of_files(file: Path) -> float:
    try:
        known = dict(line.split() for line in file.read_text().splitlines())
        before = "total_" if "total_active_file" in known else ""  # version 1, with the groups below
        return sum(float(known.get(f"{before}{name}_file", 0)) for name in ("active", "inactive"))
    except (OSError, ValueError):
        return 0.0


def available_cores(groups: Groups = Groups()) -> int:
    """Number of cores that this process may use: worker processes and containers are often limited."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(here, groups.cores())))


def whole_memory(groups: Groups = Groups()) -> int:
    """Bytes of memory that this process and those beside it may use in all."""
    return int(min(psutil.virtual_memory().total, groups.memory()))


def free_memory(groups: Groups = Groups()) -> int:
    """Bytes of memory that are free for this process now."""
    return int(min(psutil.virtual_memory().available, groups.free_memory()))
