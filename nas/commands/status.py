"""`nas status`: how far a run has got."""

from nas.config.options import AsJson, Run, RunPlace, Storage, one_run


def status(place: RunPlace = None, run: Run = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show how far a run has got."""
    from nas.search.status import read_status

    found = read_status(one_run(place, run), storage)
    print(found.model_dump_json(indent=2) if as_json else found.text())
