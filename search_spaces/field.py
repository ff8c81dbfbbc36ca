"""One field of a pydantic class by itself: a value for it, checked and converted as the class would."""

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

OFF = "none"  # stands for None, which TOML does not have


def read_value(owner: type[BaseModel], field: str, value: Any) -> Any:
    """The value as the field holds it. "none" is None where the field can be off and "none" is no value of it.

    Raises pydantic's ValidationError where the field does not take the value.
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
    """A class with the field alone, named `value`."""
    info = owner.model_fields[field]
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    config = ConfigDict(allow_inf_nan=owner.model_config.get("allow_inf_nan", True))
    return create_model(f"{owner.__name__}_{field}", __config__=config, value=(kind, ...))
