"""AnyCandidate: a candidate of any family, as it is written in files and messages."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, TypeAdapter

from search_spaces.candidate import Candidate
from search_spaces.errors import unknown_name
from search_spaces.families import FAMILIES


def read_candidate(values: Any) -> Candidate:
    """The candidate that a table of values describes. `family` names its class; the first row of FAMILIES if missing.

    Raises ValueError if there is no such family, and ValidationError if its class does not accept the values.
    """
    if isinstance(values, Candidate):
        return values
    if not isinstance(values, dict):
        raise ValueError("a candidate is a table, as in { family = 'unet', encoder = 'resnet18' }")
    name = values.get("family", next(iter(FAMILIES)))
    if not isinstance(name, str) or name not in FAMILIES:
        raise unknown_name("family", str(name), FAMILIES)
    family = FAMILIES[name]
    for key in values:
        if key not in family.model_fields:
            raise unknown_name(f"key of family {name}", key, family.model_fields)
    return family.model_validate(values)


AnyCandidate = Annotated[SerializeAsAny[Candidate], BeforeValidator(read_candidate)]
CANDIDATES: TypeAdapter[Candidate] = TypeAdapter(AnyCandidate)  # reads and writes JSON
