"""`nas config`: every key of a configuration, with its value and what it means."""

from typing import Annotated

import typer

from nas.config.options import AsJson, Set
from nas.config.presets import PRESETS


def config(
    source: Annotated[
        str,
        typer.Argument(metavar="PRESET|FILE", help=f"One of {', '.join(PRESETS)}, or a file.", show_default=False),
    ],
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Print a whole configuration with a comment for each key: a file to start from."""
    from nas.config.annotated import annotated
    from nas.config.read import read_config

    whole = read_config(source, set_ or [])
    print(whole.model_dump_json(indent=2) if as_json else annotated(whole).rstrip("\n"))
