"""What this user has named on the command line. A run folder's configuration is data: it may come from a stranger.

So a place outside of the run folder counts only if a command of this user ever named it.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

_named: set[str] = set()  # by this process


def remember(what: str) -> None:
    """From now on a run folder may name this; in this process only where the user has no folder for it."""
    file, mark = _file(), _mark(what)
    known = mark in _known()
    _named.add(mark)
    if file is None or known:
        return
    with suppress(OSError):  # then the user names it each time
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as marks:
            marks.write(f"{mark}\n")


def is_named(what: str) -> bool:
    """Whether a command of this user has named it."""
    return _mark(what) in _known()


def _known() -> set[str]:
    file = _file()
    try:
        return _named if file is None else _named | set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return _named


def _file() -> Path | None:
    state = os.environ.get("XDG_STATE_HOME")
    try:
        home = Path(state) if state else Path.home() / ".local" / "state"
    except RuntimeError:  # no home, as in some containers
        return None
    return home / "vessel-nas" / "named"


def _mark(what: str) -> str:
    """A hash: who reads the file need not know the places."""
    return hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()
