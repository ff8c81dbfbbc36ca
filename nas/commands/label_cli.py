"""The command `nas label`: parse, call one function, print."""

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.console import AsJson, Device, make_console
from nas.workers.signals import BEGINS_AGAIN, goes_on


@goes_on(BEGINS_AGAIN)
def label(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    volume: Annotated[Path, typer.Argument(help="Folder of a volume whose labels are incomplete.")],
    out: Annotated[str, typer.Option(help="Name of the new label set, beside images/.")] = "labels_pseudo",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Instead of the one that matches the annotated share.", show_default=False),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Let dataset.toml use the new set.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make soft pseudo labels of a sparsely labelled volume."""
    from nas.bundles.label import label_path
    from nas.commands.progress import reporting

    console = make_console(as_json)
    with reporting(console) as report:
        done = label_path(
            bundle,
            volume,
            name=out,
            threshold=threshold,
            write=write,
            device=device,
            report=report,
        )
    if as_json:
        print(done.model_dump_json(indent=2))
        return
    matched = "given" if done.annotated is None else f"matches annotated = {done.annotated:g}"
    console.print(
        f"labels: {done.labels}: {done.vessel_voxels} vessel voxels, {done.labelled_voxels} of them labelled before; "
        f"threshold {done.threshold:.3f} ({matched})",
        soft_wrap=True,
    )
    console.print(f"{done.manifest}:" if done.written else f"to use them, say in {done.manifest}:", soft_wrap=True)
    console.print(done.manifest_lines, soft_wrap=True)
    if not done.written and not done.manifest.is_file():
        console.print("there is none yet, and volumes that it does not list are left out; --write lists all of them")
