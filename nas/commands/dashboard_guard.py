"""What stands between the Optuna dashboard, which has no login, and web pages: who may ask, and what is answered.

A web page that a user visits can send requests to a server on the user's machine, under a name of its own (DNS
rebinding) or from its own origin. The dashboard would answer both. And a study may be a stranger's: what it gives out
as pictures may be pages, which must not act as the dashboard's own.
"""

import errno
import hmac
import logging
import os
import secrets
import socket
import socketserver
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from search_spaces.errors import InputError

Environment = dict[str, Any]
Answer = Callable[..., Any]
Application = Callable[[Environment, Answer], Iterable[bytes]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
_READING = ("GET", "HEAD")
_RASTER = ("image/png", "image/jpeg", "image/gif", "image/webp")  # pictures that hold no script
_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Guarded:
    """The dashboard, asked only by its own pages.

    host: the address it listens on. writes: whether anything may be changed. token: what a browser must know; None on
    a loopback address, which only this machine reaches.
    """

    inner: Application
    host: str
    writes: bool = False
    token: str | None = None

    def __call__(self, asked: Environment, answer: Answer) -> Iterable[bytes]:
        """Answer a request, or say in one line why not."""
        is_picture = asked.get("PATH_INFO", "").lstrip("/").startswith("artifacts/")

        def own(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return answer(status, _safe(headers, is_picture), *more)

        return self._answered(asked, own)

    def _answered(self, asked: Environment, answer: Answer) -> Iterable[bytes]:
        if (why := self._refusal(asked)) is not None:
            answer("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"nas: {why}\n".encode()]
        query = dict(parse_qsl(asked.get("QUERY_STRING", "")))
        if self.token is not None and "token" in query:  # out of the address, where others may look over a shoulder
            rest = urlencode({key: value for key, value in query.items() if key != "token"})
            path = quote(asked.get("PATH_INFO", "").lstrip("/"), encoding="latin-1")  # no \\, no line break
            place = f"/{path}?{rest}" if rest else f"/{path}"
            cookie = f"{_cookie(asked)}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            answer("303 See Other", [("Location", place), ("Set-Cookie", cookie)])
            return []
        asked.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # the dashboard counts on one
        try:
            return self.inner(asked, answer)
        except Exception as error:  # of a request that the dashboard does not expect
            logging.getLogger(__name__).debug("%s failed", asked.get("PATH_INFO"), exc_info=error)
            answer("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"nas: the dashboard cannot answer this\n"]

    def _refusal(self, asked: Environment) -> str | None:
        named = asked.get("HTTP_HOST", "")
        if not self._is_known(named):
            return f"{named!r} is not a name of this dashboard; open the address that `nas dashboard` printed"
        origin, site = asked.get("HTTP_ORIGIN"), asked.get("HTTP_SEC_FETCH_SITE", "none")
        foreign = origin is not None and origin.partition("://")[2] != named
        # No frame, in which clicks would be another page's.
        page = asked.get("HTTP_SEC_FETCH_DEST", "document") == "document"
        visited = page and asked.get("HTTP_SEC_FETCH_MODE") == "navigate" and asked["REQUEST_METHOD"] in _READING
        if foreign or (site not in ("none", "same-origin") and not visited):
            return "another web page asked"
        if self.token is not None and not self._knows(asked, self.token):
            return "open the address that `nas dashboard` printed, with its token"
        if asked["REQUEST_METHOD"] not in _READING:
            if not self.writes:
                return "this dashboard only shows; start it with --write to change the study"
            if origin is None:
                return "a change must come from the dashboard's own page"
        return None

    def _is_known(self, named: str) -> bool:
        try:
            name = urlsplit(f"//{named}").hostname or ""
        except ValueError:  # as of [::1
            return False
        if self.host in LOOPBACK:
            return name in LOOPBACK
        return self.host in EVERYWHERE or name == self.host.lower()  # everywhere: the token decides

    def _knows(self, asked: Environment, token: str) -> bool:
        given = [dict(parse_qsl(asked.get("QUERY_STRING", ""))).get("token", "")]
        # By hand: http.cookies stops at the first cookie that it finds odd, and those of other programs come along.
        cookies = (cookie.strip().partition("=") for cookie in asked.get("HTTP_COOKIE", "").split(";"))
        given += [value for name, _, value in cookies if name == _cookie(asked)]
        return any(hmac.compare_digest(one.encode(), token.encode()) for one in given)


def _cookie(asked: Environment) -> str:
    """The token's name: a browser sends all cookies of a machine to each of its ports."""
    return f"nas_token_{asked['SERVER_PORT']}"


def _safe(headers: list[tuple[str, str]], is_picture: bool) -> list[tuple[str, str]]:
    """The headers of an answer that other pages may not read, with what a browser may do with it.

    What stands among the pictures and may be a page or a script is downloaded as a file without a kind.
    """
    kept = {name.title(): value for name, value in headers if not name.lower().startswith("access-control-")} | _HEADERS
    if not is_picture:  # the dashboard has a policy of its own, which holds beside this one
        return [*kept.items(), ("Content-Security-Policy", "frame-ancestors 'none'")]
    if kept.get("Content-Type") not in _RASTER:
        kept |= {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
    return [*kept.items(), ("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")]


def quiet(dashboard: Any) -> Application:
    """The Optuna dashboard without tracebacks on our terminal: what it raises is answered by `Guarded`, in a line."""
    dashboard.catchall = False  # of bottle, which would print it
    logging.getLogger("optuna_dashboard._bottle_util").addFilter(_first_line)
    return dashboard  # type: ignore[no-any-return]


def _first_line(record: logging.LogRecord) -> bool:
    """Keep a message's first line: what follows is a traceback."""
    record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True


def new_token(host: str) -> str | None:
    """What a browser must know to see a dashboard on this address; None where only this machine can ask."""
    return None if host in LOOPBACK else secrets.token_urlsafe(16)


class OwnPictures(FileSystemArtifactStore):
    """The pictures of a run: files that lie in its folder, not what a link there points to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(base_path=str(folder))
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """A picture. Raises ArtifactNotFound for everything else."""
        try:
            handle = os.open(self._folder / Path(artifact_id).name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ArtifactNotFound(f"{artifact_id} is not there") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ArtifactNotFound(f"{artifact_id} is not a file")
        return os.fdopen(handle, "rb")


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone before it has its answer is no news to who reads the terminal."""
        logging.getLogger(__name__).debug("an answer to %s was cut short", client_address, exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """A line for every request would hide the address."""


def open_server(application: Application, host: str, port: int) -> WSGIServer:
    """A server that answers several requests at once. Raises InputError if it cannot listen there."""
    kind = _Server6 if ":" in host else _Server
    try:
        return make_server(host, port, application, server_class=kind, handler_class=_Quiet)
    except (socket.gaierror, UnicodeError, TypeError) as error:
        raise InputError(f"--host {host} is not an address or a name that this machine knows") from error
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):  # fe80::1 without its %interface is the latter
            raise InputError(f"--host {host} is not an address of this machine") from error
        where = f"[{host}]" if ":" in host else host
        why = error.strerror or error
        raise InputError(f"{where}:{port} cannot be listened on: {why}; try another --port") from error


def stop(server: WSGIServer) -> None:
    """End `serve_forever`, from a signal handler too: a request that is being answered does not lose it."""
    threading.Thread(target=server.shutdown, daemon=True).start()
