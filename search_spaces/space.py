"""SearchSpace: the choices that a study may make, by the fields that they fill.

`[space.unet] encoder = ["resnet18", "resnet50"]` names a field of the family's candidate, `[space.fit]` a field of the
recipe, and `[space.inference]` a field of how a volume is read. One value of a list is chosen; a table
`{ low, high, log }` is a range. `[space.cells.fit] crop = [48]` sets for one family what `[space.fit]` sets for all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations as pairs
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, StrictBool, ValidationError, model_validator

from search_spaces.candidate import Candidate
from search_spaces.errors import unknown_name
from search_spaces.families import FAMILIES
from search_spaces.field import read_value

Part = Literal["candidate", "fit", "inference"]  # where the field of a chosen value belongs


_TABLES = "the table of what has the field: " + ", ".join(["fit", "inference", *FAMILIES])
_LARGEST = 1e15  # the largest number that a study stores exactly


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise ValueError(f"should be a finite number, of at most {_LARGEST:g}")
    return value


class Range(BaseModel, frozen=True, extra="forbid"):
    """Numbers from `low` to `high`, inclusive."""

    low: Annotated[int | float, PlainValidator(_number)]
    high: Annotated[int | float, PlainValidator(_number)]
    log: StrictBool = False  # whether values are drawn uniformly on a logarithmic scale

    @model_validator(mode="after")
    def _low_before_high(self) -> "Range":
        if not self.low <= self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g} has no logarithm; a range with log = true must begin above 0")
        return self


def _read_choice(value: Any) -> "Range | tuple[Any, ...]":
    """A range from a table, the values of a list, or a single value."""
    if isinstance(value, Range):
        return value
    if isinstance(value, dict):
        return Range.model_validate(value)
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise ValueError("an empty list leaves nothing to choose; name a value, or leave the key out")
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError("the same choice is named twice")
    return values


if TYPE_CHECKING:
    Choice = Range | tuple[Any, ...]
else:
    Choice = Annotated[Any, BeforeValidator(_read_choice)]
Section = dict[str, Choice]  # by field


class FamilySpace(BaseModel, frozen=True, extra="allow"):
    """What is searched for one family: fields of its candidate, and choices of recipe and reading for it alone.

    Every key besides those below is a field of the candidate.
    """

    fit: Section = Field(default_factory=dict)  # fields of the recipe, for this family alone
    inference: Section = Field(default_factory=dict)  # fields of how volumes are read, for this family alone
    __pydantic_extra__: dict[str, Choice]

    @property
    def candidate(self) -> Mapping[str, Choice]:
        """The choices for the candidate, by field."""
        return self.__pydantic_extra__


class SearchSpace(BaseModel, frozen=True, extra="allow"):
    """What a study chooses from. A field that is not named keeps the value from its section, or its family's default.

    Every key besides those below is a name in FAMILIES.
    """

    families: Annotated[tuple[str, ...], Field(min_length=1)] = ("unet",)  # families to choose from: names in FAMILIES
    fit: Section = Field(default_factory=dict)  # fields of the recipe, for all families
    inference: Section = Field(default_factory=dict)  # fields of how volumes are read, for all families
    __pydantic_extra__: dict[str, FamilySpace]

    @model_validator(mode="before")
    @classmethod
    def _tables_of_families(cls, values: Any) -> Any:
        """A field without its family, as configurations had them once, is told where it belongs."""
        for key, value in values.items() if isinstance(values, dict) else ():
            if key not in cls.model_fields and key not in FAMILIES and not isinstance(value, dict | FamilySpace):
                owners = [f"{family}.{key}" for family, owner in FAMILIES.items() if key in owner.model_fields]
                mend = f"did you mean {' or '.join(owners)}" if owners else f"choices belong in {_TABLES}"
                raise ValueError(f"unknown key {key!r}; {mend}")
        return values

    @model_validator(mode="after")
    def _names_and_values_exist(self) -> "SearchSpace":
        for family in (*self.families, *self.__pydantic_extra__):
            if family not in FAMILIES:
                raise unknown_name("family", family, FAMILIES)
        if len(set(self.families)) < len(self.families):
            raise ValueError("families names the same family twice")
        for family, section in self.__pydantic_extra__.items():
            check_section(section.candidate, FAMILIES[family], family)
        for row in (row for family in FAMILIES for row in rows(self, family)):
            if row.field in FAMILIES[row.family].decisive and isinstance(row.choice, Range):
                raise ValueError(f"{row.name} decides what can be built; give a list of its values instead of a range")
        return self

    def family(self, name: str) -> FamilySpace:
        """What is searched for a family."""
        return self.__pydantic_extra__.get(name, _NOTHING)

    def searches(self, family: str) -> bool:
        """Whether anything in a family's designs differs from trial to trial."""
        choices = [row.choice for row in rows(self, family)]
        return len(self.families) > 1 or any(isinstance(c, Range) or len(c) > 1 for c in choices)

    def choices(self, family: str, part: Literal["fit", "inference"]) -> dict[str, tuple[str, Choice]]:
        """The choices for a family's recipe or reading: by field, with their names in the study."""
        for_all: Section = getattr(self, part)
        own: Section = getattr(self.family(family), part)
        named = {field: (f"{part}.{field}", choice) for field, choice in for_all.items()}
        named |= {field: (f"{family}.{part}.{field}", choice) for field, choice in own.items()}
        # In one order, however a file has its keys: a resumed study has to draw what an unbroken one would have.
        return dict(sorted(named.items()))


_NOTHING = FamilySpace.model_validate({})


