"""`nas dashboard`: the Optuna dashboard on a run."""

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from nas.config.options import Run, RunPlace, Storage, one_run
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from results.run_folder import RunFolder


def dashboard(
    place: RunPlace = None,
    run: Run = None,
    storage: Storage = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: any that is free.")] = 8080,
    write: Annotated[
        bool, typer.Option("--write", help="Let its pages change the study: notes, names, trials.")
    ] = False,
) -> None:
    """Open the Optuna dashboard on a run."""
    from results.run_folder import ARTIFACTS, find

    _serve(find(one_run(place, run), guarded=ARTIFACTS, writes=write), storage, host, port, write)


def _serve(folder: "RunFolder", said: str | None, host: str, port: int, write: bool) -> None:
    """Serve the dashboard until interrupted. said: the storage that the command line names."""
    from optuna_dashboard import wsgi

    from nas.commands.dashboard_guard import Guarded, OwnPictures, new_token, open_server, quiet, stop
    from nas.config.study_config import read_study_config
    from nas.study.own_storages import storage_of
    from nas.study.storage import open_storage

    host = host.removeprefix("[").removesuffix("]")  # as an address shows it
    if not host:
        raise InputError("--host names no address; 0.0.0.0 listens on all of this machine's")
    config = read_study_config(folder)
    storage = open_storage(folder, storage_of(folder, config.storage, said))
    own = [study for study in storage.get_all_studies() if study.study_name == config.name]
    token = new_token(host)
    if write:
        folder.artifacts.mkdir(exist_ok=True)
    inner = quiet(wsgi(storage, artifact_store=OwnPictures(folder.artifacts)))
    server = open_server(Guarded(inner, host, write, token), host, port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop(server))
    page = f"studies/{own[0]._study_id}" if own else ""
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{server.server_port}/dashboard/{page}"
    print(f"{folder.path}: {address if token is None else f'{address}?token={token}'}   (Ctrl-C stops)", flush=True)
    with server:
        server.serve_forever()
