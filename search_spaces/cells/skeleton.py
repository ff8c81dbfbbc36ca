"""Skeleton: the U-shape of levels around the cells, for supernets and for decided networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search_spaces.cells.cell_space import FRAMES, CellSpace, groups_of, levels_of, shortcut_options
from search_spaces.cells.genotype import Genotype, Group, Shortcut, cell_key, group_of
from search_spaces.errors import InputError

MOST_CHANNELS = 256  # most channels of a level
WIDTH_STEP = 4  # channels; the grouped convolution needs multiples of this
Gate = Literal["closed", "identity", "attention"]


@dataclass(frozen=True)
class Skeleton:
    """Sizes of everything except the edges.

    If an entry has several options, a path must say which; a decided network has one option for each.
    """

    dims: Literal[2, 3]
    nodes: Mapping[str, int]  # number of nodes of every kind of cell, by its key
    shortcuts: Mapping[str, tuple[Shortcut, ...]]  # options for every kind of cell, by its key
    channels: tuple[int, ...]  # channels of every level, the finest first
    groups: bool
    depths: tuple[tuple[int, ...], ...]  # options for every level
    widths: tuple[tuple[float, ...], ...]  # options for every level, as shares of its channels
    stem_strides: tuple[int, ...]
    # Gate options by target level, then source level; None: only the connection within each level, ungated.
    skips: tuple[dict[int, tuple[Gate, ...]], ...] | None

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channels)

    def group(self, level: int) -> Group | None:
        """The group of a level, or None if all levels share their cells."""
        return group_of(level, self.levels) if self.groups else None


def channels_of(width: int, levels: int) -> tuple[int, ...]:
    """Channels of every level: `width` at the finest, doubled at each coarser one up to a limit."""
    return tuple(min(width * 2**level, max(MOST_CHANNELS, width)) for level in range(levels))


def check_width(width: int) -> None:
    """Raise InputError for a width that the operations of cells do not support."""
    if width % WIDTH_STEP:
        below, above = width // WIDTH_STEP * WIDTH_STEP, (width // WIDTH_STEP + 1) * WIDTH_STEP
        near = f"{below} or {above}" if below else f"{above}"
        raise InputError(f"cells of width {width} cannot be built: use a multiple of {WIDTH_STEP}; set it to {near}")


def narrowed(channels: int, share: float) -> int:
    """A share of the channels of a level, rounded to whole groups of a grouped convolution; at least one group."""
    return max(WIDTH_STEP, round(channels * share / WIDTH_STEP) * WIDTH_STEP) if share < 1 else channels


def skeleton_of_space(space: CellSpace, family: str, width: int) -> Skeleton:
    """The skeleton of a supernet."""
    levels = levels_of(space, family)
    gates: tuple[Gate, ...] = ("closed", *space.skips)
    frame = FRAMES[family]
    kinds = {cell_key(kind, group): kind for kind in frame.kinds for group in groups_of(kind, levels, space.groups)}
    return Skeleton(
        dims=frame.dims,
        nodes=dict.fromkeys(kinds, space.nodes),
        shortcuts={key: shortcut_options(space, kind) for key, kind in kinds.items()},
        channels=channels_of(width, levels),
        groups=space.groups,
        depths=(space.depths,) * levels,
        widths=(space.widths,) * levels,
        stem_strides=space.stem_strides if frame.stem else (1,),
        skips=tuple(dict.fromkeys(range(levels), gates) for _ in range(levels - 1)) if space.skips else None,
    )


def skeleton_of_genotype(genotype: Genotype, family: str, width: int) -> Skeleton:
    """The skeleton of a decided network."""
    full = channels_of(width, genotype.levels)
    skips: tuple[dict[int, tuple[Gate, ...]], ...] | None = None
    if genotype.skips is not None:
        skips = tuple(
            {skip.source: (skip.gate,) for skip in genotype.skips if skip.target == target}
            for target in range(genotype.levels - 1)
        )
    return Skeleton(
        dims=FRAMES[family].dims,
        nodes={cell.key: len(cell.nodes) for cell in genotype.cells},
        shortcuts={cell.key: (cell.shortcut,) for cell in genotype.cells},
        channels=tuple(narrowed(c, share) for c, share in zip(full, genotype.widths, strict=True)),
        groups=any(cell.group is not None for cell in genotype.cells),
        depths=tuple((depth,) for depth in genotype.depths),
        widths=((1.0,),) * genotype.levels,
        stem_strides=(genotype.stem_stride,),
        skips=skips,
    )
