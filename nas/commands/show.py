"""`nas show`: the cells of a network, drawn."""

from pathlib import Path
from typing import Annotated

import typer

from nas.config.options import AsJson, Run


def show(
    target: Annotated[
        str,
        typer.Argument(
            help="A trial's number, a genotype's file, a bundle, a cell search (cells-64) or one of its genotypes "
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
