"""CellSpace: what cell search may decide, as a list of decisions; and how decisions become genotypes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from search_spaces.cells.genotype import (
    CellGenotype,
    CellKind,
    Edge,
    Genotype,
    Group,
    Shortcut,
    Skip,
    cell_key,
    group_of,
)
from search_spaces.cells.operations import OPERATIONS, Resampling
from search_spaces.errors import InputError, unknown_name

Choice = Mapping[str, tuple[int, ...]]  # decision -> the picked options, by their positions


@dataclass(frozen=True)
class Frame:
    """The network around the cells of a family."""

    kinds: tuple[CellKind, ...]
    dims: Literal[2, 3]
    levels: int | None  # number of resolutions; None: as many as the space says
    stem: bool  # whether it begins with its own stem


FRAMES: dict[str, Frame] = {  # by family
    "cells": Frame(("encoder_normal", "reduction", "decoder_normal", "expansion"), dims=3, levels=None, stem=True),
    # Behind a published encoder, whose maps have strides 1, 2, 4, 8, 16 and 32.
    "hybrid": Frame(("decoder_normal", "expansion", "skip"), dims=2, levels=6, stem=False),
}
# How the edges from a cell's two inputs change the resolution; its other edges keep it.
RESAMPLING: dict[CellKind, Resampling] = {
    "encoder_normal": "same",
    "reduction": "down",
    "decoder_normal": "same",
    "expansion": "up",
    "skip": "same",
}


class CellSpace(BaseModel, frozen=True, extra="forbid"):
    """The choices of cell search: names in OPERATIONS by what they do to the resolution, and the shape of the network.

    `level = "L1"`, a name in CELL_SPACES, supplies every value that is not given.
    """

    same: Annotated[tuple[str, ...], Field(min_length=1)]  # operations that keep the resolution: names in OPERATIONS
    down: Annotated[tuple[str, ...], Field(min_length=1)]  # operations that halve the resolution: names in OPERATIONS
    up: Annotated[tuple[str, ...], Field(min_length=1)]  # operations that double the resolution: names in OPERATIONS
    nodes: PositiveInt = 3  # nodes of a cell
    edges: PositiveInt = 2  # edges that each node keeps, of all that could lead into it
    # Shortcuts to choose from, around cells that keep the resolution.
    shortcuts: Annotated[tuple[Shortcut, ...], Field(min_length=1)] = ("none",)
    levels: int = Field(default=4, ge=2)  # number of resolutions in networks of the family cells
    groups: bool = False  # whether the top, middle and bottom levels have different cells
    # Gates of skip connections between all levels; empty: only the connection within each level, as in U-Net.
    skips: tuple[Literal["identity", "attention"], ...] = ()
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)  # numbers of normal cells per level
    widths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)  # shares of a level's channels
    # Strides of the stem; with 2 the cells work at half the resolution.
    stem_strides: Annotated[tuple[Literal[1, 2], ...], Field(min_length=1)] = (1,)

    @model_validator(mode="before")
    @classmethod
    def _from_its_level(cls, values: Any) -> Any:
        if not isinstance(values, dict) or ("level" not in values and {"same", "down", "up"} <= values.keys()):
            return values
        given = dict(values)
        level = str(given.pop("level", DEFAULT_LEVEL))
        if level not in CELL_SPACES:
            raise unknown_name("level of cell space", level, CELL_SPACES)
        return {**CELL_SPACES[level].model_dump(), **given}

    @field_validator("*")
    @classmethod
    def _choices_differ(cls, value: object) -> object:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("the same choice is named twice")
        return value

    @field_validator("widths")
    @classmethod
    def _at_most_all(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if max(value) != 1.0:
            raise ValueError("widths are shares of the full width, and the largest must be 1.0")
        return value

    def operations(self, resampling: Resampling) -> tuple[str, ...]:
        """Names of the operations that an edge of this kind may carry."""
        return {"same": self.same, "down": self.down, "up": self.up}[resampling]


# The levels of the search space, each adding to the one before. The operations that the SCNAS paper (Kim et al. 2019,
# arXiv 1906.05956) used are not public: L0 is the set of DARTS in three dimensions, and each list can be changed.
_SAME_0 = ("identity", "conv3", "sep3", "sep5", "dil3", "avg3", "max3")
_DOWN_0 = ("down_max", "down_avg", "down_conv3", "down_sep3", "down_dil3")
_UP_0 = ("up_linear", "up_transposed", "up_sep_transposed")
_SAME_1 = ("identity", "conv3", "factor3", "depth3", "depth5", "depth7", "group3", "dil3", "max3", "squeeze", "gate")
_DOWN_1 = ("down_max", "down_conv3", "down_sep3", "down_shuffle", "down_blur")
_UP_1 = ("up_linear", "up_transposed", "up_shuffle", "up_linear_depth")
_AROUND: tuple[Shortcut, ...] = ("none", "identity")

_LEVEL_1: dict[str, Any] = {"same": _SAME_1, "down": _DOWN_1, "up": _UP_1, "shortcuts": _AROUND}
_LEVEL_3: dict[str, Any] = {**_LEVEL_1, "groups": True, "skips": ("identity", "attention")}

DEFAULT_LEVEL = "L1"
CELL_SPACES: dict[str, CellSpace] = {
    "scnas": CellSpace(same=("zero", *_SAME_0), down=_DOWN_0, up=_UP_0),
    "L0": CellSpace(same=_SAME_0, down=_DOWN_0, up=_UP_0),
    "L1": CellSpace(**_LEVEL_1),
    "L2": CellSpace(**_LEVEL_1, groups=True),
    "L3": CellSpace(**_LEVEL_3),
    "L4": CellSpace(**_LEVEL_3, depths=(1, 2, 3), widths=(0.5, 0.75, 1.0), stem_strides=(1, 2)),
}


@dataclass(frozen=True)
class Decision:
    """One decision: pick `picks` of the options."""

    key: str
    options: tuple[str, ...]
    picks: int = 1


def check_cell_space(space: CellSpace) -> None:
    """Raise InputError, one line, for an operation that does not exist or is in the wrong list."""
    for resampling in ("same", "down", "up"):
        fitting = [name for name, operation in OPERATIONS.items() if operation.resampling == resampling]
        for name in space.operations(resampling):
            if name not in OPERATIONS:
                raise unknown_name("operation", name, fitting)
            if name not in fitting:
                raise InputError(
                    f"operation {name!r} is listed under {resampling!r} but belongs under "
                    f"{OPERATIONS[name].resampling!r}; choose from: {', '.join(fitting)}"
                )
    if set(space.same) <= {"zero"}:
        raise InputError("the list 'same' has only 'zero', which carries nothing; add conv3 or another operation")


def levels_of(space: CellSpace, family: str) -> int:
    """Number of resolutions in the family's networks."""
    return FRAMES[family].levels or space.levels


