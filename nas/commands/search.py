"""`nas search`: everything from kidneys to an exported bundle."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.console import make_console
from nas.commands.retrain import export_onnx
from nas.config.options import AsJson, ConfigFile, Preset, Run, Set
from nas.workers.signals import goes_on
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from nas.config.study_config import StudyConfig
    from results.leaderboard.leaderboard import Leaderboard
    from results.run_folder import RunFolder

SHOWN_ROWS = 20  # of the leaderboard at the end


@goes_on()
def search(
    config: ConfigFile = None,
    preset: Preset = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of scans; phantoms if not given.", show_default=False)
    ] = None,
    hold_out: Annotated[
        str | None,
        typer.Option(
            help="Kidney to rank on, never trained on; or each, to confirm the leaders on every kidney.",
            show_default=False,
        ),
    ] = None,
    run: Run = None,
    trials: Annotated[
        int | None, typer.Option(min=0, help="Candidates to try, besides the fixed ones.", show_default=False)
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Minutes to search at most.", show_default=False)] = None,
    families: Annotated[
        str | None,
        typer.Option(
            help="Families of networks to search, as in unet,cells; of other families, only the default is trained.",
            show_default=False,
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL of a PostgreSQL database for the study.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of workers. If not given: one per GPU; on the CPU one, or several under a time limit.",
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Address of a Ray cluster.", show_default=False)] = None,
    set_: Set = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also export the best as ONNX.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build every choice, print its cost, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search: try networks, rank them on the held-out kidney, export the best. Run it again to continue."""
    from nas.workers.process import warm_up

    if cluster is None and not dry_run:
        warm_up()  # both processes take seconds to import torch
    from nas.commands.live_view import make_view
    from nas.config.runs import open_run

    flags = {
        "data.root": data.absolute() if data else None,
        "data.hold_out": hold_out,
        "study.trials": trials,
        "study.minutes": minutes,
        "study.storage": storage,
        "space.families": families.split(",") if families else None,
    }
    overrides = [f"{key}={json.dumps(v, default=str, ensure_ascii=False)}" for key, v in flags.items() if v is not None]
    overrides += set_ or []
    if onnx:
        from results.bundles.onnx import require_onnx

        require_onnx()
    settings, folder = open_run(config, preset, run, overrides, has_data=data is not None)
    console = make_console(as_json)
    if dry_run:
        from nas.search.dry_run import dry_run as describe

        describe(settings, folder, console)
        return
    from nas.search.search import run_search

    with make_view(console) as view:
        view.note(f"run folder: {folder.path}")
        ended = run_search(settings, folder, view, workers, cluster)
    if as_json:
        print(folder.leaderboard_json.read_text(encoding="utf-8"))
    else:
        _show_board(ended.board, folder, console)
    if ended.stopped:
        raise InputError("stopped before the end; run the same command again to continue")
    if ended.board.best is None:
        raise InputError(f"no candidate was trained to its end; `nas status{folder.option}` says how far each got")
    if not as_json:
        _show_best(ended.board, settings.study, folder, console)
    if onnx:
        export_onnx(folder.best)


def _show_board(board: "Leaderboard", folder: "RunFolder", console: "Console") -> None:
    """The ranking, and what it says."""
    from nas.commands.leaderboard_table import leaderboard_table
    from results.leaderboard.reading import reading

    console.print(leaderboard_table(board, console.width, SHOWN_ROWS, f"nas leaderboard{folder.option}"))
    console.print(reading(board))


def _show_best(board: "Leaderboard", study: "StudyConfig", folder: "RunFolder", console: "Console") -> None:
    """Where the best network lies, and what to do next."""
    if study.candidates and not any(row.rank is not None and not row.baseline for row in board.rows):
        more = f"--minutes {math.ceil(2 * study.minutes)}" if study.minutes else "more time"
        console.print(f"no searched network was trained to its end; give it {more}", soft_wrap=True)
    console.print(
        f"best: {folder.best}   next: nas retrain best{folder.option} · nas dashboard{folder.option}",
        soft_wrap=True,
    )
