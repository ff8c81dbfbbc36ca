"""The two sides of a cell search: voxels that weights learn from, and voxels that alphas learn from."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from search_spaces.errors import InputError
from trainers.data.volume import Volume

_LEAST_SHARE = 0.15  # of the vessel voxels, for a side to be worth learning from


def bilevel_split(
    volumes: Sequence[Volume], gap: int, on_note: Callable[[str], None]
) -> tuple[tuple[Volume, ...], tuple[Volume, ...]]:
    """Training volumes for the weights and for the alphas, which share no voxel.

    Different kidneys where each side can have a fair share of the vessels; else different volumes of one kidney; else
    two slabs of each volume with `gap` slices between them, so that no patch of one side reaches into the other.
    Raises InputError where even that leaves a side without vessels.
    """
    for name, key in (("kidney", lambda v: v.kidney), ("volume", lambda v: v.name)):
        sides = _halves(volumes, key)
        if sides is not None:
            if name == "volume":
                on_note(
                    "one kidney alone has most of the vessels: weights and alphas learn from different volumes of it"
                )
            return sides
    on_note(f"there is one volume to search on: weights and alphas learn from slabs of it, {gap} slices apart")
    pairs = [_slabs(volume, gap) for volume in volumes]
    sides = tuple(p[0] for p in pairs if p), tuple(p[1] for p in pairs if p)
    if not all(_vessels(side) for side in sides):
        raise InputError(
            f"cells cannot be searched on {', '.join(v.name for v in volumes)}: weights and alphas need vessels of "
            f"their own, on two kidneys or in two slabs {gap} slices apart; add a kidney, or use smaller boxes"
        )
    return sides


def _vessels(volumes: Sequence[Volume]) -> int:
    return sum(len(volume.vessel_voxels) for volume in volumes)


def _halves(
    volumes: Sequence[Volume], key: Callable[[Volume], str]
) -> tuple[tuple[Volume, ...], tuple[Volume, ...]] | None:
    """Two sides of about equally many vessel voxels, groups of one key kept together; the first the larger."""
    groups: dict[str, list[Volume]] = {}
    for volume in volumes:
        groups.setdefault(key(volume), []).append(volume)
    sides: tuple[list[Volume], list[Volume]] = ([], [])
    for group in sorted(groups.values(), key=lambda g: (-_vessels(g), g[0].name)):
        sides[_vessels(sides[1]) < _vessels(sides[0])].extend(group)
    if min(_vessels(side) for side in sides) < _LEAST_SHARE * _vessels(volumes) or not all(map(_vessels, sides)):
        return None
    return tuple(sides[0]), tuple(sides[1])


def _slabs(volume: Volume, gap: int) -> tuple[Volume, Volume] | None:
    """The first and the last part of a volume, with about as many vessels; None where it is too short."""
    depth, height, width = volume.shape
    if depth < gap + 2 or not len(volume.vessel_voxels):
        return None
    middle = int(volume.vessel_voxels[len(volume.vessel_voxels) // 2]) // (height * width)
    first = min(max(1, middle - gap // 2), depth - gap - 1)
    return _part(volume, 0, first), _part(volume, first + gap, depth)


def _part(volume: Volume, first: int, last: int) -> Volume:
    _, height, width = volume.shape
    inside = (volume.vessel_voxels >= first * height * width) & (volume.vessel_voxels < last * height * width)
    label = None if volume.label is None else volume.label[first:last]
    return replace(
        volume,
        image=volume.image[first:last],
        label=label,
        vessel_voxels=volume.vessel_voxels[inside] - first * height * width,
    )