def levels_with(kind: CellKind, levels: int) -> range:
    """The levels that have a kind of cell; an expansion belongs to the level that it leads to."""
    return range(levels) if kind == "encoder_normal" else range(levels - 1)


def groups_of(kind: CellKind, levels: int, groups: bool) -> tuple[Group | None, ...]:
    """The groups that have a cell of this kind; only None if all levels share one cell."""
    if not groups:
        return (None,)
    return tuple(dict.fromkeys(group_of(level, levels) for level in levels_with(kind, levels)))


def decisions(space: CellSpace, family: str) -> tuple[Decision, ...]:
    """All decisions, in a fixed order. Whatever has only one option is not a decision."""
    return tuple(d for d in _decisions(space, family) if len(d.options) > d.picks)


def _decisions(space: CellSpace, family: str) -> Iterator[Decision]:
    levels = levels_of(space, family)
    for kind in FRAMES[family].kinds:
        for group in groups_of(kind, levels, space.groups):
            key = cell_key(kind, group)
            for node in range(space.nodes):
                sources = tuple(str(source) for source in range(node + 2))
                yield Decision(f"{key}/{node}/edges", sources, min(space.edges, len(sources)))
                for source in range(node + 2):
                    yield Decision(f"{key}/{node}/{source}", edge_options(space, kind, source))
            yield Decision(f"{key}/shortcut", shortcut_options(space, kind))
    for target in range(levels - 1) if space.skips else ():
        for source in range(levels):
            yield Decision(f"skip/{source}>{target}", ("closed", *space.skips))
    for level in range(levels):
        yield Decision(f"depth/{level}", tuple(map(str, space.depths)))
        yield Decision(f"width/{level}", tuple(map(str, space.widths)))
    if FRAMES[family].stem:
        yield Decision("stem", tuple(map(str, space.stem_strides)))


def edge_options(space: CellSpace, kind: CellKind, source: int) -> tuple[str, ...]:
    """Operations of an edge; on an edge from an input of a reduction or expansion they change the resolution."""
    return space.operations(RESAMPLING[kind] if source < 2 else "same")


def shortcut_options(space: CellSpace, kind: CellKind) -> tuple[Shortcut, ...]:
    """The shortcuts that a cell may have; only "none" if the cell changes the resolution."""
    return space.shortcuts if RESAMPLING[kind] == "same" else ("none",)


