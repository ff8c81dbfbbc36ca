"""Which program wrote a result."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def program_version() -> str:
    """The release, and the commit if the program runs from a checkout: "0.1.0+3f2a91c", with "-dirty" if edited."""
    try:
        release = version("vessel-nas")
    except PackageNotFoundError:
        release = "0"
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return release  # installed from a wheel, or no git here
    return f"{release}+{answer.stdout.strip()}"
