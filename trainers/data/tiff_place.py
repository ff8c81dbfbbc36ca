"""Where the voxels of a TIFF file lie: orientation, and spacing by its descriptions or resolution tags."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from trainers.data.geometry import SPACING_TOLERANCE, Geometry, Spacing, Vector
from trainers.data.units import micrometres

_ORIENTATION = 274  # the code of that tag
_WORLD = "TIFF"  # x to the right, y down, as shown
_RIGHT, _DOWN, _LEFT, _UP, _DEEP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)
# The tag Orientation: where rows and columns lead. Readers leave the voxels as they are stored.
ORIENTATIONS: dict[int, tuple[Vector, Vector]] = {
    1: (_DOWN, _RIGHT),
    2: (_DOWN, _LEFT),
    3: (_UP, _LEFT),
    4: (_UP, _RIGHT),
    5: (_RIGHT, _DOWN),
    6: (_LEFT, _DOWN),
    7: (_LEFT, _UP),
    8: (_RIGHT, _UP),
}
_PER_INCH, _PER_CENTIMETRE = 2, 3  # of the tag ResolutionUnit; 4 and 5 are millimetre and micrometre by custom
_MICROMETRES = {_PER_INCH: 25_400.0, _PER_CENTIMETRE: 10_000.0, 4: 1_000.0, 5: 1.0}
# What programs write that know nothing of a scan: the resolution of screens and printers, in dots per inch.
_SCREENS_AND_PRINTERS = (72, 75, 96, 100, 120, 144, 150, 200, 240, 300, 400, 600, 1200, 2400)
_ROUNDED = 1e-3  # relative; 72 dots per inch are written as 28.35 per centimetre, or as 2835 per metre
_PLACE = re.compile(r"spacing_um=([^,]+),([^,]+),([^,]+)")
_NOT_STATED = "no distance of slices is stated"


def geometry_of(
    tif: Any,
    page: Any,
    shape: tuple[int, int, int],
    pixels: Mapping[str, Any],
    numbers: tuple[int, ...] | None = None,
) -> tuple[Geometry, tuple[str, ...]]:
    """The geometry of a stack that begins with this page, and what was assumed.

    pixels: what OME-XML says of it. numbers: those in the names of slices.
    """
    stated = spacing_of(tif, page, pixels)
    counted = numbers or tuple(range(shape[0]))
    # The specification takes a page without the tag for one with 1, but most programs neither read nor write it.
    directions = (_DEEP, *ORIENTATIONS[orientation(page)]) if "Orientation" in page.tags else None
    geometry = Geometry(shape, counted, numbers is not None, stated.spacing_um, _WORLD, directions)
    return replace(geometry, depth_is_assumed=stated.depth_is_assumed), stated.notes


class StatedSpacing(NamedTuple):
    """What a file says of the edges of a voxel; depth_is_assumed: it does not say how far apart slices are."""

    spacing_um: Spacing | None = None
    notes: tuple[str, ...] = ()
    depth_is_assumed: bool = False


def orientation(page: Any) -> int:
    """The tag Orientation of a page, 1 if it has none or one that is not defined."""
    tag = page.tags.get("Orientation")
    value = 1 if tag is None else int(tag.value)
    return value if value in ORIENTATIONS else 1


def tags_for(geometry: Geometry) -> dict[str, Any]:
    """Options of tifffile that make a file state the spacing and orientation of a geometry."""
    tags: dict[str, Any] = {}
    if geometry.spacing_um is not None:
        z, y, x = geometry.spacing_um
        tags["description"] = f"spacing_um={z!r},{y!r},{x!r}"
        tags["resolution"] = _MICROMETRES[_PER_CENTIMETRE] / x, _MICROMETRES[_PER_CENTIMETRE] / y
        tags["resolutionunit"] = "CENTIMETER"
    if geometry.world == _WORLD and geometry.directions is not None:
        found = next(value for value, axes in ORIENTATIONS.items() if axes == geometry.directions[1:])
        tags["extratags"] = [(_ORIENTATION, "H", 1, found, True)]
    return tags


def spacing_of(tif: Any, page: Any, pixels: Mapping[str, Any]) -> StatedSpacing:
    """The spacing that a file states for a stack that begins with this page, and what was assumed.

    The first that says something counts: our masks, OME-XML, ImageJ's or tifffile's description, the resolution tags.
    """
    own = _PLACE.fullmatch((page.description or "").strip())
    if own:
        return StatedSpacing((float(own[1]), float(own[2]), float(own[3])))
    said = described(page)
    if "PhysicalSizeX" in pixels or "PhysicalSizeX" in said:
        return _by_ome(pixels if "PhysicalSizeX" in pixels else said)
    if tif.is_imagej:
        said = tif.imagej_metadata
        named = [int(said.get(axis, 1)) for axis in ("slices", "channels", "frames")]
        several = named[0] > 1 or (max(named) == 1 and (len(tif.pages) > 1 or said.get("images", 1) != 1))
        return _by_unit(said, page, 1.0 if several else None)
    if "unit" in said and resolution_of(page) == (1.0, 1.0):
        return StatedSpacing()  # as tifffile writes where no resolution is given
    return _by_unit(said, page, None)


def differ(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    """Whether two spacings or resolutions differ where both are stated, by more than headers round."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return any(not abs(a - b) <= SPACING_TOLERANCE * max(abs(a), abs(b)) for a, b in pairs)


