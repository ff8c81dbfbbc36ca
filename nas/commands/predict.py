"""`nas predict`: masks of volumes."""

from nas.bundles.requests import PredictRequest
from nas.commands.console import make_console
from nas.commands.spread import spread
from nas.config.options import AsJson
from nas.workers.signals import goes_on


@spread
@goes_on()
def predict(request: PredictRequest, as_json: AsJson = False) -> None:
    """Segment volumes with a bundle, or with the mean of several. With several volumes, finished masks are kept."""
    from nas.bundles.predict import predict_paths
    from nas.commands.progress import reporting

    console = make_console(as_json)
    with reporting(console) as report:
        result = predict_paths(request, report)
    if as_json:
        print(result.model_dump_json(indent=2))
        return
    for path in result.masks:
        console.print(f"mask: {path}", soft_wrap=True)
    if result.submission:
        console.print(f"submission: {result.submission}, {result.submission_rows} rows", soft_wrap=True)
    if result.score:
        from trainers.metrics.score import said

        console.print(f"threshold cross-fitted over slabs: {said(result.score.values, 6)}", soft_wrap=True)
        console.print(f"the written masks: {said(result.mask_values, 6)}", soft_wrap=True)
