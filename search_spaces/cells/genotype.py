"""Genotype: the decided wiring of a network of cells, as a value with a canonical JSON and a hash."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeInt, field_validator, model_validator

CellKind = Literal["encoder_normal", "reduction", "decoder_normal", "expansion", "skip"]
Group = Literal["top", "middle", "bottom"]
Shortcut = Literal["none", "identity"]

# Bounds far beyond what a search finds, so that a genotype from a stranger cannot ask for a machine.
MOST_NODES, MOST_LEVELS, MOST_CELLS, WIDEST = 32, 10, 64, 16.0


class Edge(BaseModel, frozen=True, extra="forbid"):
    """One incoming edge of a node."""

    source: NonNegativeInt  # 0 and 1: the inputs of the cell; 2 + i: its node i
    operation: str = Field(pattern=r"^\w+$", max_length=64)  # a name in OPERATIONS


class CellGenotype(BaseModel, frozen=True, extra="forbid"):
    """The edges of one kind of cell; `group` is set if the levels of the network have different cells."""

    kind: CellKind  # what the cell does to the resolution, and its side of the U
    group: Group | None = None  # the levels that use it; None: all
    nodes: tuple[tuple[Edge, ...], ...] = Field(min_length=1, max_length=MOST_NODES)  # the incoming edges of each node
    shortcut: Shortcut = "none"  # identity: the cell's second input is added to its output

    @property
    def key(self) -> str:
        """The name of the kind of cell, such as `encoder_normal` or `encoder_normal@top`."""
        return cell_key(self.kind, self.group)

    @model_validator(mode="after")
    def _shortcut_fits(self) -> "CellGenotype":
        if self.shortcut != "none" and self.kind in ("reduction", "expansion"):
            raise ValueError(f"a cell of kind {self.kind} changes the resolution, so it cannot have a shortcut")
        return self

    @field_validator("nodes")
    @classmethod
    def _in_order(cls, nodes: tuple[tuple[Edge, ...], ...]) -> tuple[tuple[Edge, ...], ...]:
        for number, edges in enumerate(nodes):
            sources = [edge.source for edge in edges]
            if not edges:
                raise ValueError(f"node {number} has no incoming edge")
            if len(set(sources)) < len(sources):
                raise ValueError(f"node {number} has two edges from the same source")
            if max(sources) > number + 1:
                raise ValueError(f"node {number} has an edge from {max(sources)}, which comes after it")
        return tuple(tuple(sorted(edges, key=lambda edge: edge.source)) for edges in nodes)


class Skip(BaseModel, frozen=True, extra="forbid"):
    """One open connection from an encoder level to a decoder level; 0 is the full resolution."""

    source: NonNegativeInt  # encoder level
    target: NonNegativeInt  # decoder level
    gate: Literal["identity", "attention"] = "identity"  # the gate that its map passes through


class Genotype(BaseModel, frozen=True, extra="forbid"):
    """Everything that cell search decides about a network; the candidate sets the widths in channels.

    Equal genotypes have equal JSON and equal hashes, regardless of the order in which their parts were given.
    """

    cells: tuple[CellGenotype, ...] = Field(min_length=1)  # one per kind, and per group if there are groups
    levels: int = Field(gt=0, le=MOST_LEVELS)  # number of resolutions, the finest first
    # Number of normal cells at each level, in the encoder and again in the decoder.
    depths: tuple[Annotated[int, Field(gt=0, le=MOST_CELLS)], ...]
    widths: tuple[Annotated[float, Field(gt=0, le=WIDEST)], ...]  # share of each level's channels that is used
    stem_stride: Literal[1, 2] = 1  # stride of the stem; with 2 the cells work at half the resolution
    skips: tuple[Skip, ...] | None = None  # open skip connections; None: only the connection within each level

    @field_validator("cells")
    @classmethod
    def _sorted_cells(cls, cells: tuple[CellGenotype, ...]) -> tuple[CellGenotype, ...]:
        keys = [cell.key for cell in cells]
        if len(set(keys)) < len(keys):
            raise ValueError("a kind of cell is described twice")
        return tuple(sorted(cells, key=lambda cell: cell.key))

    @field_validator("skips")
    @classmethod
    def _sorted_skips(cls, skips: tuple[Skip, ...] | None) -> tuple[Skip, ...] | None:
        return None if skips is None else tuple(sorted(skips, key=lambda skip: (skip.target, skip.source)))

    @model_validator(mode="after")
    def _one_value_a_level(self) -> "Genotype":
        if not len(self.depths) == len(self.widths) == self.levels:
            raise ValueError(f"depths and widths must have one value for each of the {self.levels} levels")
        return self

    def nodes(self, key: str) -> tuple[tuple[Edge, ...], ...] | None:
        """The nodes of the cells with this key, or None if the genotype has no such cells."""
        return next((cell.nodes for cell in self.cells if cell.key == key), None)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def shortcut(self, key: str) -> Shortcut:
        """The shortcut of the cells with this key."""
        return next((cell.shortcut for cell in self.cells if cell.key == key), "none")

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits, equal if and only if the genotypes are equal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def cell_key(kind: CellKind, group: Group | None) -> str:
    """The name of a kind of cell in a network, followed by its group if the levels differ."""
    return kind if group is None else f"{kind}@{group}"


def group_of(level: int, levels: int) -> Group:
    """The group that a level belongs to."""
    return "top" if level == 0 else "bottom" if level == levels - 1 else "middle"
