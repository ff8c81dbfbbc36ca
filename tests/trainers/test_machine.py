"""A container's share of cores and memory, as the kernel states it in control groups of version 1 and 2."""

import math
import os
from pathlib import Path

import psutil
import pytest

from trainers.machine import Groups, available_cores, free_memory, whole_memory

GIB = 2**30


def _groups(home: Path, own: str, files: dict[str, object]) -> Groups:
    """Control groups of these lines and files, as on a machine that has them."""
    for name, text in files.items():
        file = home / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    home.mkdir(exist_ok=True)
    (home / "own").write_text(f"{own}\n")
    return Groups(home / "own", home / "mounted")


IN_A_CONTAINER = {"cpu.max": "150000 100000", "memory.max": 4 * GIB, "memory.current": 3 * GIB,
                  "memory.stat": f"anon {GIB}\nactive_file {GIB // 2}\ninactive_file {GIB // 2}"}  # fmt: skip
VERSION_1 = {"cpu/cpu.cfs_quota_us": 150000, "cpu/cpu.cfs_period_us": 100000,
             "memory/memory.limit_in_bytes": 4 * GIB, "memory/memory.usage_in_bytes": 3 * GIB,
             "memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}\ntotal_active_file 0"}  # fmt: skip


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", IN_A_CONTAINER),
        ("0::/../../user.slice/not-mounted-here", IN_A_CONTAINER),
        ("0::/job/step", {f"job/{name}": text for name, text in IN_A_CONTAINER.items()}),
        ("9:name=systemd:/\n4:memory:/\n1:cpu,cpuacct:/\n0::/", VERSION_1),
        ("4:memory:/docker/0a1b\n1:cpuacct,cpu:/docker/0a1b", VERSION_1),
    ],
    ids=["version 2", "seen from outside", "the group above", "version 1", "version 1, seen from outside"],
)
def test_a_container_has_what_its_groups_allow(tmp_path: Path, own: str, files: dict[str, object]) -> None:
    groups = _groups(tmp_path, own, files)
    assert (groups.cores(), groups.memory(), groups.free_memory()) == (1.5, 4 * GIB, 2 * GIB)


def test_the_tightest_of_several_groups_counts(tmp_path: Path) -> None:
    files = {"a/memory.max": 2 * GIB, "a/memory.current": GIB, "a/b/memory.max": 3 * GIB, "a/b/memory.current": 0,
             "a/cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000"}  # fmt: skip
    groups = _groups(tmp_path, "0::/a/b", files)
    assert (groups.cores(), groups.memory(), groups.free_memory()) == (1, 2 * GIB, GIB)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max", "memory.current": GIB}),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}),
        ("0::/", {"cpu.max": "", "memory.max": "many"}),
        ("nothing that is known", {}),
    ],
    ids=["max", "-1", "unreadable", "other lines"],
)
def test_without_a_limit_the_machine_counts(tmp_path: Path, own: str, files: dict[str, object]) -> None:
    groups = _groups(tmp_path, own, files)
    assert (groups.cores(), groups.memory(), groups.free_memory()) == (math.inf, math.inf, math.inf)
    assert available_cores(groups) == len(os.sched_getaffinity(0))
    assert whole_memory(groups) == psutil.virtual_memory().total
    assert free_memory(groups) <= whole_memory(groups)


def test_what_is_smaller_counts(tmp_path: Path) -> None:
    small = _groups(tmp_path / "small", "0::/", {"cpu.max": "1000 100000", "memory.max": 1000, "memory.current": 999})
    assert (available_cores(small), whole_memory(small), free_memory(small)) == (1, 1000, 1)
    large = _groups(
        tmp_path / "large", "0::/", {"cpu.max": "99900000 100000", "memory.max": 2**60, "memory.current": 0}
    )
    assert available_cores(large) == len(os.sched_getaffinity(0))
    assert whole_memory(large) == psutil.virtual_memory().total


def test_a_machine_without_groups_is_used_whole(tmp_path: Path) -> None:
    assert Groups(tmp_path / "own", tmp_path / "mounted").memory() == math.inf
