"""The study on a PostgreSQL server: restarted under a search, out of reach, or in use by another run."""

import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest
from optuna.storages._rdb import storage as rdb
from optuna.storages._rdb.models import TrialModel
from optuna.trial import TrialState
from postgres import Postgres
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.config.storage_url import read_url, shown
from nas.study.own_storages import remember, storage_of
from nas.study.storage import open_storage
from nas.study.study import open_study
from results.run_folder import create
from search_spaces.errors import InputError


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    server = Postgres()
    remember(server.url)
    yield server
    server.remove()


def _config(url: str, name: str = "s") -> SearchConfig:
    return parse_config({"study": {"name": name, "storage": url}, "space": {"unet": {"encoder": ["resnet18"]}}}, "test")


@pytest.fixture(autouse=True)
def _impatient_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.storage.OPENING", 0.5)


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[threading.Thread]:
    """Do the work in a thread, and leave none behind, so that later tests find the server as it was."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()


def _one_trial(study: optuna.Study, value: float) -> int:
    """The number of a new trial, which has all that a search writes of one."""
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for step in range(3):
        trial.report(step, step)
    trial.set_user_attr("name", "one")
    study.tell(trial, value)
    return trial.number


@pytest.mark.slow
def test_a_server_that_is_restarted_loses_nothing_and_repeats_nothing(server: Postgres, tmp_path: Path) -> None:
    study = optuna.create_study(
        study_name="restarted", storage=open_storage(create(tmp_path), server.url), direction="maximize"
    )

    def restart() -> None:
        for away in (1.0, 9.0):  # longer than Optuna asks again by itself
            time.sleep(0.5)
            server.stop()
            time.sleep(away)
            server.start()

    told = 0
    with beside(restart) as thread:
        while thread.is_alive() or told < 60:
            assert _one_trial(study, told) == told
            told += 1
            assert len(study.get_trials(deepcopy=False)) == told
    trials = study.get_trials()
    assert [t.value for t in trials] == list(range(told))
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert all(len(t.intermediate_values) == 3 and len(t.params) == 1 for t in trials)


@pytest.mark.slow
def test_a_connection_lost_at_any_question_loses_nothing_and_repeats_nothing(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(create(tmp_path), server.url)
    study = optuna.create_study(study_name="lost", storage=storage, direction="maximize")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the server itself is there at once
    lost = set()

    def lose(connection: Connection, *asked: object) -> None:
        """Each place of Optuna's storage loses its connection the first time it asks or commits."""
        lines = tuple(frame.lineno for frame in traceback.extract_stack() if frame.filename == rdb.__file__)
        question = (asked[1] if asked else "commit", lines)
        if question not in lost:
            lost.add(question)
            server.end(connection.connection.dbapi_connection.info.backend_pid)

    event.listen(storage.engine, "before_cursor_execute", lose)
    event.listen(storage.engine, "commit", lose)
    for number in range(2):
        assert _one_trial(study, number) == number
        assert [t.value for t in study.get_trials()] == list(range(number + 1))
    assert len(lost) > 20
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert all(len(t.intermediate_values) == 3 and len(t.params) == 1 for t in study.trials)


