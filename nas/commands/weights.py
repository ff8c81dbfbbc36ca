"""`nas weights`: the pretrained weights that a search needs."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from nas.commands.console import make_console
from nas.config.options import AsJson, ConfigFile, Preset, Set

weights = typer.Typer(help="Pretrained weights that a search needs: look at them, fetch them.", no_args_is_help=True)


@weights.command("list")
def list_(
    config: ConfigFile = None,
    preset: Preset = None,
    set_: Set = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the hub for sizes and licences.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the pretrained weights that a search would need, and whether they are on this machine."""
    _may_ask_the_network()
    from nas.commands.weights_table import summary, weights_table
    from nas.config.runs import read_source
    from nas.search.needed_weights import Hub, list_weights

    hub = None if offline else Hub()
    rows = list_weights(read_source(config, preset, set_ or []), hub)
    if as_json:
        print(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
        return
    console = make_console()
    if rows:
        console.print(weights_table(rows))
    console.print(summary(rows, _source(config, preset, set_), hub is None or hub.answers), soft_wrap=True)


@weights.command()
def fetch(config: ConfigFile = None, preset: Preset = None, set_: Set = None) -> None:
    """Download the missing weights into the local cache, where trials find them offline."""
    _may_ask_the_network()
    from nas.commands.weights_table import size_text, summary
    from nas.config.runs import read_source
    from nas.search.needed_weights import Hub, fetch_weights, list_weights

    settings = read_source(config, preset, set_ or [])
    console = make_console()
    fetch_weights(
        list_weights(settings, Hub()),
        lambda done, of, row: console.print(
            f"{done + 1} of {of}: {row.repository}, {size_text(row)}, licence: {row.licence}", soft_wrap=True
        ),
    )
    console.print(summary(list_weights(settings), _source(config, preset, set_)), soft_wrap=True)


def _source(config: Path | None, preset: str | None, changes: list[str] | None) -> str:
    """The arguments that name a configuration, to be given again."""
    named = [str(config)] if config is not None else ["--preset", preset or "demo"]
    return shlex.join([*named, *(part for change in changes or [] for part in ("--set", change))])


def _may_ask_the_network() -> None:
    """Allow the network, which all other commands forbid (ENVIRONMENT); the hub's client reads this when imported."""
    os.environ["HF_HUB_OFFLINE"] = "0"
