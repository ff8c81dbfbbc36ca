"""The dashboard answers its own pages only, and changes nothing unless it was told to."""

import socket
import struct
import threading
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from nas.commands.dashboard_guard import Guarded, OwnPictures, new_token, open_server, quiet
from search_spaces.errors import InputError

OWN = "127.0.0.1:8080"


def dashboard(asked: dict[str, Any], answer: Any) -> Iterable[bytes]:
    """Stands for the real one: it answers everybody, and lets every page read the answer."""
    answer("200 OK", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*")])
    return [b"secret"]


def ask(
    guarded: Guarded,
    method: str = "GET",
    path: str = "/api/studies",
    host: str = OWN,
    query: str = "",
    port: str = "80",
    **headers: str,
) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    asked: dict[str, Any] = {}
    setup_testing_defaults(asked)
    asked |= {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "HTTP_HOST": host,
        "QUERY_STRING": query,
        "SERVER_PORT": port,
    }
    asked |= {f"HTTP_{name.upper()}": value for name, value in headers.items()} | {"wsgi.input": BytesIO()}
    said: dict[str, Any] = {}

    def answer(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        said.update(status=status, headers=dict(headers))

    parts = guarded(asked, answer)
    body = b"".join(parts)
    getattr(parts, "close", lambda: None)()  # as a server does, of a file
    return said["status"], said["headers"], body


@pytest.mark.parametrize("host", [OWN, "localhost:8080", "[::1]:8080", "LOCALHOST:8080", "127.0.0.1"])
def test_it_answers_under_the_names_of_this_machine(host: str) -> None:
    status, headers, body = ask(Guarded(dashboard, "127.0.0.1"), host=host)
    assert (status, body) == ("200 OK", b"secret")
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.", "", "@", "[::1", "[", "]:8080"],
)
def test_it_answers_under_no_other_name(host: str) -> None:
    status, _, body = ask(Guarded(dashboard, "127.0.0.1"), host=host)
    assert status == "403 Forbidden" and b"secret" not in body


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://[x"},
        {"origin": f"http://{OWN}.evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
    ],
)
def test_another_web_page_gets_no_answer(headers: dict[str, str]) -> None:
    assert ask(Guarded(dashboard, "127.0.0.1", writes=True), **headers)[0] == "403 Forbidden"


def test_a_link_on_another_page_may_be_followed() -> None:
    visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(Guarded(dashboard, "127.0.0.1"), path="/dashboard", **visit)[0] == "200 OK"
    assert ask(Guarded(dashboard, "127.0.0.1", writes=True), "POST", **visit)[0] == "403 Forbidden"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_changed_unless_it_was_told_to(method: str) -> None:
    own = {"origin": f"http://{OWN}", "sec_fetch_site": "same-origin"}
    status, _, body = ask(Guarded(dashboard, "127.0.0.1"), method, **own)
    assert status == "403 Forbidden" and b"--write" in body
    assert ask(Guarded(dashboard, "127.0.0.1", writes=True), method, **own)[0] == "200 OK"
    assert ask(Guarded(dashboard, "127.0.0.1", writes=True), method)[0] == "403 Forbidden"


def test_where_others_can_ask_they_need_the_token_that_was_printed() -> None:
    token = new_token("0.0.0.0")
    assert token is not None and len(token) >= 20
    guarded = Guarded(dashboard, "0.0.0.0", token=token)
    there = "workstation.lab:8080"
    assert ask(guarded, host=there)[0] == "403 Forbidden"
    assert ask(guarded, host=there, query="token=wrong")[0] == "403 Forbidden"
    status, headers, body = ask(guarded, host=there, path="/dashboard/studies/0", query=f"token={token}&a=1")
    assert (status, headers["Location"], body) == ("303 See Other", "/dashboard/studies/0?a=1", b"")
    for path, place in (
        ("//evil.example/", "/evil.example/"),  # a path here, not another machine
        ("/\\evil.example/", "/%5Cevil.example/"),  # for browsers a / too
        ("/a\r\nSet-Cookie: b=1", "/a%0D%0ASet-Cookie%3A%20b%3D1"),
    ):
        assert ask(guarded, host=there, path=path, query=f"token={token}")[1]["Location"] == place
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert ask(guarded, host=there, cookie=cookie.partition(";")[0])[0] == "200 OK"
    assert ask(guarded, host=there, cookie="nas_token_80=wrong")[0] == "403 Forbidden"


def test_on_an_address_of_its_own_only_that_address_is_known() -> None:
    token = new_token("10.0.0.5")
    guarded = Guarded(dashboard, "10.0.0.5", token=token)
    assert ask(guarded, host="10.0.0.5:8080", cookie=f"nas_token_80={token}")[0] == "200 OK"
    assert ask(guarded, host="evil.example:8080", cookie=f"nas_token_80={token}")[0] == "403 Forbidden"
    assert new_token("127.0.0.1") is None


def test_dashboards_on_several_ports_keep_their_tokens_apart() -> None:
    names = []
    for port in ("8080", "8081"):
        guarded = Guarded(dashboard, "0.0.0.0", token="t")
        headers = ask(guarded, host=f"lab:{port}", query="token=t", port=port)[1]
        names.append(headers["Set-Cookie"].partition("=")[0])
    assert names == ["nas_token_8080", "nas_token_8081"]


def _artifact(kind: str, path: str = "/artifacts/0/0/ID") -> dict[str, str]:
    """The headers with which something of a kind is served from among the pictures."""

    def inner(asked: dict[str, Any], answer: Any) -> Iterable[bytes]:
        answer("200 OK", [("Content-Type", kind), ("Content-Disposition", "inline")])
        return [b"<script>alert(1)</script>"]

    return ask(Guarded(inner, "127.0.0.1"), path=path)[1]


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "text/javascript", "image/png, text/html", "IMAGE/PNG"])
@pytest.mark.parametrize("path", ["/artifacts/0/0/ID", "//artifacts/0/ID"])
def test_what_stands_among_the_pictures_is_no_page_of_the_dashboard(kind: str, path: str) -> None:
    headers = _artifact(kind, path)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == "attachment"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox;")


