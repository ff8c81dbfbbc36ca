"""`nas retrain`: full trainings, which make bundles."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.bundles.requests import RetrainRequest
from nas.commands.console import make_console
from nas.commands.spread import spread
from nas.config.options import AsJson
from nas.workers.signals import goes_on

if TYPE_CHECKING:
    from rich.console import Console


@spread
@goes_on()
def retrain(
    request: RetrainRequest,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also export as ONNX.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the best network of a run, or the N best, at full length and export. Run it again to continue."""
    began = time.monotonic()  # before the imports, which take seconds of what --minutes allows
    from nas.bundles.retrain import BundleExists, is_first_process
    from nas.bundles.retrain_top import top_count

    if onnx:
        from results.bundles.onnx import require_onnx

        require_onnx()
    console = make_console(as_json)
    console.quiet = not is_first_process()
    count = top_count(request.target)
    try:
        bundles = (
            [_one(request, began, console, as_json)] if count is None else _several(request, count, console, as_json)
        )
    except BundleExists as error:
        if not onnx:
            raise
        console.print(f"{error.path} is there already; only its ONNX file is made", soft_wrap=True)
        bundles = [error.path]
    for path in bundles if onnx and is_first_process() else ():
        export_onnx(path)


def export_onnx(path: Path) -> None:
    """Write a bundle's ONNX file, and say on stderr how far its output is from torch's."""
    from results.bundles.bundle import read_bundle
    from results.bundles.onnx import to_onnx

    file, difference = to_onnx(read_bundle(path))
    print(f"{file}: largest difference from torch {difference:.1e}", file=sys.stderr)


def _one(request: RetrainRequest, began: float, console: "Console", as_json: bool) -> Path:
    """Train one network, and say what it reached; returns its bundle."""
    from nas.bundles.retrain import is_first_process, retrain_in_run
    from nas.commands.progress import reporting

    with reporting(console) as report:
        path, record, before = retrain_in_run(request, report, began)
    score = record.outcome.score
    if as_json and is_first_process():
        print(json.dumps({"bundle": str(path), "record": record.model_dump(mode="json"), "before": before}))
    elif score is None:
        console.print(f"trained on every kidney, so there is no held-out score: {path}", soft_wrap=True)
    else:
        console.print(f"{score.text(before)}: {path}", soft_wrap=True)
    return path


def _several(request: RetrainRequest, count: int, console: "Console", as_json: bool) -> list[Path]:
    """Train the members of an ensemble, and say what they and their mean reached; returns their bundles."""
    from nas.bundles.retrain_top import retrain_top
    from nas.commands.progress import reporting

    with reporting(console) as report:
        top = retrain_top(request, count, report)
    if as_json:
        print(top.model_dump_json())
    else:
        console.print(top.text(), soft_wrap=True)
    return [member.bundle for member in top.members]
