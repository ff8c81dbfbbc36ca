"""The URL of a study's database: what may be shown of it, what it is remembered by, and TLS beyond this machine.

Only a URL that reads the same for everybody is used: a password with a bare `@` or `/` in it could send the rest of it
to another host, or into a message.
"""

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import parse_qsl

from search_spaces.errors import InputError

_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?)://(?:(?P<user>[^:@/?#]*)(?::[^@/?#]*)?@)?"
    r"(?P<host>[\w.-]*|\[[\w:.%]+\])(?::(?P<port>\d+))?(?:/(?P<database>[\w.%+-]*))?(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
_SCHEME = re.compile(r"postgres(?:ql)?:/*|[a-z][a-z0-9+]*://")
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # of TLS, the strictest last


@dataclass(frozen=True)
class StorageUrl:
    """The parts of a URL."""

    text: str
    user: str
    host: str  # empty: where libpq looks by itself
    port: str
    database: str
    options: tuple[tuple[str, str], ...]  # behind the ?

    @property
    def mark(self) -> str:
        """What it is remembered by: all of it but the password."""
        options = [option for option in self.options if option[0] != "password"]
        return json.dumps(["storage", self.user, self.host, self.port, self.database, options])

    def with_tls(self) -> str:
        """The URL, asking for TLS unless it says itself how to connect, or the server is on this machine.

        What the environment asks for (PGSSLMODE, a service file) is never weakened. Raises ModuleNotFoundError without
        psycopg.
        """
        options = dict(self.options)
        usual = _environment()
        host = options.get("hostaddr") or usual.get("hostaddr") or options.get("host") or self.host or usual.get("host")
        asked = usual.get("sslmode", "prefer")
        if {"sslmode", "service"} & options.keys() or asked not in _MODES or _is_here(host or ""):
            return self.text
        mode = max("require", asked, key=_MODES.index)
        return f"{self.text}{'&' if '?' in self.text else '?'}sslmode={mode}"


def read_url(url: str) -> StorageUrl:
    """The parts of a URL. Raises InputError, without its password, if it cannot be used."""
    found = _URL.fullmatch(url)
    if found is None:
        raise InputError(
            f"the storage {shown(url)} cannot be used: a study lies in postgresql://USER@HOST/DATABASE, and its "
            "password in PGPASSWORD or ~/.pgpass"
        )
    user, host, port, database, query = (found[part] or "" for part in ("user", "host", "port", "database", "query"))
    return StorageUrl(url, user, host.strip("[]"), port, database, tuple(parse_qsl(query, keep_blank_values=True)))


def shown(url: str) -> str:
    """What may be shown of a URL: scheme, host, port and database where they are sure, otherwise the scheme alone."""
    if (found := _URL.fullmatch(url)) is None:
        scheme = _SCHEME.match(url)
        return f"{scheme[0] if scheme else ''}..."
    port, database = (
        f"{before}{found[part]}" if found[part] else "" for before, part in ((":", "port"), ("/", "database"))
    )
    return f"{found['scheme']}://{found['host']}{port}{database}"


def _environment() -> dict[str, str]:
    """What libpq takes from the environment and the user's service file where a URL says nothing."""
    from psycopg.pq import Conninfo

    known = Conninfo.get_defaults()
    return {one.keyword.decode(): one.val.decode(errors="replace") for one in known if one.val}


def _is_here(hosts: str) -> bool:
    """Whether all hosts of a list are this machine, or sockets on it."""
    return all(not host or host.startswith(("/", "@")) or _is_loopback(host) for host in hosts.split(","))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
