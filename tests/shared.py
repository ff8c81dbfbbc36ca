"""What is made once for a whole test session, by whichever of its processes comes first."""

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """`place`, which `make` fills under another name, so that it is there only when it is whole."""
    with FileLock(f"{place}.lock"):
        if not place.exists():
            part = place.with_name(f"{place.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(place)
    return place