@pytest.mark.slow
def test_a_trial_that_was_created_without_an_answer_exists_once(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study(study_name="unheard", storage=open_storage(create(tmp_path), server.url))
    study.enqueue_trial({"x": 0.5})
    with monkeypatch.context() as patch:
        commit, lost = Session.commit, []

        def commit_and_lose_the_answer(session: Session) -> None:
            created = any(isinstance(new, TrialModel) for new in session.identity_map.values())
            commit(session)
            if created and len(lost) < 2:
                lost.append(None)
                raise OperationalError("COMMIT", None, ConnectionError("the server is gone"))

        patch.setattr(Session, "commit", commit_and_lose_the_answer)
        study.enqueue_trial({"x": 0.25}, user_attrs={"name": "queued"})
        assert len(lost) == 2
    study.ask()
    assert [t.number for t in study.trials] == [0, 1]
    assert study.trials[1].user_attrs == {"name": "queued"}
    assert study.trials[1].state == TrialState.WAITING


@pytest.mark.slow
def test_a_study_of_another_run_folder_is_refused(server: Postgres, tmp_path: Path) -> None:
    config = _config(server.url, "mine")
    open_study(create(tmp_path / "one"), config)
    open_study(create(tmp_path / "one"), config)  # the same folder goes on
    with pytest.raises(InputError, match="the storage has a study 'mine' of another run folder; choose another name"):
        open_study(create(tmp_path / "two"), config)


def test_a_server_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    url = "postgresql://nas:secret@127.0.0.1:1/none"
    remember(url)
    with pytest.raises(InputError, match=r"storage postgresql://127.0.0.1:1/none cannot be opened: ") as caught:
        open_storage(create(tmp_path), url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shows"),
    [
        ("mysterious://host/db", "mysterious://..."),
        ("mysql://user:secret@host/db", "mysql://..."),
        ("postgresql:/user:secret@host/db", "postgresql:/..."),
        ("postgresql:u:secret@h", "postgresql:..."),
        ("postgresql://u:secret", "postgresql://..."),
        ("postgresql://u@h:5432/d#secret", "postgresql://..."),
        ("postgresql://me:se/secret@host/db", "postgresql://..."),  # for some the host is host, for others me
        ("postgresql://me:se@secret@host/db", "postgresql://..."),
        ("postgresql://secret/x@host/db", "postgresql://..."),
        ("postgresql://me:se@secret,b@host/db", "postgresql://..."),
        ("postgresql://me:secret@a,b@c/db", "postgresql://..."),
        ("postgresql://me:secret@h%2Cevil/d", "postgresql://h%2Cevil/d"),  # for libpq two hosts
        ("postgresql://me:secret@%2Frun%00/d", "postgresql://%2Frun%00/d"),
        ("me:secret@host", "..."),
        ("host=h password=secret dbname=d", "..."),
        ("not a url", "..."),
    ],
)
def test_a_storage_that_is_none_is_one_line_without_what_may_be_a_password(url: str, shows: str) -> None:
    with pytest.raises(InputError) as caught:
        remember(url)
    assert str(caught.value).startswith(f"the storage {shows} cannot be used: a study lies in postgresql://USER@HOST/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shows"),
    [
        ("postgresql://me:secret@db.lab:5433/d", "postgresql://db.lab:5433/d"),
        ("postgres://db.lab/d", "postgres://db.lab/d"),
        ("postgresql://me:secret@db.lab:1,b.lab:2/d", "postgresql://db.lab:1,b.lab:2/d"),
        ("postgresql://me:secret@%2Frun%2Fpostgresql:1/d", "postgresql://%2Frun%2Fpostgresql:1/d"),
        ("postgresql://me:s%40ecret@[::1]/d", "postgresql://[::1]/d"),
        ("postgresql:///d?host=/run/postgresql&password=secret", "postgresql:///d"),
        ("postgresql://host/db?user=a@b&passw%6Frd=secret&x=1", "postgresql://host/db"),
        ("postgresql://host/db?PASSWORD=secret", "postgresql://host/db"),
        ("postgresql://host/db?passfile=/home/me/secret", "postgresql://host/db"),
    ],
)
def test_only_scheme_host_port_and_database_are_shown(url: str, shows: str) -> None:
    assert shown(url) == shows


@pytest.mark.parametrize("options", ["host=db.lab&host=localhost", "sslmode=disable&sslmode=require"])
def test_an_option_that_is_given_twice_is_refused(options: str) -> None:
    """For libpq the last one counts, and SQLAlchemy asks all: with TLS decided by one, the other would be asked."""
    with pytest.raises(
        InputError, match=r"storage postgresql:///d has an option twice; several hosts are \?host="
    ) as no:
        read_url(f"postgresql://u:secret@/d?{options}&password=secret")
    assert "secret" not in str(no.value)


