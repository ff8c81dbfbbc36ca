"""A single field of a pydantic class: checks and converts a value for it as the class would."""

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

OFF = "none"  # written for None, which TOML does not have


def read_value(owner: type[BaseModel], field: str, value: Any) -> Any:
    """The value as the field stores it. "none" becomes None if the field can be off and has no value "none".

    Raises pydantic's ValidationError if the field does not accept the value.
    """
    holder = _holder(owner, field)
    try:
        return holder(value=value).value
    except ValidationError:
        if value != OFF:
            raise
        return holder(value=None).value


@cache
def _holder(owner: type[BaseModel], field: str) -> Any:
    """A class with only this field, named `value`."""
    info = owner.model_fields[field]
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    config = ConfigDict(allow_inf_nan=owner.model_config.get("allow_inf_nan", True))
    return create_model(f"{owner.__name__}_{field}", __config__=config, value=(kind, ...))
