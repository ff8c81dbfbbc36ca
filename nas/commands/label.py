"""`nas label`: soft labels for a volume whose own labels are incomplete."""

from nas.bundles.requests import LabelRequest
from nas.commands.console import make_console
from nas.commands.spread import spread
from nas.config.options import AsJson
from nas.workers.signals import BEGINS_AGAIN, goes_on


@spread
@goes_on(BEGINS_AGAIN)
def label(request: LabelRequest, as_json: AsJson = False) -> None:
    """Make soft pseudo labels for a sparsely labelled volume."""
    from nas.bundles.label import label_path
    from nas.commands.progress import reporting

    console = make_console(as_json)
    with reporting(console) as report:
        done = label_path(request, report)
    if as_json:
        print(done.model_dump_json(indent=2))
        return
    matched = "given" if done.annotated is None else f"matches annotated = {done.annotated:g}"
    console.print(
        f"labels: {done.labels}: {done.vessel_voxels} vessel voxels, {done.labelled_voxels} of them labelled before; "
        f"threshold {done.threshold:.3f} ({matched})",
        soft_wrap=True,
    )
    console.print(f"{done.manifest}:" if done.written else f"to use them, write in {done.manifest}:", soft_wrap=True)
    console.print(done.manifest_lines, soft_wrap=True)
    if not done.written and not done.manifest.is_file():
        console.print(
            "this file does not exist yet; volumes that it does not list are left out, and --write lists all of them"
        )
