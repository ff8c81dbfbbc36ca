"""The command `nas` and the table of its subcommands: COMMANDS.

Heavy imports happen inside the commands, so that `nas --help` answers at once.
"""

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from nas.commands.config import config
from nas.commands.dashboard import dashboard
from nas.commands.data import data
from nas.commands.doctor import doctor
from nas.commands.label import label
from nas.commands.leaderboard import leaderboard
from nas.commands.predict import predict
from nas.commands.retrain import retrain
from nas.commands.score import score
from nas.commands.search import search
from nas.commands.show import show
from nas.commands.status import status
from nas.commands.tune import tune
from nas.commands.weights import weights
from nas.config.environment import ENVIRONMENT
from search_spaces.errors import InputError

COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {  # a function, or a group of commands
    "search": search,
    "retrain": retrain,
    "predict": predict,
    "tune": tune,
    "label": label,
    "score": score,
    "leaderboard": leaderboard,
    "status": status,
    "show": show,
    "dashboard": dashboard,
    "doctor": doctor,
    "config": config,
    "data": data,
    "weights": weights,
}

_NOT_HERE = "choose another path"
_ADVICE: dict[int | None, str] = {  # of what the operating system refuses, what would do
    errno.EACCES: "change who may read and write there, or choose another path",
    errno.EPERM: _NOT_HERE,
    errno.EROFS: _NOT_HERE,
    errno.ENOENT: _NOT_HERE,
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EEXIST: "a file is where a folder has to be: choose another path",
    errno.ENOSPC: "make room, then run the same command again",
    errno.EDQUOT: "make room, then run the same command again",
    errno.ENAMETOOLONG: "choose a shorter name",
}
# Before the libraries that read it are imported.
os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})


def make_app() -> typer.Typer:
    """The command line with every row of COMMANDS."""
    app = typer.Typer(
        name="nas",
        help="Search for the network that segments vessels best on a kidney it has not seen.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, command in COMMANDS.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr and exit code 1."""
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows another one
            stream.reconfigure(errors="replace")
    for library in ("tifffile", "nibabel.global"):  # they log line after line what they then raise, or correct
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    try:
        make_app()()
    except InputError as error:
        _stop(str(error))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
        _stop(f"{error.strerror or error}{where}{advice}")
    sys.exit(0)


def _open_missing_streams() -> None:
    """Without one of the standard streams, as under some schedulers, the next file or pipe would get its number.

    What is then printed would go into it, or be read from it: a worker's messages, for one.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one


def _stop(message: str) -> NoReturn:
    print(f"nas: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