def test_a_picture_is_shown_as_what_it_is() -> None:
    headers = _artifact("image/png")
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Security-Policy"].startswith("sandbox;")


@pytest.mark.parametrize("asked", [{}, {"host": "evil.example"}, {"query": "token=t"}])
def test_no_answer_is_shown_in_a_frame_or_taken_for_another_kind(asked: dict[str, str]) -> None:
    headers = ask(Guarded(dashboard, "127.0.0.1", token="t"), **asked)[1]
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_pictures_are_files_of_the_run_and_no_links(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (tmp_path / "id_rsa").write_text("secret")
    (folder / "a").write_text("picture")
    (folder / "b").symlink_to(tmp_path / "id_rsa")
    (folder / "c").mkdir()
    store = OwnPictures(folder)
    with store.open_reader("a") as file:
        assert file.read() == b"picture"
    for name in ("b", "c", "d", "../id_rsa", "..", "/etc/passwd"):
        with pytest.raises(ArtifactNotFound):
            store.open_reader(name)


@pytest.mark.parametrize("other", ['prefs={"a":1}', "a=b c", 'k="v', "é=1", "=;;;[]{}()<>", "nas_token_80x=1"])
def test_cookies_of_other_programs_do_not_hide_the_token(other: str) -> None:
    guarded = Guarded(dashboard, "0.0.0.0", token="secret-token")
    assert ask(guarded, cookie=f"{other}; nas_token_80=secret-token")[0] == "200 OK"
    assert ask(guarded, cookie=f"{other}; nas_token_80=another")[0] == "403 Forbidden"


def test_a_request_that_the_dashboard_does_not_expect_is_answered_in_a_line() -> None:
    def broken(asked: dict[str, Any], answer: Any) -> Iterable[bytes]:
        raise KeyError("HTTP_ACCEPT_ENCODING")

    status, headers, body = ask(Guarded(broken, "127.0.0.1"))
    assert (status, body) == ("500 Internal Server Error", b"nas: the dashboard cannot answer this\n")
    assert headers["X-Frame-Options"] == "DENY"


def test_a_client_that_resets_the_connection_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def slow(asked: dict[str, Any], answer: Any) -> Iterable[bytes]:
        answer("200 OK", [("Content-Type", "text/plain")])
        yield from [b"x" * 2**20] * 50

    server = open_server(slow, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for _ in range(3):
        client = socket.create_connection(("127.0.0.1", server.server_port))
        client.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        client.recv(10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        client.close()
    server.shutdown()
    thread.join()
    server.server_close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("no.such.name.invalid", "--host no.such.name.invalid is not an address or a name"),
        ("192.0.2.1", "--host 192.0.2.1 is not an address of this machine"),
        ("fe80::1", "--host fe80::1 is not an address of this machine"),  # of some interface, which is not named
        ("a" * 300, "is not an address or a name that this machine knows"),
    ],
)
def test_a_host_that_cannot_be_listened_on_is_named(host: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_server(dashboard, host, 0)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1:{port} cannot be listened on: .*; try another --port"):
            open_server(dashboard, "127.0.0.1", port)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/favicon.ico", ""),
        ("/static/../../etc/passwd", ""),
        ("/static/gone.js", ""),
        ("/api/studies/0", "after=x"),
        ("/api/studies/x", ""),
        ("/api/studies/7", ""),
        ("/artifacts/0/../../x", ""),
    ],
)
def test_no_request_prints_a_traceback(path: str, query: str, capfd: pytest.CaptureFixture[str]) -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage)
    capfd.readouterr()  # Optuna says that it made one
    status, _, body = ask(Guarded(quiet(optuna_dashboard.wsgi(storage)), "127.0.0.1"), path=path, query=query)
    assert status[:3] in ("200", "302", "400", "403", "404", "500") and b"root:" not in body
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed and printed.count("\n") <= 1, printed
