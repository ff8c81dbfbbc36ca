"""`nas doctor`: what is wrong with the machine, the data or the run folder."""

import json
import sys

from nas.config.options import AsJson, Run, RunPlace, one_run


def doctor(place: RunPlace = None, run: Run = None, as_json: AsJson = False) -> None:
    """Check the machine, the data and the run folder; repair what can be repaired."""
    from nas.search.doctor import examine

    findings = examine(one_run(place, run))
    if as_json:
        print(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        print("\n".join(finding.line() for finding in findings))
    if any(finding.level == "problem" for finding in findings):
        sys.exit(1)
