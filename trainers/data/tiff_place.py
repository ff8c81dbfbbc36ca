"""Where the voxels of a TIFF file lie: orientation, and spacing by our masks, OME-XML, ImageJ or resolution tags."""

import re
from collections.abc import Mapping
from typing import Any

import tifffile

from trainers.data.geometry import Geometry, Spacing, Vector
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
_PER_INCH, _PER_CENTIMETRE = 2, 3  # of the tag ResolutionUnit
_MICROMETRES = {_PER_INCH: 25_400.0, _PER_CENTIMETRE: 10_000.0}
# What programs write that know nothing of a scan: the resolution of screens and printers, in dots per inch.
_SCREENS_AND_PRINTERS = {1.0, 72.0, 75.0, 96.0, 100.0, 120.0, 150.0, 200.0, 240.0, 300.0, 400.0, 600.0, 1200.0, 2400.0}
_PLACE = re.compile(r"spacing_um=([^,]+),([^,]+),([^,]+)")


def geometry_of(
    tif: Any, shape: tuple[int, int, int], numbers: tuple[int, ...] | None = None
) -> tuple[Geometry, tuple[str, ...]]:
    """The geometry of a stack that begins with this file, and what was assumed; numbers: those in names of slices."""
    spacing, notes = _spacing(tif)
    rows, columns = ORIENTATIONS[orientation(tif.pages.first)]
    counted = numbers or tuple(range(shape[0]))
    return Geometry(shape, counted, numbers is not None, spacing, _WORLD, (_DEEP, rows, columns)), notes


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
        if found != 1:
            tags["extratags"] = [(_ORIENTATION, "H", 1, found, True)]
    return tags


def _spacing(tif: Any) -> tuple[Spacing | None, tuple[str, ...]]:
    page = tif.pages.first
    own = _PLACE.fullmatch((page.description or "").strip())
    if own:
        return (float(own[1]), float(own[2]), float(own[3])), ()
    if tif.is_ome:
        return _by_ome(tif)
    if tif.is_imagej:
        return _by_imagej(tif.imagej_metadata or {}, page)
    return _by_tags(page)


def _by_ome(tif: Any) -> tuple[Spacing | None, tuple[str, ...]]:
    """https://www.openmicroscopy.org/Schemas/OME/2016-06: the unit is µm where it is not stated."""
    images = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]
    pixels = (images[0] if isinstance(images, list) else images)["Pixels"]
    edges = []
    for axis in "ZYX":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if size is None:
            return None, ()
        factor = micrometres(unit)
        if factor is None:
            return None, (f"the unit {unit!r} of its PhysicalSize{axis} is no known unit of length",)
        edges.append(float(size) * factor)
    z, y, x = edges
    return (z, y, x), ()


def _by_imagej(metadata: Mapping[str, Any], page: Any) -> tuple[Spacing | None, tuple[str, ...]]:
    """ImageJ writes no `spacing` where slices lie one unit apart."""
    unit = metadata.get("unit")
    factor = micrometres(unit)
    y, x = _resolution(page)
    if y is None or x is None:
        return None, ()
    if factor is None:
        strange = unit is not None and str(unit).lower() not in ("", "pixel", "pixels")
        return None, (f"its unit {unit!r} is no known unit of length",) if strange else ()
    return (float(metadata.get("spacing", 1.0)) * factor, factor / y, factor / x), ()


def _by_tags(page: Any) -> tuple[Spacing | None, tuple[str, ...]]:
    unit = page.tags.get("ResolutionUnit")
    # The default of the specification is the inch, but a file that leaves the unit out hardly knows its resolution.
    kind = 1 if unit is None else int(unit.value)
    y, x = _resolution(page)
    if kind not in _MICROMETRES or y is None or x is None:
        return None, ()
    if kind == _PER_INCH and {y, x} <= _SCREENS_AND_PRINTERS:
        return None, (f"its tags state {x:g} dots per inch, as programs do that know no spacing; not taken as one",)
    across, along = _MICROMETRES[kind] / y, _MICROMETRES[kind] / x
    if across != along:
        return None, ("its tags state no distance of slices, and pixels that are not square; its spacing is not known",)
    return (along, across, along), ("its tags state no distance of slices; taken as the edge of a pixel",)


def _resolution(page: Any) -> tuple[float | None, float | None]:
    """Pixels per unit along y and x; None where there is no such tag, or one of zero pixels."""
    tags = [page.tags.get(name) for name in ("YResolution", "XResolution")]
    values = [None if tag is None or 0 in tag.value else tag.value[0] / tag.value[1] for tag in tags]
    return values[0], values[1]
