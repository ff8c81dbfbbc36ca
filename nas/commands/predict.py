"""`nas predict`: masks of volumes."""

from nas.bundles.requests import PredictRequest
from nas.commands.console import make_console, note_on
from nas.commands.spread import spread
from nas.config.options import AsJson
from nas.workers.signals import goes_on


@spread
@goes_on()
def predict(request: PredictRequest, as_json: AsJson = False) -> None:
    """Segment volumes with a bundle, or the mean of several. Of a folder of volumes, finished masks are kept."""
    from nas.bundles.predict import predict_paths
    from nas.commands.progress import step_progress

    console = make_console(as_json)
    with step_progress(console) as on_progress:
        result = predict_paths(request, on_progress=on_progress, on_note=note_on(console))
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
