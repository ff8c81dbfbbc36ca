"""A command whose output nobody reads any more."""

import os
import subprocess
import sys
from pathlib import Path


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
