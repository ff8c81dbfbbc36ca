"""Genotype: the decided wiring of a network of cells, as a value with a canonical JSON and a hash."""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

CellKind = Literal["encoder_normal", "reduction", "decoder_normal", "expansion", "skip"]
Group = Literal["top", "middle", "bottom"]
Shortcut = Literal["none", "identity"]


class Edge(BaseModel, frozen=True, extra="forbid"):
    """One incoming edge of a node."""

    source: NonNegativeInt  # 0 and 1: the inputs of the cell; 2 + i: its node i
    operation: str  # a name in OPERATIONS


class CellGenotype(BaseModel, frozen=True, extra="forbid"):
    """The edges of one kind of cell; `group` where the levels of the network have cells of their own."""

    kind: CellKind  # what the cell does to the resolution, and on which side of the U it stands
    group: Group | None = None  # which levels it is of; None: all
    nodes: tuple[tuple[Edge, ...], ...] = Field(min_length=1)  # of each node the edges that come in
    shortcut: Shortcut = "none"  # identity: the cell's second input is added to its output

    @property
    def key(self) -> str:
        """As in `encoder_normal` or `encoder_normal@top`."""
        return cell_key(self.kind, self.group)

    @model_validator(mode="after")
    def _shortcut_fits(self) -> "CellGenotype":
        if self.shortcut != "none" and self.kind in ("reduction", "expansion"):
            raise ValueError(f"a cell of kind {self.kind} changes the resolution, so that it can have no shortcut")
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

    source: NonNegativeInt  # level of the encoder
    target: NonNegativeInt  # level of the decoder
    gate: Literal["identity", "attention"] = "identity"  # what it passes through


class Genotype(BaseModel, frozen=True, extra="forbid"):
    """Everything that cell search decides about a network; widths in channels are the candidate's matter.

    Equal genotypes have equal JSON and equal hashes, whatever order their parts were given in.
    """

    cells: tuple[CellGenotype, ...] = Field(min_length=1)  # one of each kind, and of each group where there are groups
    levels: PositiveInt  # resolutions, the finest first
    depths: tuple[PositiveInt, ...]  # normal cells of each level, in the encoder and again in the decoder
    widths: tuple[PositiveFloat, ...]  # share of each level's channels that is used
    stem_stride: Literal[1, 2] = 1  # 2: the cells work at half the resolution
    skips: tuple[Skip, ...] | None = None  # None: each level's own

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
        """The nodes of the cells with a key, or None where the genotype has none."""
        return next((cell.nodes for cell in self.cells if cell.key == key), None)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def shortcut(self, key: str) -> Shortcut:
        """What goes around the cells with a key."""
        return next((cell.shortcut for cell in self.cells if cell.key == key), "none")

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits; equal exactly for equal genotypes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def cell_key(kind: CellKind, group: Group | None) -> str:
    """The name of a kind of cell in a network: with its group where the levels differ."""
    return kind if group is None else f"{kind}@{group}"


def group_of(level: int, levels: int) -> Group:
    """Which third of a network a level belongs to."""
    return "top" if level == 0 else "bottom" if level == levels - 1 else "middle"
