"""Which storages this user has named. A run folder's configuration is data: it may come from a stranger.

A storage that only a run folder names is not connected to: libpq would send the password of the environment there.
"""

import hashlib
import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from nas.config.study_config import hide_password
from results.run_folder import RunFolder
from search_spaces.errors import InputError

_named: set[str] = set()  # by this process


def check_own(folder: RunFolder, url: str) -> None:
    """Raise InputError for a storage that the run folder names, and no command of this user ever did."""
    if _mark(url) not in _known():
        raise InputError(
            f"{folder.path} names the storage {hide_password(url)}, which none of your commands has named: if it is "
            "yours, repeat it with --storage"
        )


def remember(url: str) -> None:
    """From now on a run folder may name this storage; in this process only where the user has no folder for it."""
    file = _file()
    known = _mark(url) in _known()
    _named.add(_mark(url))
    if file is None or known:
        return
    with suppress(OSError):  # then the user names it each time
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as marks:
            marks.write(f"{_mark(url)}\n")


def with_tls(url: str) -> str:
    """A URL that asks for TLS, unless it says how to connect, or the server is on this machine."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    host = options.get("hostaddr") or options.get("host") or parts.hostname or ""
    if "sslmode" in options or not host or host.startswith("/") or _is_loopback(host):
        return url
    return f"{url}{'&' if parts.query else '?'}sslmode=require"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _known() -> set[str]:
    file = _file()
    try:
        return _named if file is None else _named | set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return _named


def _file() -> Path | None:
    """Where the marks are kept: hashes, because a URL may hold a password."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        home = Path(state) if state else Path.home() / ".local" / "state"
    except RuntimeError:  # no home, as in some containers
        return None
    return home / "vessel-nas" / "storages"


def _mark(url: str) -> str:
    return hashlib.sha256(url.partition("://")[2].encode()).hexdigest()