@pytest.mark.slow
def test_several_hosts_and_escaped_sockets_are_connected_to(server: Postgres, tmp_path: Path) -> None:
    folder = quote(str(server.folder), safe="")
    for place in (
        f"127.0.0.1:1,127.0.0.1:{server.port}",
        f"{folder}:{server.port}",
        f"{folder}:1,[::1]:1,localhost:{server.port}",
        f"/?host=/nowhere,{server.folder}&port={server.port}",
        f"localhost:{server.port}/?host=127.0.0.2,127.0.0.1",
    ):
        host, _, options = place.partition("/?")
        url = f"postgresql://nas:secret@{host}/postgres{'?' if options else ''}{options}"
        remember(url)
        assert open_storage(create(tmp_path), url).get_all_studies() is not None


@pytest.mark.slow
def test_a_server_that_comes_back_while_a_command_begins_is_waited_for(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.storage.OPENING", 30.0)
    server.stop()
    with beside(lambda: (time.sleep(2), server.start())[1]):
        assert open_storage(create(tmp_path), server.url).get_all_studies() is not None


def test_a_storage_that_only_a_run_folder_names_is_not_connected_to(tmp_path: Path) -> None:
    """A stranger's folder must not learn the password of this user's environment, or send them anywhere."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0.2)
        url = f"postgresql://u:secret@127.0.0.1:{stranger.getsockname()[1]}/d"
        with pytest.raises(
            InputError, match=r"run folder names the storage .*, which none of your commands has named"
        ) as caught:
            open_storage(create(tmp_path), url)
        assert "secret" not in str(caught.value)
        with pytest.raises(TimeoutError):
            stranger.accept()


def test_a_storage_that_was_named_once_is_known_whatever_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for password in ("", ":secret", ":another"):
        remember(f"postgresql://me{password}@127.0.0.1:1/named_once")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert len(file.read_text().splitlines()) == 1 and "secret" not in file.read_text()
    for url in ("postgresql://me:secret@127.0.0.1:1/named_once", "postgres://me@127.0.0.1:1/named_once?password=x"):
        with pytest.raises(InputError, match="cannot be opened"):
            open_storage(create(tmp_path / "run"), url)
    for other in ("you@127.0.0.1:1/named_once", "me@127.0.0.1:2/named_once", "me@127.0.0.1:1/named_once?host=evil"):
        with pytest.raises(InputError, match="which none of your commands has named"):
            open_storage(create(tmp_path / "run"), f"postgresql://{other}")


def test_a_storage_on_the_command_line_must_be_that_of_the_run(tmp_path: Path) -> None:
    folder, own = create(tmp_path / "run"), "postgresql://me@db.lab/d"
    assert storage_of(folder, own, None) == own
    assert storage_of(folder, own, "postgresql://me:pw@db.lab/d") == "postgresql://me:pw@db.lab/d"
    with pytest.raises(InputError, match=r"run keeps its study in postgresql://db.lab/d, not in postgresql://b.lab/d"):
        storage_of(folder, own, "postgresql://me@b.lab/d")
    with pytest.raises(InputError, match=r"run keeps its study in study.journal, not in postgresql://db.lab/d"):
        storage_of(folder, None, own)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("postgresql://u@db.lab/d", "postgresql://u@db.lab/d?sslmode=require"),
        ("postgresql://u@db.lab/d?connect_timeout=5", "postgresql://u@db.lab/d?connect_timeout=5&sslmode=require"),
        ("postgresql://u@db.lab/d?sslmode=disable", "postgresql://u@db.lab/d?sslmode=disable"),
        ("postgresql://u@127.0.0.1:5432/d", "postgresql://u@127.0.0.1:5432/d"),
        ("postgresql://u@localhost/d", "postgresql://u@localhost/d"),
        ("postgresql://u@[::1]/d", "postgresql://u@[::1]/d"),
        ("postgresql:///d", "postgresql:///d"),
        ("postgresql://u@/d?host=/run/postgresql", "postgresql://u@/d?host=/run/postgresql"),
        ("postgresql:///d?host=db.lab", "postgresql:///d?host=db.lab&sslmode=require"),
        ("postgresql://localhost/d?hostaddr=10.0.0.5", "postgresql://localhost/d?hostaddr=10.0.0.5&sslmode=require"),
        ("postgresql://u:p@localhost,[::1]/d", "postgresql://u:p@/d?host=localhost%2C%3A%3A1"),
        ("postgresql://localhost,db.lab/d", "postgresql:///d?host=localhost%2Cdb.lab&sslmode=require"),
        ("postgresql://a:1,b/d", "postgresql:///d?host=a%2Cb&port=1%2C&sslmode=require"),
        ("postgresql://a,b/d?sslmode=disable", "postgresql:///d?sslmode=disable&host=a%2Cb"),
        ("postgresql://u@h:5/d?host=a,b", "postgresql://u@/d?host=a%2Cb&port=5%2C5&sslmode=require"),
        ("postgresql:///d?host=/run/a,/run/b&port=5", "postgresql:///d?host=%2Frun%2Fa%2C%2Frun%2Fb&port=5%2C5"),
        ("postgresql://u@%2Frun%2Fpostgresql:5/d", "postgresql://u@/d?host=%2Frun%2Fpostgresql&port=5"),
        (  # where an address is empty, the host is asked
            "postgresql:///d?host=db.lab,a&hostaddr=,127.0.0.1",
            "postgresql:///d?host=db.lab%2Ca&hostaddr=%2C127.0.0.1&sslmode=require",
        ),
    ],
)
def test_beyond_this_machine_tls_is_asked_for(url: str, asked: str) -> None:
    assert read_url(url).with_tls() == asked


@pytest.mark.parametrize(
    ("environment", "url", "asked"),
    [
        ({"PGSSLMODE": "verify-full"}, "postgresql://db.lab/d", "verify-full"),
        ({"PGSSLMODE": "verify-ca"}, "postgresql://db.lab/d", "verify-ca"),
        ({"PGSSLMODE": "disable"}, "postgresql://db.lab/d", "require"),
        ({"PGSSLMODE": "verify-full"}, "postgresql://localhost/d", None),
        ({"PGHOST": "db.lab"}, "postgresql:///d", "require"),
        ({"PGHOST": "/run/postgresql"}, "postgresql:///d", None),
        ({"PGHOST": "localhost,db.lab"}, "postgresql:///d", "require"),
        ({"PGHOST": "db.lab"}, "postgresql://localhost/d", None),
        ({"PGHOSTADDR": "10.0.0.5"}, "postgresql://localhost/d", "require"),  # the address is what libpq connects to
    ],
)
def test_what_the_environment_says_of_the_connection_counts_and_is_never_weakened(
    environment: dict[str, str], url: str, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert read_url(url).with_tls() == (url if asked is None else f"{url}?sslmode={asked}")


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ('connection failed: FATAL:  password authentication failed for user "me"', False),
        ("connection failed: fe_sendauth: no password supplied", False),
        ('connection failed: FATAL:  database "d" does not exist', False),
        ("connection failed: server does not support SSL, but SSL was required", False),
        ("connection failed: Connection refused", True),
        ("FATAL:  the database system is starting up", True),
        ("server closed the connection unexpectedly", True),
    ],
)
def test_only_a_server_that_is_away_is_waited_for(
    said: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tried = "postgresql://me@127.0.0.1:1/away", []

    def fail(url: str) -> None:
        """Fail as said, and if asked once more, for good."""
        tried.append(url)
        why = "no password supplied" if len(tried) > 1 else said
        raise OperationalError("SELECT 'no pg_hba in what was asked'", None, ConnectionError(why))

    remember(url)
    monkeypatch.setattr("nas.study.storage.OPENING", 600.0)
    monkeypatch.setattr("nas.study.storage.PatientStorage", fail)
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage(create(tmp_path), url)
    assert (len(tried) > 1) == waits
