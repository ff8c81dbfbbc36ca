"""Where the Optuna study lies (the run folder's journal, or a database server by its URL), and its pictures."""

import re
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from nas.config.storage_url import read_url, shown
from nas.study.journal_lock import JournalLock
from nas.study.own_storages import check_own
from results.run_folder import RunFolder
from search_spaces.errors import InputError

PATIENCE = 300.0  # seconds that a server may be away, as in a restart
OPENING = 30.0  # seconds that it may be away when a command begins, in which its address may also be wrong
_DRIVER = "postgresql+psycopg"
# Of errors that patience does not mend: the server is there, and says no.
_FINAL = re.compile(
    r"authentication failed|no password supplied|pg_hba|does not exist|does not support SSL|certificate"
)


def open_storage(folder: RunFolder, url: str | None, is_driver: bool = False) -> BaseStorage:
    """The storage that study and dashboard share; without a URL, the run folder's journal.

    is_driver: whether this process holds the run folder's lock. Raises InputError if a server cannot be reached or
    used, and for one that only a configuration names.
    """
    if url is None:
        return _journal(folder, is_driver)
    check_own(url)
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _opened(f"{_DRIVER}://{read_url(url).with_tls().partition('://')[2]}")
    except ModuleNotFoundError as error:
        needs = f"the storage {shown(url)} needs {error.name}"
        raise InputError(f"{needs}: pip install 'vessel-nas[postgres]'") from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"the storage {shown(url)} cannot be opened: {first}") from error


def _journal(folder: RunFolder, is_driver: bool) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(folder.journal.absolute()), JournalLock(folder, is_driver)))
    except OSError:
        raise
    except Exception as error:  # Optuna reads its lines without looking
        what = f"{folder.journal} is damaged ({type(error).__name__})"
        raise InputError(f"{what}; `nas doctor{folder.option}` says where") from error


def _opened(url: str) -> "PatientStorage":
    from sqlalchemy.exc import SQLAlchemyError

    began = time.monotonic()
    while True:
        try:
            return PatientStorage(url)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if not _server_is_away(error) or time.monotonic() - began > OPENING:
                raise
            time.sleep(min(1.0, OPENING / 10))


def pictures(folder: RunFolder) -> FileSystemArtifactStore:
    """Where the pictures of trials are kept for the dashboard."""
    folder.artifacts.mkdir(exist_ok=True)
    return FileSystemArtifactStore(base_path=str(folder.artifacts))


class PatientStorage(RDBStorage):
    """A database that may be restarted during a search: a question that it cannot answer is repeated for a while."""

    def __init__(self, url: str) -> None:
        from sqlalchemy.pool import NullPool

        # A new connection for each question costs milliseconds; an old one may be unknown to a restarted server.
        super().__init__(url, engine_kwargs={"poolclass": NullPool})
        self._numbers: dict[int, int] = {}  # study -> number of the trial that is created next

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        """A trial whose creation was done but not answered is not created again: only this process creates trials."""
        from optuna.storages._rdb.models import TrialModel

        of_study = session.query(TrialModel).filter_by(study_id=study_id)
        number = self._numbers.setdefault(study_id, of_study.count())
        made = of_study.filter_by(number=number).one_or_none()
        return made or super()._get_prepared_new_trial(study_id, template_trial, session)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        created = super()._create_new_trial(study_id, template_trial)
        self._numbers[study_id] = created.number + 1
        return created


def _server_is_away(error: BaseException | None) -> bool:
    """Whether the error is a lost connection, or was caused by one.

    If one is lost inside `get_trials`, Optuna asks again in the broken session, which then fails with another error.
    """
    from sqlalchemy.exc import InterfaceError, OperationalError

    while error is not None:
        if isinstance(error, OperationalError | InterfaceError):
            return _FINAL.search(str(error.orig)) is None
        error = error.__cause__ or error.__context__
    return False


def _patiently(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        from sqlalchemy.exc import SQLAlchemyError

        began, pause, asked_before = time.monotonic(), 0.2, False
        while True:
            try:
                answer = method(self, *arguments, **named)
                # If the first answer to "is it mine?", a yes, was lost on its way, the second answer is no.
                return True if asked_before and method.__name__ == "set_trial_state_values" else answer
            except optuna.exceptions.UpdateFinishedTrialError:
                if not asked_before:
                    raise
                return True  # the lost answer was yes
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                if not _server_is_away(error):
                    raise
                if not asked_before:
                    print("nas: note: the storage does not answer; retrying for a while", file=sys.stderr)
                asked_before = True
                if time.monotonic() - began > PATIENCE:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 5.0)

    return call


# Optuna puts a cache in front of a database; the cache calls the methods whose names begin with an underscore.
_ASKED_BY_THE_CACHE = ("_create_new_trial", "_set_trial_param", "_get_best_trial_id", "_get_trials")
for _name in (*BaseStorage.__abstractmethods__, *_ASKED_BY_THE_CACHE):
    setattr(PatientStorage, _name, _patiently(getattr(PatientStorage, _name)))
