"""Requests to commands that work with bundles; the fields are the commands' arguments and options.

Nothing heavy is imported, because `nas --help` reads this module.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from nas.config.options import Device, Run, Set

Side = Literal["train", "all"]  # kidneys to train on
Start = Literal["trunk", "scratch"]  # what a full training begins with


@dataclass(frozen=True)
class RetrainRequest:
    """What `nas retrain` is to train, and for how long."""

    target: Annotated[
        str, typer.Argument(help="best, topN for an ensemble, a trial's number, or a bundle's folder.")
    ] = "best"
    on: Annotated[Side, typer.Option(help="all: train on the held-out kidney too, so there is no score.")] = "train"
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; retrain.steps if not given.", show_default=False)
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Time for each training with its score, instead of steps: as many are done as fit into it.",
            show_default=False,
        ),
    ] = None
    start: Annotated[
        Start,
        typer.Option("--from", help="trunk: go on from the trial's training in the search, if it can be continued."),
    ] = "trunk"
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Seed of weights, crops and augmentation; the trial's own if not given. Another seed makes another "
            "bundle.",
            show_default=False,
        ),
    ] = None
    run: Run = None
    overrides: Set = None


@dataclass(frozen=True)
class PredictRequest:
    """What `nas predict` is to segment, with which bundles, and where masks go."""

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
        Path, typer.Option(help="Where masks go: a folder of TIFF slices, or a file .tif, .zarr or .npy.")
    ] = Path("masks")
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Probability from which a voxel is vessel; the bundle's or ensemble's own if not given.",
            show_default=False,
        ),
    ] = None
    submission: Annotated[
        Path | None, typer.Option(help="Also write the competition's CSV, to a new file.", show_default=False)
    ] = None
    score: Annotated[
        bool, typer.Option("--score", help="Score labelled volumes together, as the leaderboard does.")
    ] = False
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Predict only the held-out volumes that the bundle was scored on.")
    ] = False
    device: Device = "auto"


@dataclass(frozen=True)
class TuneRequest:
    """Which bundle `nas tune` is to tune, and where its held-out volumes are."""

    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", show_default=False)]
    volumes: Annotated[
        list[Path], typer.Argument(help="Its held-out volumes, or folders that hold them.", show_default=False)
    ]
    write: Annotated[bool, typer.Option("--write", help="Store the choice and its threshold in the bundle.")] = False
    device: Device = "auto"


@dataclass(frozen=True)
class LabelRequest:
    """Which volume `nas label` is to label, and with which bundle."""

    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")]
    volume: Annotated[Path, typer.Argument(help="Folder of a volume whose labels are incomplete.")]
    out: Annotated[str, typer.Option(help="Name of the new label set, beside images/.")] = "labels_pseudo"
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Threshold, instead of the one that matches the annotated share.", show_default=False
        ),
    ] = None
    write: Annotated[bool, typer.Option("--write", help="Enter the new set in dataset.toml.")] = False
    device: Device = "auto"
