"""OME-XML of thousands of slices, as each of them may carry it."""

import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from trainers.data.readers import open_slices

PLANES = 20_000
GREY = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)


def xml_of_all() -> str:
    """Of a volume whose slices lie in a file each."""
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{z:05d}.ome.tif">urn:uuid:{z:032x}</UUID>'
        "</TiffData>"
        for z in range(PLANES)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="8" SizeY="8" '
        f'SizeZ="{PLANES}" SizeC="1" SizeT="1" PhysicalSizeX="5" PhysicalSizeY="5" PhysicalSizeZ="7">{planes}</Pixels>'
        "</Image></OME>"
    )


def test_a_slice_costs_far_less_than_the_xml_of_all_slices_that_it_carries(tmp_path: Path) -> None:
    text = xml_of_all()
    for z, one in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"{z:05d}.ome.tif", one, description=text, metadata=None)
    stack = open_slices(tmp_path)
    assert stack.spacing_um == (7.0, 5.0, 5.0)
    whole, one_slice = [], []
    with stack.reading() as read:
        assert np.array_equal(read(0, 4), GREY)
        for z in range(4):
            started = time.process_time()
            ElementTree.fromstring(text)
            between = time.process_time()
            read(z, z + 1)
            whole.append(between - started)
            one_slice.append(time.process_time() - between)
    assert min(one_slice) < 0.5 * min(whole)
