"""`nas tune`: how a bundle reads best."""

from nas.bundles.requests import TuneRequest
from nas.commands.console import make_console
from nas.commands.spread import spread
from nas.config.options import AsJson
from nas.workers.signals import BEGINS_AGAIN, goes_on


@spread
@goes_on(BEGINS_AGAIN)
def tune(request: TuneRequest, as_json: AsJson = False) -> None:
    """Choose the symmetries a bundle averages and the components it removes, on its held-out volumes."""
    from nas.bundles.tune import tune as run_tuning
    from nas.commands.progress import reporting

    console = make_console(as_json)
    with reporting(console) as report:
        found = run_tuning(request, report)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        console.print(found.text(), soft_wrap=True)