def check_section(
    section: Mapping[str, Choice], owner: type[BaseModel], where: str, rest: BaseModel | None = None
) -> None:
    """Raise ValueError, one line, for a field that the class does not have, or a value that it does not accept.

    rest: an instance of the class; every value must be compatible with its other fields.
    """
    for field, choice in section.items():
        if field not in owner.model_fields or field == "family":
            raise unknown_name(f"choice in {where},", field, [name for name in owner.model_fields if name != "family"])
        for value in (choice.low, choice.high) if isinstance(choice, Range) else choice:
            try:
                meant = read_value(owner, field, value)
                if not isinstance(choice, Range) and not _as_written(value, meant):
                    raise ValueError(f"{where}.{field} has {value!r}, which is read as {meant}; write {meant}")
                if rest is not None:
                    owner.model_validate({**rest.model_dump(), field: meant})
            except ValidationError as error:
                raise ValueError(f"{where}.{field} has {value!r}: {_what(error)}") from None


def _as_written(value: Any, meant: Any) -> bool:
    """Whether a value is what it is read as, and no "64", 64.0 or true for 64: others see it as it was written."""
    if isinstance(value, bool) or isinstance(meant, bool):
        return value is meant
    if isinstance(meant, float):
        return isinstance(value, int | float)
    return isinstance(value, int) or not isinstance(meant, int)


def check_pairs(choices: Mapping[str, tuple[str, Choice]], owner: type[BaseModel], rest: BaseModel) -> None:
    """Raise ValueError, one line, if a value of one choice is incompatible with a value of another.

    choices: as returned by `SearchSpace.choices`. rest: an instance of the class that supplies the other fields.
    """
    values = rest.model_dump()
    for (field, (name, choice)), (its_field, (its_name, its_choice)) in pairs(choices.items(), 2):
        for value, its_value in product(_ends(choice), _ends(its_choice)):
            meant = {field: read_value(owner, field, value), its_field: read_value(owner, its_field, its_value)}
            try:
                owner.model_validate({**values, **meant})
            except ValidationError as error:
                raise ValueError(f"{name} has {value!r} and {its_name} has {its_value!r}: {_what(error)}") from None


def _what(error: ValidationError) -> str:
    """The first message of a validation error, without its location."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


@dataclass(frozen=True)
class Row:
    """One choice in a space, as a study asks for it."""

    family: str
    part: Part
    field: str
    name: str  # its name in the study: unet.encoder, fit.loss, cells.fit.crop
    choice: Range | tuple[Any, ...]
    found: bool = False  # whether its values name genotypes that a cell search is still to find


def rows(space: SearchSpace, family: str) -> tuple[Row, ...]:
    """The choices for a family in the order in which they are made; those that decide what can be built come first."""
    kind = FAMILIES[family]
    own = space.family(family).candidate
    candidate = {f: Row(family, "candidate", f, f"{family}.{f}", own[f]) for f in kind.model_fields if f in own}
    fit = {f: Row(family, "fit", f, name, choice) for f, (name, choice) in space.choices(family, "fit").items()}
    reading = space.choices(family, "inference").items()
    first = [(fit if field == "crop" else candidate).get(field) for field in kind.decisive]
    rest = [row for row in (*candidate.values(), *fit.values()) if row not in first]
    last = (Row(family, "inference", f, name, choice) for f, (name, choice) in reading)
    return (*(row for row in first if row is not None), *rest, *last)


def options(space: SearchSpace, family: str, crop: int) -> dict[str, tuple[Any, ...]]:
    """The values of every field of a family's candidate, and of "crop", which is `crop` if the space does not name it.

    A range gives its two ends, or every integer if the field holds integers. A field without a default is left out if
    the space does not name it.
    """
    kind = FAMILIES[family]
    own = space.family(family).candidate
    found: dict[str, tuple[Any, ...]] = {}
    for field, info in kind.model_fields.items():
        if field in own:
            found[field] = _values(kind, field, own[field])
        elif field != "family" and not info.is_required():
            found[field] = (info.default,)
    named = space.choices(family, "fit").get("crop")
    found["crop"] = (crop,) if named is None else _ends(named[1])
    return found


def _ends(choice: Choice) -> tuple[Any, ...]:
    return (choice.low, choice.high) if isinstance(choice, Range) else choice


def _values(owner: type[BaseModel], field: str, choice: Choice) -> tuple[Any, ...]:
    ends = tuple(read_value(owner, field, value) for value in _ends(choice))
    if isinstance(choice, Range) and all(isinstance(end, int) for end in ends):
        return tuple(range(ends[0], ends[1] + 1))
    return ends


@dataclass(frozen=True)
class Combination:
    """Values for a family's decisive choices, and why no network can be built with them (None if one can)."""

    family: str
    values: tuple[Any, ...]  # in the order of the family's `decisive`
    refusal: str | None = None

    @property
    def named(self) -> dict[str, Any]:
        """The values by field."""
        return dict(zip(FAMILIES[self.family].decisive, self.values, strict=True))

    @property
    def crop(self) -> int:
        """The crop in this combination."""
        crop: int = self.named["crop"]
        return crop

    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate with these values; fields that they do not name are taken from `values`."""
        own = {field: value for field, value in self.named.items() if field != "crop"}
        return FAMILIES[self.family].model_validate({**values, **own})


def combinations(space: SearchSpace, family: str, crop: int) -> list[Combination]:
    """All combinations of values of a family's decisive choices, not yet tried."""
    offered = options(space, family, crop)
    return [Combination(family, values) for values in product(*(offered[f] for f in FAMILIES[family].decisive))]
