"""The URL of a study's database: what may be shown of it, what it is remembered by, and TLS beyond this machine.

Only a URL that reads the same for everybody is used: a password with a bare `@` or `/` in it could send the rest of it
to another host, or into a message.
"""

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import zip_longest
from urllib.parse import parse_qsl, unquote, urlencode

from search_spaces.errors import InputError

_HOST = r"(?:[\w.%-]*|\[[\w:.%]+\])(?::\d+)?"  # with its port; an escaped one is the folder of a socket
_URL = re.compile(
    r"(?P<before>(?P<scheme>postgres(?:ql)?)://(?:(?P<user>[^:@/?#]*)(?::[^@/?#]*)?@)?)"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<database>[\w.%+-]*))?(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
_SCHEME = re.compile(r"postgres(?:ql)?:/*|[a-z][a-z0-9+]*://")
_PLAIN_HOST = re.compile(r"[\w.-]*|[\w:.%]+|[/@][\w./@-]*", re.ASCII)
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # of TLS, the strictest last


@dataclass(frozen=True)
class StorageUrl:
    """The parts of a URL."""

    text: str
    before: str  # scheme, user and password, up to the host
    user: str
    host: str  # one, or several with commas between them; empty: where libpq looks by itself
    port: str  # as many as hosts, or empty
    database: str
    options: tuple[tuple[str, str], ...]  # behind the ?

    @property
    def mark(self) -> str:
        """What it is remembered by: all of it but the password."""
        options = [option for option in self.options if option[0] != "password"]
        return json.dumps(["storage", self.user, self.host, self.port, self.database, options])

    def with_tls(self) -> str:
        """The URL for SQLAlchemy, asking for TLS unless it says itself how to connect, or all hosts are this machine.

        What the environment asks for (PGSSLMODE, a service file) is never weakened. Raises ModuleNotFoundError without
        psycopg.
        """
        options = dict(self.options)
        usual, text = _environment(), self._for_sqlalchemy()
        hosts = options.get("host") or self.host or usual.get("host") or ""
        addresses = options.get("hostaddr") or usual.get("hostaddr") or ""
        asked = usual.get("sslmode", "prefer")
        if {"sslmode", "service"} & options.keys() or asked not in _MODES or _are_here(hosts, addresses):
            return text
        mode = max("require", asked, key=_MODES.index)
        return f"{text}{'&' if '?' in text else '?'}sslmode={mode}"

    def _for_sqlalchemy(self) -> str:
        """The same URL; several hosts, or the folder of a socket, go behind the ?: there SQLAlchemy reads them, too."""
        options = dict(self.options)
        hosts = options.get("host") or self.host
        if "," not in hosts and not self.host.startswith(("/", "@")):
            return self.text
        ports = options.get("port") or self.port
        if ports and "," not in ports:  # one for all
            ports = ",".join([ports] * (hosts.count(",") + 1))
        places = {"host": hosts, **({"port": ports} if ports else {})}
        return f"{self.before}/{self.database}?{urlencode({**options, **places})}"


def read_url(url: str) -> StorageUrl:
    """The parts of a URL. Raises InputError, without its password, if it cannot be used."""
    found = _URL.fullmatch(url)
    hosts, ports = ([], []) if found is None else _hosts(found["hosts"])
    if found is None or not all(map(_PLAIN_HOST.fullmatch, hosts)):
        raise InputError(
            f"the storage {shown(url)} cannot be used: a study lies in postgresql://USER@HOST/DATABASE, and its "
            "password in PGPASSWORD or ~/.pgpass"
        )
    options = tuple(parse_qsl(found["query"] or "", keep_blank_values=True))
    if len(dict(options)) < len(options):  # for libpq the last one counts, for SQLAlchemy all of them
        raise InputError(
            f"the storage {shown(url)} has an option twice; several hosts are ?host=FIRST,SECOND&port=5432,5433"
        )
    host, port = ",".join(hosts), ",".join(ports) if any(ports) else ""
    return StorageUrl(url, found["before"], found["user"] or "", host, port, found["database"] or "", options)


def _hosts(text: str) -> tuple[list[str], list[str]]:
    """Names, addresses or folders of the hosts before a path, and their ports, as libpq reads them."""
    hosts, ports = [], []
    for one in text.split(","):
        bracketed, _, rest = one.removeprefix("[").partition("]") if one.startswith("[") else ("", "", one)
        name, _, port = rest.partition(":")
        hosts.append(bracketed or unquote(name))
        ports.append(port)
    return hosts, ports


def shown(url: str) -> str:
    """What may be shown of a URL: scheme, hosts, ports and database where they are sure, otherwise the scheme alone."""
    if (found := _URL.fullmatch(url)) is None:
        scheme = _SCHEME.match(url)
        return f"{scheme[0] if scheme else ''}..."
    return f"{found['scheme']}://{found['hosts']}{'/' if found['database'] else ''}{found['database'] or ''}"


def _environment() -> dict[str, str]:
    """What libpq takes from the environment and the user's service file where a URL says nothing."""
    from psycopg.pq import Conninfo

    known = Conninfo.get_defaults()
    return {one.keyword.decode(): one.val.decode(errors="replace") for one in known if one.val}


def _are_here(hosts: str, addresses: str) -> bool:
    """Whether all hosts of a list are this machine, or sockets on it. addresses: which libpq asks instead, if given."""
    pairs = zip_longest(hosts.split(","), addresses.split(","), fillvalue="")
    return all(_is_here(address or host) for host, address in pairs)


def _is_here(host: str) -> bool:
    try:
        return host in ("", "localhost") or host.startswith(("/", "@")) or ip_address(host).is_loopback
    except ValueError:
        return False
