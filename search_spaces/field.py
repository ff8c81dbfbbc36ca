"""One field of a pydantic class by itself: a value for it, checked and converted as the class would."""

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

OFF = "none"  # stands for None, which TOML does not have


def read_value(owner: type[BaseModel], field: str, value: Any) -> Any:
    """The value as the field holds it. "none" is None where the field can be off and "none" is no value of it.

    Raises pydantic's ValidationError where the field does not take the value.
    """
    adapter = _adapter(owner, field)
    try:
        return adapter.validate_python(value)
    except ValidationError:
        if value != OFF:
            raise
        return adapter.validate_python(None)


@cache
def _adapter(owner: type[BaseModel], field: str) -> TypeAdapter[Any]:
    info = owner.model_fields[field]
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=owner.model_config.get("allow_inf_nan", True)))
