"""`nas score`: two masks, compared."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nas.commands.console import make_console
from nas.config.options import AsJson


def score(
    predicted: Annotated[Path, typer.Argument(help="A mask.")],
    target: Annotated[Path, typer.Argument(help="The mask it should be.")],
    tolerance_um: Annotated[float, typer.Option(min=0, help="How far apart surfaces may lie.")] = 0.0,
    spacing_um: Annotated[
        str | None, typer.Option(help="Voxel spacing, one number or z,y,x; without it, that of the files.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two masks in every metric."""
    from nas.bundles.score_masks import score_masks
    from nas.commands.progress import reporting
    from trainers.data.geometry import spacing_text

    with reporting(make_console(as_json)) as report:
        values = score_masks(predicted, target, spacing_um, tolerance_um, report)
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            shown = f"{value:.6f}" if isinstance(value, float) else spacing_text(value) if value else "not stated"
            print(f"{name.replace('_', ' ')}: {shown}")
