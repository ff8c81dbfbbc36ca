"""What is asked of bundles. The commands that ask it have their arguments and options from here.

Nothing heavy is imported: `nas --help` reads all of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from nas.config.options import Device, Run, Set

Side = Literal["train", "all"]  # kidneys to train on


@dataclass(frozen=True)
class RetrainRequest:
    """What `nas retrain` is to train, and how long."""

    target: Annotated[
        str, typer.Argument(help="best, topN for an ensemble, a trial's number, or a bundle's folder.")
    ] = "best"
    on: Annotated[Side, typer.Option(help="all: the held-out kidney too, so it is not scored.")] = "train"
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; retrain.steps if not given.", show_default=False)
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Of weights, crops and augmentation; the trial's own if not given. Another one gives another bundle.",
            show_default=False,
        ),
    ] = None
    run: Run = None
    overrides: Set = None


@dataclass(frozen=True)
class PredictRequest:
    """What `nas predict` is to segment, with what, and where masks go."""

    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE... VOLUME...",
            help="A bundle or ensemble, or several bundles, whose probabilities are averaged; then volumes, or folders "
            "of volumes.",
            show_default=False,
        ),
    ]
    out: Annotated[
        Path, typer.Option(help="Where masks go: a folder of TIFF slices, or a name in .tif, .zarr or .npy.")
    ] = Path("masks")
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Of the mask; that of the bundle or ensemble if not given.", show_default=False
        ),
    ] = None
    submission: Annotated[
        Path | None, typer.Option(help="Also write the competition's CSV, to a new file.", show_default=False)
    ] = None
    score: Annotated[
        bool, typer.Option("--score", help="Score labelled volumes together, as the leaderboard does.")
    ] = False
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Of a folder, take the volumes that the bundle was scored on.")
    ] = False
    device: Device = "auto"


@dataclass(frozen=True)
class TuneRequest:
    """Which bundle `nas tune` is to read its held-out volumes with."""

    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", show_default=False)]
    volumes: Annotated[
        list[Path], typer.Argument(help="Its held-out volumes, or folders that hold them.", show_default=False)
    ]
    write: Annotated[bool, typer.Option("--write", help="Store the choice and its threshold in the bundle.")] = False
    device: Device = "auto"


@dataclass(frozen=True)
class LabelRequest:
    """Which volume `nas label` is to label, with what."""

    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")]
    volume: Annotated[Path, typer.Argument(help="Folder of a volume whose labels are incomplete.")]
    out: Annotated[str, typer.Option(help="Name of the new label set, beside images/.")] = "labels_pseudo"
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Instead of the one that matches the annotated share.", show_default=False),
    ] = None
    write: Annotated[bool, typer.Option("--write", help="Let dataset.toml use the new set.")] = False
    device: Device = "auto"
