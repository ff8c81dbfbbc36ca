"""OME-XML in a TIFF file: which of its images lie in this file, and what it says of their voxels.

https://www.openmicroscopy.org/Schemas/OME/2016-06
"""

from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from search_spaces.errors import InputError

_ELSEWHERE = "write the volume into one file"


def pixels_of(text: str) -> list[Mapping[str, str]]:
    """The attributes of the element Pixels of each image."""
    root = ElementTree.fromstring(text)
    return [pixels.attrib for image in _named(root, "Image") for pixels in _named(image, "Pixels")]


def first_pixels_of(text: str) -> Mapping[str, str]:
    """The attributes of the element Pixels of the first image; what follows is not read, and may be long in each file.

    Empty if there is none.
    """
    for _, element in ElementTree.iterparse(StringIO(text), ("start",)):
        if _name(element) == "Pixels":
            return dict(element.attrib)
    return {}


def of_this_file(path: Path, text: str, pages: int) -> tuple[str, int]:
    """The XML without images that lie in other files, and the number of planes that it states for this one.

    What it states is held against the pages of the file before anything of that size is made. Raises InputError if an
    image lies in several files, if none lies in this one, and if more planes are stated than there are pages.
    """
    root = ElementTree.fromstring(text)
    for binary_only in _named(root, "BinaryOnly"):
        other = binary_only.get("MetadataFile", "which is not named")
        raise InputError(f"{path}: its axes are described in another file ({other}); {_ELSEWHERE}")
    _bound_modulo(path, root, pages)
    uuids = {uuid.text for uuid in root.iter() if _name(uuid) == "UUID"}
    total = 0
    for image in _named(root, "Image"):
        found = [(pixels, data) for pixels in _named(image, "Pixels") for data in _named(pixels, "TiffData")]
        here = [_is_here(root, uuids, data, path) for _, data in found]
        if any(here) and not all(here):
            raise InputError(f"{path}: some of the pages of its image lie in other files; {_ELSEWHERE}")
        if not any(here):
            root.remove(image)
            continue
        planes = _planes(found[0][0])
        for _, data in found:
            planes = max(planes, int(data.get("PlaneCount", data.get("NumPlanes", 0))))
            for uuid in _named(data, "UUID"):
                data.remove(uuid)
        if planes > pages:
            raise InputError(
                f"{path}: its OME-XML states {planes} planes, but the file has {pages} pages: it is not whole, or the "
                f"others lie in other files; {_ELSEWHERE}"
            )
        total += planes
    if not total:
        raise InputError(f"{path}: its OME-XML describes no image in this file; {_ELSEWHERE}")
    return ElementTree.tostring(root, encoding="unicode"), total


def check_order(text: str, files: Sequence[Path]) -> None:
    """Raise InputError if OME-XML says that files are not the slices of one volume in the order of their names."""
    places = {}
    for data in ElementTree.fromstring(text).iter():
        for uuid in _named(data, "UUID") if _name(data) == "TiffData" else ():
            places[uuid.get("FileName", "").lower()] = [int(data.get(f"First{axis}", 0)) for axis in "TCZ"]
    found = [(file, places[file.name.lower()]) for file in files if file.name.lower() in places]
    for (_, (*before, above)), (file, (*after, below)) in pairwise(found):
        if before != after or above >= below:
            raise InputError(
                f"{file}: by its OME-XML, the files beside it are not slices in the order of their names; {_ELSEWHERE}"
            )


def _is_here(root: ElementTree.Element, uuids: set[str | None], data: ElementTree.Element, path: Path) -> bool:
    """Whether planes lie in this file: no other one is named, by its UUID or its name."""
    only = len(uuids) == 1 and root.get("UUID") is None  # whatever the file was called when it was written
    return all(
        only or uuid.text == root.get("UUID") or uuid.get("FileName", "").lower() == path.name.lower()
        for uuid in _named(data, "UUID")
    )


def _planes(pixels: ElementTree.Element) -> int:
    depth, channels, times = (int(pixels.attrib[f"Size{axis}"]) for axis in "ZCT")
    samples = next((int(channel.get("SamplesPerPixel", 1)) for channel in _named(pixels, "Channel")), 1)
    return depth * times * (channels // max(1, samples))


def _bound_modulo(path: Path, root: ElementTree.Element, pages: int) -> None:
    """Axes inside of axes: as many entries as lie between a start and an end."""
    for along in root.iter():
        if _name(along).startswith("ModuloAlong") and "Start" in along.attrib:
            start, end, step = (float(along.get(name, 1)) for name in ("Start", "End", "Step"))
            if not abs(end - start) <= pages * abs(step):
                raise InputError(f"{path}: its OME-XML states more entries of {_name(along)} than the file has pages")


def _named(parent: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in parent if _name(child) == name]


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
