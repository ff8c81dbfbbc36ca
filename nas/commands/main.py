"""The command `nas`: parse, call one function, print.

Heavy imports happen inside the commands, so that `nas --help` answers at once.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nas.commands.bundle_cli import export_onnx, predict, retrain, tune
from nas.commands.console import AsJson, Run, Set, make_console
from nas.commands.data_cli import data_app
from nas.commands.label_cli import label
from nas.commands.weights_cli import weights_app
from nas.config.environment import ENVIRONMENT
from nas.workers.signals import goes_on
from search_spaces.errors import InputError

SHOWN_ROWS = 20  # of the leaderboard at the end of a search

# Before libraries are imported that read it then.
os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})

app = typer.Typer(
    name="nas",
    help="Search for the network that segments vessels best on a kidney it has not seen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")


def main() -> NoReturn:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 1."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # it logs line after line what it then raises
    try:
        app()
    except InputError as error:
        _stop(str(error))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _stop(f"{error.strerror or error}{where}")
    sys.exit(0)


def _stop(message: str) -> NoReturn:
    print(f"nas: {message}", file=sys.stderr)
    sys.exit(1)


@app.command()
@goes_on()
def search(
    config: Annotated[Path | None, typer.Argument(help="Configuration file.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="demo, cpu, sennet or source-table.", show_default=False)] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of scans; phantoms if not given.", show_default=False)
    ] = None,
    hold_out: Annotated[
        str | None, typer.Option(help="Kidney to rank on; never trained on.", show_default=False)
    ] = None,
    run: Run = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Candidates to try.", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Time limit of the search.", show_default=False)] = None,
    families: Annotated[str | None, typer.Option(help="Of unet,cells,hybrid,sam.", show_default=False)] = None,
    storage: Annotated[str | None, typer.Option(help="URL of a PostgreSQL database.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="If not one a GPU.", show_default=False)] = None,
    cluster: Annotated[str | None, typer.Option(help="Address of a Ray cluster.", show_default=False)] = None,
    set_: Set = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also export the best as ONNX.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build every choice, print its cost, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search: try networks, rank them on the held-out kidney, export the best. Run again, it goes on."""
    from nas.workers.process import warm_up

    if cluster is None and not dry_run:
        warm_up()  # this process and that one take seconds to import torch
    from nas.commands.live import make_view
    from nas.commands.tables import leaderboard_table
    from nas.config.runs import open_run
    from results.leaderboard.leaderboard import reading

    flags = {
        "data.root": data.absolute() if data else None,
        "data.hold_out": hold_out,
        "study.trials": trials,
        "study.minutes": minutes,
        "study.storage": storage,
        "space.families": families.split(",") if families else None,
    }
    overrides = [f"{key}={json.dumps(v, default=str, ensure_ascii=False)}" for key, v in flags.items() if v is not None]
    if onnx:
        from results.bundles.onnx import require_onnx

        require_onnx()
    settings, folder = open_run(config, preset, run, [*overrides, *(set_ or [])], has_data=data is not None)
    console = make_console(as_json)
    if dry_run:
        from nas.search.dry_run import dry_run as describe

        describe(settings, folder, console)
        return
    from nas.search.search import run_search

    with make_view(console) as view:
        view.note(f"run folder: {folder.path}")
        ended = run_search(settings, folder, view, workers, cluster)
    board = ended.board
    if as_json:
        print(folder.leaderboard_json.read_text(encoding="utf-8"))
    else:
        console.print(leaderboard_table(board, console.width, SHOWN_ROWS))
        console.print(reading(board))
    if ended.stopped:
        _stop("stopped before the end; the same command goes on")
    if board.best is None:
        _stop(f"no candidate was trained to its end; `nas status --run {folder.path}` says how far each is")
    if not as_json:
        console.print(f"best: {folder.best}   next: nas retrain best · nas dashboard", soft_wrap=True)
    if onnx:
        export_onnx(folder.best)


app.command()(retrain)
app.command()(tune)
app.command()(predict)


app.command()(label)


@app.command()
def score(
    predicted: Annotated[Path, typer.Argument(help="A mask.")],
    target: Annotated[Path, typer.Argument(help="The mask it should be.")],
    tolerance_um: Annotated[float, typer.Option(min=0, help="How far apart surfaces may lie.")] = 0.0,
    spacing_um: Annotated[str, typer.Option(help="Voxel spacing: one number, or z,y,x.")] = "1",
    as_json: AsJson = False,
) -> None:
    """Compare two masks in every metric."""
    from nas.bundles.score_masks import score_masks

    values = score_masks(predicted, target, spacing_um, tolerance_um)
    if as_json:
        print(json.dumps(values))
    else:
        print("\n".join(f"{name.replace('_', ' ')}: {value:.6f}" for name, value in values.items()))


@app.command()
def leaderboard(run: Run = None, as_json: AsJson = False) -> None:
    """Show the ranking of a run."""
    from nas.commands.tables import leaderboard_table
    from results.leaderboard.leaderboard import read_leaderboard, reading
    from results.run_folder import find

    board = read_leaderboard(find(run).leaderboard_json)
    if as_json:
        print(board.model_dump_json(indent=2))
        return
    console = make_console()
    console.print(leaderboard_table(board, console.width))
    console.print(reading(board))


@app.command()
def status(run: Run = None, as_json: AsJson = False) -> None:
    """Show how far a run is."""
    from nas.search.status import read_status

    found = read_status(run)
    print(found.model_dump_json(indent=2) if as_json else found.text())


@app.command()
def show(
    target: Annotated[
        str,
        typer.Argument(
            help="A trial's number, a file of a genotype, a bundle, a cell search (cells-64) or one of its genotypes "
            "(cells-64/likeliest), or a hand-made one (plain)."
        ),
    ],
    run: Run = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Pictures OUT.svg and OUT.png; genotype-HASH if not given.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the cells of a genotype and the network they make, and count their operations."""
    from nas.search.shown_cells import describe_target

    shown = describe_target(run, target, out)
    print(shown.model_dump_json(indent=2) if as_json else shown.text())


@app.command()
def dashboard(
    run: Run = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Open the Optuna dashboard on a run."""
    from nas.commands.dashboard_server import LOOPBACK, serve
    from results.run_folder import find

    folder = find(run)
    if host not in LOOPBACK:
        print(
            f"nas: warning: {host} can be reached from other machines, and the dashboard has no login: whoever reaches "
            "it can read, rename and delete the study",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(folder, host, port, lambda address: print(f"{folder.path}: {address}   (Ctrl-C stops)", flush=True))


@app.command()
def doctor(run: Run = None, as_json: AsJson = False) -> None:
    """Check machine, data and run folder; repair what can be repaired."""
    from nas.search.doctor import examine

    findings = examine(run)
    if as_json:
        print(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        print("\n".join(finding.line() for finding in findings))
    if any(finding.level == "problem" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
