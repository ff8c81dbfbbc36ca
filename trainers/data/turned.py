"""A stack whose axes are brought onto those of another one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.geometry import Geometry, Turn, bring_together, same_spacing, spacing_text
from trainers.data.greys import one_channel
from trainers.data.slices import ReadBlock, Slices


@dataclass(frozen=True)
class Turned(Slices):
    """A stack read with its axes swapped or reversed."""

    stack: Slices = field(kw_only=True)
    turn: Turn = field(kw_only=True)

    @property
    def choice(self) -> str:
        """See Slices."""
        return f"{self.stack.choice} {self.turn}"

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        with self.stack.reading() as inner:
            if self.turn.order[0] == 0:
                yield lambda start, stop: self._block(inner, start, stop)
            else:
                # A slice then takes a line from every stored slice, so all of them are needed at once.
                whole = self.turn(self._whole(inner))
                yield lambda start, stop: whole[start:stop]

    def slice_name(self, z: int) -> str:
        """The location of a slice, for messages."""
        if self.turn.order[0] != 0:
            return f"{self.path} (slice {z} after its axes were swapped)"
        return self.stack.slice_name(self.shape[0] - 1 - z if self.turn.flipped[0] else z)

    def _block(self, read: ReadBlock, start: int, stop: int) -> NDArray[Any]:
        depth = self.shape[0]
        if self.turn.flipped[0]:
            start, stop = depth - stop, depth - start
        return self.turn(self._grey(read(start, stop), start))

    def _whole(self, read: ReadBlock) -> NDArray[Any]:
        whole = np.empty(self.stack.shape, self.dtype)
        for start in range(0, len(whole), self.stack.block_depth):
            stop = min(start + self.stack.block_depth, len(whole))
            whole[start:stop] = self._grey(read(start, stop), start)
        return whole

    def _grey(self, block: NDArray[Any], start: int) -> NDArray[Any]:
        return one_channel(block, lambda z: self.stack.slice_name(start + z))


def brought_onto(still: Slices, stack: Slices) -> tuple[Slices, tuple[str, ...]]:
    """The second stack so that its voxels lie on those of the first, and notes: what was turned, or not compared.

    Raises InputError if no swap or reversal of axes brings the two together.
    """
    try:
        turn = bring_together(still.geometry, stack.geometry)
    except ValueError as error:
        raise InputError(f"{stack.path} does not lie on {still.path}: {error}; write both on the same voxels") from None
    notes, geometry = _not_compared(still, stack), stack.geometry.turned(turn)
    if not same_spacing(still.spacing_um, geometry.spacing_um):
        notes += (f"the places of {stack.path.name} and {still.path.name} are not compared: their voxels differ",)
    notes += overruled(still.path, still.geometry) + overruled(stack.path, geometry)
    if not turn:
        return stack, notes
    turned = Turned(
        stack.path, geometry, stack.dtype, stack.files, notes=stack.notes, white=stack.white, stack=stack, turn=turn
    )
    return turned, (*notes, f"{stack.path.name} is turned onto {still.path.name}: {turn}")


def overruled(path: Path, geometry: Geometry) -> tuple[str, ...]:
    """A note where a person states a spacing that is not that of the file."""
    own, stated = geometry.spacing_um, geometry.stated_um
    if own is None or stated is None or same_spacing(own, stated):
        return ()
    return (f"{path.name} states voxels of {spacing_text(own)} µm, taken as {spacing_text(stated)} µm",)


def _not_compared(still: Slices, stack: Slices) -> tuple[str, ...]:
    """A note where one of two says how it lies, and nothing can be done with it."""
    both = (still.geometry, stack.geometry)
    if still.geometry.world == stack.geometry.world and len({one.directions is None for one in both}) == 1:
        return ()
    saying = [one.path.name for one in (stack, still) if one.geometry.says_how_it_lies]
    silent = [one.path.name for one in (stack, still) if not one.geometry.says_how_it_lies]
    match saying:
        case []:
            return ()
        case [only]:
            said = f"{only} says how it lies, and {silent[0]} does not"
        case _:
            said = f"{saying[0]} and {saying[1]} say how they lie in terms that cannot be compared"
    return (f"{said}: both are taken as they are stored",)
