"""The two sides of a cell search: the voxels used to train weights, and the voxels used to train alphas."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from search_spaces.errors import InputError
from trainers.data.manifest import INSIDE
from trainers.data.volume import Volume
from trainers.report import SILENT, Report

_LEAST_SHARE = 0.15  # smallest share of the vessel voxels that a side needs to be worth training on


def bilevel_split(
    volumes: Sequence[Volume], gap: int, report: Report = SILENT
) -> tuple[tuple[Volume, ...], tuple[Volume, ...]]:
    """Training volumes for the weights and for the alphas, which share no voxel.

    The sides get different kidneys if each can have a fair share of the vessels. Otherwise they get different volumes
    of one kidney; volumes that lie inside another one (manifest.INSIDE) stay on its side. Otherwise each volume is cut
    into two slabs with `gap` slices between them, so that no patch of one side reaches into the other; among volumes
    inside each other only the one with the most vessels is cut. Raises InputError if even that leaves a side without
    vessels.
    """
    for name, key in (("kidney", lambda v: v.kidney), ("volume", _place)):
        sides = _halves(volumes, key)
        if sides is not None:
            if name == "volume":
                report.note("one kidney has most of the vessels: weights and alphas learn from different volumes of it")
            return sides
    cut = [max(group, key=lambda v: len(v.vessel_voxels)) for group in _groups(volumes, _place).values()]
    names = ", ".join(volume.name for volume in cut)
    report.note(f"weights and alphas learn from slabs of the same volume, {gap} slices apart: {names}")
    pairs = [_slabs(volume, gap) for volume in cut]
    sides = tuple(p[0] for p in pairs if p), tuple(p[1] for p in pairs if p)
    if not all(_vessels(side) for side in sides):
        raise InputError(
            f"cells cannot be searched on {', '.join(v.name for v in volumes)}: weights and alphas need separate "
            f"vessels, in two kidneys or in two slabs {gap} slices apart; add a kidney, or use smaller boxes"
        )
    return sides


def _vessels(volumes: Sequence[Volume]) -> int:
    return sum(len(volume.vessel_voxels) for volume in volumes)


def _place(volume: Volume) -> str:
    """A name that is the same for volumes that lie inside each other."""
    return INSIDE.get(volume.name, volume.name)


def _groups(volumes: Sequence[Volume], key: Callable[[Volume], str]) -> dict[str, list[Volume]]:
    groups: dict[str, list[Volume]] = {}
    for volume in volumes:
        groups.setdefault(key(volume), []).append(volume)
    return groups


def _halves(
    volumes: Sequence[Volume], key: Callable[[Volume], str]
) -> tuple[tuple[Volume, ...], tuple[Volume, ...]] | None:
    """Two sides with about equal numbers of vessel voxels; a group is never split, and the first side is larger."""
    sides: tuple[list[Volume], list[Volume]] = ([], [])
    for group in sorted(_groups(volumes, key).values(), key=lambda g: (-_vessels(g), g[0].name)):
        sides[_vessels(sides[1]) < _vessels(sides[0])].extend(group)
    if min(_vessels(side) for side in sides) < _LEAST_SHARE * _vessels(volumes) or not all(map(_vessels, sides)):
        return None
    return tuple(sides[0]), tuple(sides[1])


def _slabs(volume: Volume, gap: int) -> tuple[Volume, Volume] | None:
    """The first and the last part of a volume, with about equally many vessels; None if it is too short."""
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
