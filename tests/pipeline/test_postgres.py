"""A search whose study lies on a PostgreSQL server that is restarted under it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import nas
from postgres import Postgres

pytestmark = pytest.mark.slow


def _rows(run: Path) -> list[dict[str, Any]]:
    spent = {"train_seconds", "peak_memory_gib"}
    rows = json.loads((run / "leaderboard.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key not in spent} for row in rows]


def test_a_server_restarted_under_a_search_costs_it_nothing(
    run: Path, config: Path, cache: Path, tmp_path: Path
) -> None:
    server, folder = Postgres(), tmp_path / "away"
    try:
        command = [sys.executable, "-m", "nas", "search", str(config), "--run", str(folder)]
        driver = subprocess.Popen(
            [*command, "--storage", server.url],
            env={**os.environ, "NAS_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, away in enumerate((1.0, 8.0, 2.0)):
            deadline = time.monotonic() + 240
            while not (folder / f"trials/{number:04d}/candidate.json").is_file() and driver.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            server.stop()
            time.sleep(away)
            server.start()
        printed, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0, printed
        assert _rows(folder) == _rows(run)
        assert (
            "2 of 2 candidates begun; with fixed trials, 3 complete"
            in nas("status", "--run", folder, cache=cache).stdout
        )
    finally:
        server.remove()