def described(page: Any) -> Mapping[str, Any]:
    """What tifffile wrote of a page beside its shape."""
    if not page.is_shaped or not page.shaped_description.startswith("{"):
        return {}
    said: Mapping[str, Any] = json.loads(page.shaped_description)
    return said


def _by_ome(pixels: Mapping[str, Any]) -> StatedSpacing:
    """https://www.openmicroscopy.org/Schemas/OME/2016-06: the unit is µm where it is not stated."""
    edges: list[float | None] = []
    for axis in "ZYX":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        factor = micrometres(unit)
        if size is not None and factor is None:
            return StatedSpacing(notes=(f"the unit {unit!r} of its PhysicalSize{axis} is not a known unit of length",))
        edge = _number(size)
        edges.append(None if edge is None or factor is None else edge * factor)
    z, y, x = edges
    return StatedSpacing() if y is None or x is None else _with_depth(z, y, x)


def _by_unit(said: Mapping[str, Any], page: Any, apart: float | None) -> StatedSpacing:
    """By ImageJ's units of the axes, or by the tag; apart: units between slices where `spacing` does not say so.

    ImageJ writes no `spacing` where the slices of a stack lie one unit apart; a single slice has no distance.
    """
    y, x = resolution_of(page)
    if y is None or x is None:
        return StatedSpacing()
    # The default of the specification is the inch, but a file that leaves the unit out hardly knows its resolution.
    by_tag = _MICROMETRES.get(int(page.tags.valueof("ResolutionUnit", 1)))
    factors: list[float] = []
    for unit in (said.get("unit"), said.get("yunit"), said.get("zunit")):
        factor = (factors[0] if factors else by_tag) if unit is None else micrometres(unit)
        if factor is None:
            strange = unit is not None and str(unit).lower() not in ("", "pixel", "pixels")
            return StatedSpacing(notes=(f"its unit {unit!r} is not a known unit of length",) if strange else ())
        factors.append(factor)
    along, across, deep = factors
    if by_tag is not None and not page.is_imagej and by_tag != _MICROMETRES[_PER_INCH]:
        along = across = by_tag  # tifffile writes the inch for who names none
    dots = (y * 25_400 / across, x * 25_400 / along)
    if {along, across} <= {_MICROMETRES[_PER_INCH], _MICROMETRES[_PER_CENTIMETRE]} and all(map(_means_nothing, dots)):
        said_so = f"it states {dots[1]:.4g} dots per inch, as programs do that know no spacing; not taken as one"
        return StatedSpacing(notes=(said_so,))
    between = _number(said.get("spacing", apart))
    found = _with_depth(None if between is None else between * deep, across / y, along / x)
    if between is None or "spacing" in said:
        return found
    return found._replace(notes=(f"{_NOT_STATED}; taken as one unit, {deep:g} µm, as ImageJ does",))


def _number(said: Any) -> float | None:
    """What a description says, None if it is not a number."""
    try:
        return float(said)
    except (TypeError, ValueError):
        return None


def _means_nothing(dots: float) -> bool:
    """Whether so many dots per inch are those of a screen or a printer, or one per unit."""
    return any(math.isclose(dots, usual, rel_tol=_ROUNDED) for usual in (*_SCREENS_AND_PRINTERS, 1.0, 2.54))


def _with_depth(z: float | None, y: float, x: float) -> StatedSpacing:
    """The spacing of slices with such pixels, which lie as far apart as these are wide if nothing else is stated."""
    if z is not None:
        return StatedSpacing((z, y, x))
    if not math.isclose(y, x, rel_tol=_ROUNDED):
        return StatedSpacing(notes=(f"{_NOT_STATED}, and its pixels are not square; its spacing is not known",))
    return StatedSpacing((x, y, x), (f"{_NOT_STATED}; taken as the edge of a pixel, {x:g} µm",), True)


def resolution_of(page: Any) -> tuple[float | None, float | None]:
    """Pixels per unit along y and x; None where there is no such tag, or one of zero pixels."""
    tags = [page.tags.get(name) for name in ("YResolution", "XResolution")]
    values = [None if tag is None or 0 in tag.value else tag.value[0] / tag.value[1] for tag in tags]
    return values[0], values[1]
