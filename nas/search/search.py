"""A search from configuration to leaderboard and exported leader; it holds the lock of its run folder."""

from dataclasses import dataclass

from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError

from nas.bundles.export import export_best
from nas.config.runs import with_kept_cache
from nas.config.search_config import SearchConfig
from nas.config.write import write_config
from nas.jobs.failures import FULL
from nas.jobs.kidneys import check_same_data, open_folds
from nas.search.driver import Driver
from nas.search.mend import mend
from nas.search.needed_weights import starting_note
from nas.search.planning import is_planned
from nas.search.preflight import preflight
from nas.search.view import View
from nas.study.own_storages import check_own
from nas.study.study import changed_by_others, open_study
from nas.workers.executor import Executor
from nas.workers.launcher import Launcher
from nas.workers.local import LocalLauncher, devices, workers_on_cpu
from nas.workers.signals import stop_on_signal
from results.leaderboard.leaderboard import Leaderboard
from results.run_folder import RunFolder, remember
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.report import Report


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves: the leaderboard, and whether it was told to stop before its budget was used up."""

    board: Leaderboard
    stopped: bool


def run_search(
    config: SearchConfig, folder: RunFolder, view: View, workers: int | None = None, cluster: str | None = None
) -> SearchResult:
    """Search, or continue a search, until its budget is used up or it is told to stop.

    workers: how many. If not given: one per GPU; on the CPU one, but with a time limit as many as train most, for then
    the order in which trials end differs from run to run anyway. cluster: address of a Ray cluster whose nodes run
    them. Raises InputError if the run folder belongs to another search or another driver, or if the data cannot be
    used.
    """
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=1)  # `nas status` holds it for a moment, to see whether a search does
    except Timeout as error:
        raise InputError(f"another search is running in {folder.path}; wait for it, or choose another --run") from error
    try:
        return _search(config, folder, view, workers, cluster)
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = error.filename or folder.path
        raise InputError(
            f"the disk is full: no space left for {where}; free some, then run the same command again to continue"
        ) from error
    except StorageInternalError as error:
        what = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"the storage of the study failed: {what}; run the same command again to continue") from error
    except Exception as error:
        if (done := changed_by_others(error)) is None:
            raise
        raise InputError(
            f"{done} while the search ran, as the buttons of a dashboard do; run the same command again to continue"
        ) from error
    finally:
        lock.release()


def _search(
    config: SearchConfig, folder: RunFolder, view: View, workers: int | None, cluster: str | None
) -> SearchResult:
    check_own(config.study.storage)  # before the minutes that follow
    for mended in mend(folder):
        view.note(mended)
    report = Report(view.note, view.working)
    folds = open_folds(config, folder, report)
    fold = folds[0]
    if workers is None and cluster is None and is_planned(config) and devices(config.device) == ["cpu"]:
        workers = workers_on_cpu()
    # Workers take seconds to start; meanwhile the driver checks what it is going to ask of them.
    with Executor(_launcher(config, folder, cluster), folder.worker_log, workers) as executor:
        possible = preflight(config, fold, report, folder.buildable, folds[1:])
        if (starts := starting_note(config, possible)) is not None:
            view.note(starts)
        check_same_data(folder, folds)
        if not folder.config.is_file() and not folder.trial_folders():
            folder.journal.unlink(missing_ok=True)  # of a search that never began, perhaps with other settings
        study = open_study(folder, config)
        # Written only now: a mistake in the settings must not bind the folder to them, nor hide the run before it.
        write_atomically(folder.config, write_config(with_kept_cache(config, folder)))
        remember(folder)
        driver = Driver(study, config, folder, tuple(each.kidney for each in folds), view, possible)
        if driver.has_work():
            executor.open()
            with stop_on_signal(driver.stop):
                driver.run(executor)
    board = driver.board()
    if board.best is not None and not export_best(folder, board.best, config, fold):
        again = f"nas retrain {board.best}{folder.option}"
        view.note(f"the weights of trial {board.best} were not kept; `{again}` trains it again")
    return SearchResult(board, stopped=driver.stop.is_set())


def _launcher(config: SearchConfig, folder: RunFolder, cluster: str | None) -> Launcher:
    if cluster is None:
        return LocalLauncher(folder, config.device)
    from nas.workers.ray_cluster import RayLauncher

    return RayLauncher(folder, config, cluster)
