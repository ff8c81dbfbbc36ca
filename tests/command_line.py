"""The command `nas` in a process of its own, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path


def nas(
    *arguments: str | Path, cache: Path, expect: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it, and check how it ends."""
    command = [sys.executable, "-m", "nas", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, cwd=cwd, env={**os.environ, "NAS_CACHE": str(cache)}
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done
