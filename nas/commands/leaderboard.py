"""`nas leaderboard`: the ranking of a run."""

from nas.commands.console import make_console
from nas.config.options import AsJson, Run, RunPlace, one_run


def leaderboard(place: RunPlace = None, run: Run = None, as_json: AsJson = False) -> None:
    """Show the ranking of a run."""
    from nas.commands.leaderboard_table import leaderboard_table
    from results.leaderboard.leaderboard import read_leaderboard
    from results.leaderboard.reading import reading
    from results.run_folder import find

    board = read_leaderboard(find(one_run(place, run)).leaderboard_json)
    if as_json:
        print(board.model_dump_json(indent=2))
        return
    console = make_console()
    console.print(leaderboard_table(board, console.width))
    console.print(reading(board))