def genotype_of(space: CellSpace, family: str, choice: Choice) -> Genotype:
    """The genotype that follows from one choice for every decision.

    A node whose picked edges all carry `zero` keeps the first of them, with the first operation that is not `zero`.
    """
    levels = levels_of(space, family)
    known = {decision.key: decision for decision in _decisions(space, family)}

    def picked(key: str) -> tuple[str, ...]:
        decision = known[key]
        places = choice.get(key, tuple(range(decision.picks)))
        return tuple(decision.options[place] for place in places)

    cells = []
    for kind in FRAMES[family].kinds:
        for group in groups_of(kind, levels, space.groups):
            key = cell_key(kind, group)
            nodes = []
            for node in range(space.nodes):
                sources = sorted(int(source) for source in picked(f"{key}/{node}/edges"))
                edges = [Edge(source=s, operation=picked(f"{key}/{node}/{s}")[0]) for s in sources]
                carrying = [edge for edge in edges if edge.operation != "zero"]
                if not carrying:
                    first = next(o for o in edge_options(space, kind, sources[0]) if o != "zero")
                    carrying = [Edge(source=sources[0], operation=first)]
                nodes.append(tuple(carrying))
            around = picked(f"{key}/shortcut")[0]
            cells.append(
                CellGenotype.model_validate({"kind": kind, "group": group, "nodes": tuple(nodes), "shortcut": around})
            )
    return Genotype(
        cells=tuple(cells),
        levels=levels,
        depths=tuple(int(picked(f"depth/{level}")[0]) for level in range(levels)),
        widths=tuple(float(picked(f"width/{level}")[0]) for level in range(levels)),
        stem_stride=2 if FRAMES[family].stem and picked("stem") == ("2",) else 1,
        skips=_skips(levels, picked, space.skips[0]) if space.skips else None,
    )


def _skips(levels: int, picked: Callable[[str], tuple[str, ...]], opened: str) -> tuple[Skip, ...]:
    """The open connections; if all connections into a level are closed, its own gets the gate `opened`."""
    found = []
    for target in range(levels - 1):
        gates = {source: picked(f"skip/{source}>{target}")[0] for source in range(levels)}
        if set(gates.values()) == {"closed"}:
            gates[target] = opened
        for source, gate in gates.items():
            if gate != "closed":
                found.append(Skip.model_validate({"source": source, "target": target, "gate": gate}))
    return tuple(found)


def random_choice(decisions_: Sequence[Decision], rng: np.random.Generator) -> dict[str, tuple[int, ...]]:
    """One option for every decision, all equally likely; several distinct ones if several are to be picked."""
    return {
        d.key: tuple(sorted(int(i) for i in rng.choice(len(d.options), d.picks, replace=False))) for d in decisions_
    }


def check_genotype(genotype: Genotype, family: str) -> None:
    """Raise InputError, one line, if a genotype does not belong to this family or names unknown operations."""
    keys = {cell.key for cell in genotype.cells}
    grouped = any(cell.group for cell in genotype.cells)
    wanted = {cell_key(k, g) for k in FRAMES[family].kinds for g in groups_of(k, genotype.levels, grouped)}
    if keys != wanted:
        more, less = ", ".join(sorted(keys - wanted)), ", ".join(sorted(wanted - keys))
        raise InputError(
            f"genotype {genotype.hash} belongs to another search space than family {family!r}"
            + (f"; it lacks cells {less}" if less else "")
            + (f"; it has cells {more}, which the family does not know" if more else "")
        )
    frame = FRAMES[family]
    if frame.levels not in (None, genotype.levels) or (not frame.stem and genotype.stem_stride != 1):
        raise InputError(f"a {family} network has {frame.levels} levels and no stem; genotype {genotype.hash} differs")
    for cell in genotype.cells:
        for edges in cell.nodes:
            for edge in edges:
                resampling = RESAMPLING[cell.kind] if edge.source < 2 else "same"
                fitting = [name for name, operation in OPERATIONS.items() if operation.resampling == resampling]
                if edge.operation not in fitting:
                    raise unknown_name(f"operation in {cell.key} of genotype {genotype.hash}:", edge.operation, fitting)
    for skip in genotype.skips or ():
        if skip.source >= genotype.levels or skip.target >= genotype.levels - 1:
            raise InputError(
                f"genotype {genotype.hash} has a skip from level {skip.source} to level {skip.target}, "
                f"but its decoder has only the levels 0 to {genotype.levels - 2}"
            )
