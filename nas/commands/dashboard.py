"""`nas dashboard`: the Optuna dashboard on a run."""

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nas.config.options import Run

if TYPE_CHECKING:
    from results.run_folder import RunFolder

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def dashboard(
    run: Run = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Open the Optuna dashboard on a run."""
    from results.run_folder import find

    folder = find(run)
    if host not in LOOPBACK:
        print(
            f"nas: warning: {host} can be reached from other machines, and the dashboard has no login: anyone who "
            "reaches it can read, rename and delete the study",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _serve(folder, host, port)


def _serve(folder: "RunFolder", host: str, port: int) -> None:
    """Serve the dashboard until interrupted."""
    from optuna_dashboard import run_server

    from nas.config.study_config import read_study_config
    from nas.study.storage import open_storage, pictures

    config = read_study_config(folder)
    storage = open_storage(folder, config.storage)
    own = [study for study in storage.get_all_studies() if study.study_name == config.name]
    page = f"studies/{own[0]._study_id}" if own else ""
    print(f"{folder.path}: http://{host}:{port}/dashboard/{page}   (Ctrl-C stops)", flush=True)
    run_server(storage, host=host, port=port, artifact_store=pictures(folder))
