"""The commands that make and use bundles: parse, call one function, print."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from nas.commands.console import AsJson, Device, Run, Set, make_console
from nas.workers.signals import BEGINS_AGAIN, goes_on
from search_spaces.errors import InputError


@goes_on()
def retrain(
    target: Annotated[
        str, typer.Argument(help="best, topN for an ensemble, a trial's number, or a bundle's folder.")
    ] = "best",
    on: Annotated[
        Literal["train", "all"], typer.Option(help="all: the held-out kidney too, so it is not scored.")
    ] = "train",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; retrain.steps if not given.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Of weights, crops and augmentation; the trial's own if not given. Another one gives another bundle.",
            show_default=False,
        ),
    ] = None,
    run: Run = None,
    set_: Set = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also export as ONNX.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the best network of a run, or the N best, at full length and export. Run again after a stop, it goes on."""
    from nas.bundles.retrain import is_first_process, retrain_in_run
    from nas.bundles.retrain_top import retrain_top, top_count
    from nas.commands.progress import reporting

    if onnx:
        from results.bundles.onnx import require_onnx

        require_onnx()
    console = make_console(as_json)
    console.quiet = not is_first_process()
    count = top_count(target)
    if count is not None:
        if seed is not None:
            raise InputError(f"--seed is of one training, and {target} trains several: give a trial's number")
        with reporting(console) as report:
            top = retrain_top(run, count, on=on, steps=steps, overrides=set_ or [], report=report)
        if as_json:
            print(top.model_dump_json())
        else:
            console.print(top.text(), soft_wrap=True)
        for member in top.members if onnx else ():
            export_onnx(member.bundle)
        return
    with reporting(console) as report:
        path, record, before = retrain_in_run(
            run, target, on=on, steps=steps, seed=seed, overrides=set_ or [], report=report
        )
    if not is_first_process():
        return
    score = record.outcome.score
    if as_json:
        print(json.dumps({"bundle": str(path), "record": record.model_dump(mode="json"), "before": before}))
    elif score is None:
        console.print(f"trained on every kidney, so there is no held-out score: {path}", soft_wrap=True)
    else:
        console.print(f"{score.text(before)}: {path}", soft_wrap=True)
    if onnx:
        export_onnx(path)


def export_onnx(path: Path) -> None:
    """Write a bundle's ONNX file, and say on stderr how far it is from torch."""
    from results.bundles.bundle import read_bundle
    from results.bundles.onnx import to_onnx

    file, difference = to_onnx(read_bundle(path))
    print(f"{file}: largest difference to torch {difference:.1e}", file=sys.stderr)


@goes_on()
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE... VOLUME...",
            help="A bundle or ensemble, or several bundles, whose probabilities are averaged; then volumes, or folders "
            "of volumes.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Where masks go: a folder of TIFF slices, or a name in .tif, .zarr or .npy.")
    ] = Path("masks"),
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Of the mask; that of the bundle or ensemble if not given.", show_default=False
        ),
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(help="Also write the competition's CSV, to a new file.", show_default=False)
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Score labelled volumes together, as the leaderboard does.")
    ] = False,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Of a folder, take the volumes that the bundle was scored on.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Segment volumes with a bundle, or the mean of several. Of a folder of volumes, finished masks are kept."""
    from nas.bundles.predict import predict_paths
    from nas.commands.progress import reporting

    console = make_console(as_json)
    with reporting(console) as report:
        result = predict_paths(
            paths,
            out=out,
            threshold=threshold,
            submission=submission,
            wants_score=score,
            only_held_out=held_out,
            device=device,
            report=report,
        )
    if as_json:
        print(result.model_dump_json(indent=2))
        return
    for path in result.masks:
        console.print(f"mask: {path}", soft_wrap=True)
    if result.submission:
        console.print(f"submission: {result.submission}, {result.submission_rows} rows", soft_wrap=True)
    if result.score:
        console.print(
            f"surface dice {result.score.surface_dice:.6f} (threshold cross-fitted over slabs; the written masks: "
            f"{result.mask_surface_dice:.6f}), voxel dice {result.score.voxel_dice:.6f}"
        )


@goes_on(BEGINS_AGAIN)
def tune(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", show_default=False)],
    volumes: Annotated[
        list[Path], typer.Argument(help="Its held-out volumes, or folders that hold them.", show_default=False)
    ],
    write: Annotated[bool, typer.Option("--write", help="Store the choice and its threshold in the bundle.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Choose the symmetries a bundle averages and the components it removes, on its held-out volumes."""
    from nas.bundles.tune import tune as run_tuning
    from nas.commands.progress import reporting

    console = make_console(as_json)
    with reporting(console) as report:
        found = run_tuning(
            bundle,
            volumes,
            write=write,
            device=device,
            report=report,
        )
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        console.print(found.text(), soft_wrap=True)
