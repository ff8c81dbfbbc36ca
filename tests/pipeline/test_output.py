"""A command whose output nobody reads any more, or whose terminal cannot show it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def test_a_command_that_nobody_reads_says_so(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nas", "data", "phantom", str(tmp_path / "scans"), "--shape", "16,32,32"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == (
        "nas: nobody reads the output any more, so this stops; run the same command again to continue\n"
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_cannot_show_a_character_shows_another_one(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "scans").mkdir()
    np.save(tmp_path / "scans" / "nière_µ.npy", np.arange(960, dtype=np.uint16).reshape(8, 10, 12))
    command = [sys.executable, "-m", "nas", "data", "check", str(tmp_path / "scans"), "--out", str(tmp_path / "p")]
    known = {**os.environ, "PYTHONIOENCODING": encoding, "NAS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=known, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"8 x 10 x 12" in done.stdout
