"""The same search on a Ray cluster of two nodes, one of which is lost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import nas, nas_process
from tiny import TINY

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, each with room for one worker."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.2"})
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")
    yield cluster
    cluster.shutdown()


def _rows(run: Path) -> list[dict[str, Any]]:
    spent = {"train_seconds", "peak_memory_gib"}
    rows = json.loads((run / "leaderboard.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key not in spent} for row in rows]


def test_a_search_on_a_cluster_that_loses_a_node_ends_as_a_local_one(cluster: Any, tmp_path: Path) -> None:
    config, cache = tmp_path / "tiny.toml", tmp_path / "cache"
    config.write_text(TINY)
    # What the sampler learns depends on who ends first; at random, trials are the same wherever they run.
    same = ("--set", "study.random_trials=9")
    nas("search", config, "--run", tmp_path / "local", "--workers", "2", *same, cache=cache)
    away = tmp_path / "away"
    # A process of its own, because Ray refuses to remove nodes from one that has connected to the cluster.
    three = ("--cluster", cluster.address, "--workers", "3")
    many = nas_process("search", config, "--run", away, *three, cache=cache, expect=1)
    assert many.stderr.strip().splitlines()[-1] == (
        "nas: the cluster has 2 CPUs, one for each worker; --workers 3 is too many"
    )
    command = [sys.executable, "-m", "nas", "search", str(config), "--run", str(away), "--cluster", cluster.address]
    command += ["--set", "study.checkpoint_seconds=0", *same]
    driver = subprocess.Popen(
        command,
        env={**os.environ, "NAS_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 300
    while len(list(away.glob("trials/*/checkpoint/step-*"))) < 2 and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, printed
    assert "its node or its process is gone" in printed
    assert _rows(away) == _rows(tmp_path / "local")


def test_a_cluster_that_does_not_answer_is_reported_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    done = nas(
        "search", config, "--run", tmp_path / "r", "--cluster", "127.0.0.1:1", cache=tmp_path / "cache", expect=1
    )
    assert done.stderr.strip().splitlines()[-1].startswith("nas: no Ray cluster answers at 127.0.0.1:1")
