"""The server of the Optuna dashboard on a run."""

from collections.abc import Callable

from nas.config.study_config import read_study_config
from nas.study.storage import open_storage, pictures
from results.run_folder import RunFolder

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(folder: RunFolder, host: str, port: int, on_start: Callable[[str], None]) -> None:
    """Serve the dashboard until interrupted; `on_start` gets its address."""
    from optuna_dashboard import run_server

    config = read_study_config(folder)
    storage = open_storage(folder, config.storage)
    own = [study for study in storage.get_all_studies() if study.study_name == config.name]
    page = f"studies/{own[0]._study_id}" if own else ""
    on_start(f"http://{host}:{port}/dashboard/{page}")
    run_server(storage, host=host, port=port, artifact_store=pictures(folder))
