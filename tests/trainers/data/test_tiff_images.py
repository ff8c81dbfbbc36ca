"""Images of TIFF files: what names their axes and states their pages is believed, or said to be wrong."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from search_spaces.errors import InputError
from trainers.data.axes import Pick
from trainers.data.masks import read_mask
from trainers.data.readers import open_slices

GREY = np.random.default_rng(0).integers(0, 60_000, (6, 16, 20)).astype(np.uint16)
OTHER = np.uint16(60_000) - GREY
SLICES = {"names": ("z", "y", "x")}


def read(path: Path, **pick: object) -> np.ndarray:
    stack = open_slices(path, Pick(**pick))
    with stack.reading() as block:
        return np.concatenate([block(z, z + 1).copy() for z in range(stack.shape[0])])


def paged(path: Path, description: str | None = None, voxels: np.ndarray = GREY, **options: object) -> Path:
    """One page after the other, of which the first is described."""
    with tifffile.TiffWriter(path, ome=False) as file:
        for z, one in enumerate(voxels):
            file.write(one, metadata=None, description=None if z else description, **options)
    return path


def in_one_run(path: Path, description: str, planes: int = 6, **options: object) -> Path:
    """One page, and the voxels of the others behind it, as ImageJ writes more than 4 GB."""
    tifffile.imwrite(path, GREY[0], metadata=None, description=description, **options)
    with tifffile.TiffFile(path) as tif:
        order = tif.byteorder
    with path.open("ab") as file:
        file.write(GREY[1:planes].astype(f"{order}u2").tobytes())
    return path


def cut(path: Path, pages: int) -> Path:
    """A copy that ends after some of the pages."""
    voxels = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        last = tif.pages[pages - 1]
        end = last.offset + 2 + 12 * len(last.tags)
    voxels[end : end + 4] = bytes(4)
    path.write_bytes(voxels)
    return path


def one_by_one(path: Path, names: bool = False, **options: object) -> Path:
    with tifffile.TiffWriter(path) as file:
        for z, one in enumerate(GREY):
            file.write(one, metadata={"name": f"part {z}"} if names else {}, **options)
    return path


def appended(path: Path) -> Path:
    for one in GREY:
        tifffile.imwrite(path, one, append=True)
    return path


@pytest.mark.parametrize(
    "write", [appended, one_by_one, lambda path: one_by_one(path, compression="zlib")], ids=["append", "loop", "zlib"]
)
def test_pages_that_were_written_one_by_one_are_slices(tmp_path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "k.tif")
    assert np.array_equal(read(path), GREY)
    assert open_slices(path).notes == ("it holds 6 images of one page without names; read as slices",)


@pytest.mark.parametrize("kind", ["names", "ome"])
def test_pages_with_names_of_their_own_are_slices_only_if_a_person_says_so(tmp_path, kind: str) -> None:
    if kind == "ome":
        with tifffile.TiffWriter(tmp_path / "k.tif", ome=True) as file:
            for one in GREY:
                file.write(one)
    else:
        one_by_one(tmp_path / "k.tif", names=True)
    with pytest.raises(InputError, match=r'holds 6 images .*position = 0 of .*, or axes = "ZYX" if they are slices'):
        open_slices(tmp_path / "k.tif")
    assert np.array_equal(read(tmp_path / "k.tif", **SLICES), GREY)
    assert np.array_equal(read(tmp_path / "k.tif", entries={"position": 2}), GREY[2:3])


def shaped(path: Path, axes: str, voxels: np.ndarray = GREY, **options: object) -> Path:
    tifffile.imwrite(path, voxels, photometric="minisblack", metadata={"axes": axes}, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_the_names_that_tifffile_writes_count(tmp_path, options: dict) -> None:
    assert np.array_equal(read(shaped(tmp_path / "a.tif", "ZXY", **options)), GREY.transpose(0, 2, 1))
    assert np.array_equal(read(shaped(tmp_path / "b.tif", "QYX", **options)), GREY)
    for axes, name in (("TYX", "time"), ("CYX", "channel")):
        with pytest.raises(InputError, match=f"has axes {name}, y, x of 6 x 16 x 20"):
            open_slices(shaped(tmp_path / "c.tif", axes, **options))
    both = shaped(tmp_path / "d.tif", "ZCYX", np.stack([GREY, OTHER], 1), **options)
    assert np.array_equal(read(both, entries={"channel": 1}), OTHER)


def test_axes_that_cut_the_pages_are_read_where_the_voxels_are_one_run(tmp_path) -> None:
    assert np.array_equal(read(shaped(tmp_path / "a.tif", "YXZ")), GREY.transpose(2, 0, 1))
    with pytest.raises(InputError, match="z lies within each of its pages"):
        open_slices(shaped(tmp_path / "b.tif", "YXZ", compression="zlib"))


def test_what_is_stated_of_rows_and_columns_is_not_taken_for_y_and_x(tmp_path) -> None:
    cell = {"resolution": (1 / 5, 1 / 4), "metadata": {"axes": "ZXY", "unit": "um", "spacing": 3.0}}
    tifffile.imwrite(tmp_path / "k.tif", GREY, **cell)
    stack = open_slices(tmp_path / "k.tif")
    assert (stack.spacing_um, stack.geometry.directions) == (None, None)
    assert stack.notes == ("its spacing is that of pages of other axes than y and x, and not taken",)


def test_a_slice_whose_axes_are_named_the_other_way_is_refused(tmp_path) -> None:
    for z, one in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"{z:04d}.tif", one, metadata={"axes": "XY" if z == 3 else "YX"})
    with pytest.raises(InputError, match=r"0003\.tif: its axes are named XY"):
        read(tmp_path)


def test_pages_that_micro_manager_describes_elsewhere_are_slices_only_if_a_person_says_so(tmp_path) -> None:
    path = paged(tmp_path / "k.tif", extratags=[(51123, "s", 0, '{"Axes": {"channel": 0, "z": 0}}', True)])
    with pytest.raises(InputError, match=r'files of Micro-Manager beside it, .*or say axes = "ZYX"'):
        open_slices(path)
    assert np.array_equal(read(path, **SLICES), GREY)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 4}, {"tile": (16, 16)}])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_pages_may_be_cut_into_strips_and_tiles_of_other_sizes(tmp_path, layout: dict, options: dict) -> None:
    for place in (1, 3, 5):  # tifffile compares some pages with the first
        with tifffile.TiffWriter(tmp_path / "k.tif") as file:
            for z, one in enumerate(GREY):
                file.write(one, metadata=None, **(layout if z == place else {"rowsperstrip": 16}), **options)
        assert np.array_equal(read(tmp_path / "k.tif"), GREY)


def test_thumbnails_are_left_out_and_it_is_said(tmp_path) -> None:
    with tifffile.TiffWriter(tmp_path / "k.tif") as file:
        for one in GREY:
            file.write(one, metadata=None)
        file.write(GREY[0, ::2, ::2], metadata=None, subfiletype=1)
    assert np.array_equal(read(tmp_path / "k.tif"), GREY)
    assert open_slices(tmp_path / "k.tif").notes[0].startswith("1 of its pages are thumbnails")


def stated(images: int) -> str:
    return f"ImageJ=1.53t\nimages={images}\nslices={images}\nunit=micron\nspacing=2.0\n"


@pytest.mark.parametrize("images", [20, 4])
def test_an_imagej_file_with_more_or_fewer_pages_than_stated_is_refused_until_a_person_decides(
    tmp_path, images: int
) -> None:
    path = paged(tmp_path / "k.tif", stated(images))
    with pytest.raises(InputError, match=rf'states {images} slices, but the file has 6 pages, or say axes = "ZYX"'):
        open_slices(path)
    assert np.array_equal(read(path, **SLICES), GREY)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("description", [stated(6), "ImageJ=1.33u\nimages=6\n"])
def test_a_large_imagej_stack_is_one_page_and_a_run_of_voxels(tmp_path, order: str, description: str) -> None:
    assert np.array_equal(read(in_one_run(tmp_path / "k.tif", description, byteorder=order)), GREY)


def test_a_large_imagej_stack_that_is_cut_short_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"states 6 slices, but the file has 1 page$"):
        open_slices(in_one_run(tmp_path / "k.tif", stated(6), planes=5))


def test_a_slice_may_keep_the_description_of_its_stack_but_not_hold_it(tmp_path) -> None:
    for z, one in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"{z:04d}.tif", one, metadata=None, description=stated(6), resolution=(0.2, 0.2))
    assert np.array_equal(read(tmp_path), GREY)
    assert open_slices(tmp_path).spacing_um == (2.0, 5.0, 5.0)
    in_one_run(tmp_path / "0000.tif", stated(6))
    with pytest.raises(InputError, match=r"0000\.tif: holds 6 pages; a slice file holds one"):
        open_slices(tmp_path)


OPTIONS = {"shaped": {}, "deflate": {"compression": "zlib"}, "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}}}


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_copy_that_lost_its_last_pages_is_refused(tmp_path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "k.tif", GREY, **OPTIONS[kind])
    with pytest.raises(InputError, match="states 6 slices, but the file has 4 pages"):
        open_slices(cut(tmp_path / "k.tif", 4))


def pixels(file: str, edge: float, planes: int = 6, count: str = "1") -> str:
    """An image of OME-XML: where its planes lie, and its spacing."""
    uuid = f'<UUID FileName="{file}">urn:uuid:{file}</UUID>'
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="{z}" PlaneCount="{count}">{uuid}</TiffData>' for z in range(min(planes, 6))
    )
    sizes = " ".join(f'PhysicalSize{axis}="{edge}"' for axis in "ZYX")
    return (
        f'<Image ID="Image:{file}" Name="{file}"><Pixels ID="Pixels:{file}" DimensionOrder="XYZCT" Type="uint16" '
        f'SizeX="20" SizeY="16" SizeZ="{planes}" SizeC="1" SizeT="1" {sizes}>{data}</Pixels></Image>'
    )


def ome(path: Path, *images: str, uuid: str | None = "", voxels: np.ndarray = GREY) -> Path:
    said = "" if uuid is None else f' UUID="urn:uuid:{uuid or path.name}"'
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return paged(path, f'<?xml version="1.0"?><OME xmlns="{schema}"{said}>{"".join(images)}</OME>', voxels)


def test_each_image_of_an_ome_file_has_its_own_spacing(tmp_path) -> None:
    with tifffile.TiffWriter(tmp_path / "k.tif", ome=True) as file:
        for voxels, edge in ((GREY, 5.0), (OTHER, 2.0)):
            sizes = {f"PhysicalSize{axis}": edge for axis in "ZYX"}
            file.write(voxels, metadata={"axes": "ZYX", **sizes})
    for place, voxels, edge in ((0, GREY, 5.0), (1, OTHER, 2.0)):
        assert np.array_equal(read(tmp_path / "k.tif", entries={"position": place}), voxels)
        assert open_slices(tmp_path / "k.tif", Pick({"position": place})).spacing_um == (edge,) * 3


def test_images_of_different_shapes_are_read_once_one_is_named(tmp_path) -> None:
    with tifffile.TiffWriter(tmp_path / "k.tif", ome=True) as file:
        file.write(GREY, metadata={"axes": "ZYX"})
        file.write(OTHER[:, :8], metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match=r"holds 2 images \(6 x 16 x 20, 6 x 8 x 20\)"):
        open_slices(tmp_path / "k.tif")
    assert np.array_equal(read(tmp_path / "k.tif", entries={"position": 1}), OTHER[:, :8])


@pytest.mark.parametrize("image", [pixels("k.tif", 5.0, 200_000_000), pixels("k.tif", 5.0, count="200000000")])
def test_planes_that_ome_xml_claims_are_counted_before_anything_is_made_of_them(tmp_path, image: str) -> None:
    path = ome(tmp_path / "k.tif", image)
    with pytest.raises(InputError, match=r"its OME-XML states 200000000 planes, but the file has 6 pages"):
        open_slices(path)
    assert np.array_equal(read(path, **SLICES), GREY)


def test_entries_of_an_inner_axis_are_counted_before_anything_is_made_of_them(tmp_path) -> None:
    inner = '<ModuloAlongZ Type="angle" Start="0" End="1e12" Step="1"/>'
    notes = f'<StructuredAnnotations><A ID="A" Namespace="/modulo"><V><M>{inner}</M></V></A></StructuredAnnotations>'
    with pytest.raises(InputError, match="states more entries of ModuloAlongZ than the file has pages"):
        open_slices(ome(tmp_path / "k.tif", notes, pixels("k.tif", 5.0)))


def test_of_an_ome_dataset_of_several_files_each_is_read_as_its_own_image(tmp_path) -> None:
    images = pixels("a.tif", 5.0), pixels("b.tif", 2.0)
    for name, voxels, edge in (("a.tif", GREY, 5.0), ("b.tif", OTHER, 2.0)):
        path = ome(tmp_path / name, *images, voxels=voxels)
        assert np.array_equal(read(path), voxels)
        assert open_slices(path).spacing_um == (edge,) * 3


@pytest.mark.parametrize("kept", [True, False])
def test_an_ome_file_that_was_renamed_is_read(tmp_path, kept: bool) -> None:
    path = ome(tmp_path / "k.tif", pixels("before.tif", 5.0), uuid="before.tif" if kept else None)
    assert np.array_equal(read(path), GREY)


ELSEWHERE = {
    "some planes": (
        pixels("k.tif", 5.0).replace('FileName="k.tif">urn:uuid:k.tif', 'FileName="l.tif">urn:uuid:l.tif', 2),
        "some of the pages of its image lie in other files",
    ),
    "all planes": (pixels("l.tif", 5.0), "describes no image in this file"),
    "metadata": (
        '<BinaryOnly MetadataFile="all.ome.xml" UUID="urn:uuid:all"/>',
        r"its axes are described in another file \(all\.ome\.xml\)",
    ),
    "another image": (
        pixels("k.tif", 5.0) + pixels("k.tif", 5.0).replace('SizeX="20"', 'SizeX="10"'),
        "describes other images than its pages hold",
    ),
    "other pages": (pixels("k.tif", 5.0).replace('SizeX="20"', 'SizeX="10"'), "describes other pages than there are"),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_an_ome_file_that_is_a_part_is_refused_until_its_axes_are_told(tmp_path, kind: str) -> None:
    image, says = ELSEWHERE[kind]
    path = ome(tmp_path / "k.tif", image)
    with pytest.raises(InputError, match=rf'k\.tif: .*{says}.*, or say axes = "ZYX" in dataset\.toml to read its 6'):
        open_slices(path)
    assert np.array_equal(read(path, **SLICES), GREY)


def test_pages_that_ome_xml_does_not_describe_are_left_out_and_it_is_said(tmp_path) -> None:
    path = ome(tmp_path / "k.tif", pixels("k.tif", 5.0, planes=4))
    assert np.array_equal(read(path), GREY[:4])
    assert open_slices(path).notes == ("its OME-XML describes 4 of its 6 pages; the others are not read",)


def test_a_page_that_does_not_say_what_is_black_is_read_as_stored(tmp_path) -> None:
    path = paged(tmp_path / "k.tif", voxels=GREY[:1])
    with tifffile.TiffFile(path) as tif:
        place = tif.pages.first.tags["PhotometricInterpretation"].offset
    stored = bytearray(path.read_bytes())
    stored[place : place + 2] = (263).to_bytes(2, "little")  # another tag
    path.write_bytes(stored)
    assert np.array_equal(read(path), GREY[:1])


def test_inks_are_not_grey_values(tmp_path) -> None:
    path = paged(tmp_path / "k.tif", voxels=np.stack([GREY] * 4, -1), photometric="separated")
    with pytest.raises(InputError, match="colours of the kind SEPARATED, not grey values"):
        open_slices(path)


FALLING = np.stack([np.arange(255, -1, -1)] * 3)
TABLES = {
    "palette": ({"photometric": "palette", "colormap": FALLING.astype(np.uint16) * 257}, "a palette TIFF"),
    "map": ({"extratags": [(320, "H", 768, (FALLING * 257).ravel().tolist(), True)]}, "a colour table in it shows low"),
    "imagej": (
        {"imagej": True, "metadata": {"axes": "ZYX", "LUTs": [FALLING.astype(np.uint8)]}},
        "a colour table in it shows low values bright",
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_mask_that_is_shown_by_an_inverting_table_is_refused_as_a_scan_is(tmp_path, kind: str) -> None:
    options, says = TABLES[kind]
    inside = np.where(GREY > 30_000, 0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", inside, **{"photometric": None, **options})
    for reader in (open_slices, read_mask):
        with pytest.raises(InputError, match=says):
            reader(tmp_path / "m.tif")


def test_described_pages_that_are_cut_in_different_ways_are_slices_only_if_a_person_says_so(tmp_path) -> None:
    with tifffile.TiffWriter(tmp_path / "k.tif") as file:
        for z, one in enumerate(GREY):
            file.write(one, metadata=None, description=None if z else stated(6), rowsperstrip=4 if z == 3 else 16)
    with pytest.raises(InputError, match=r'cut into strips or tiles in different ways, or say axes = "ZYX"'):
        open_slices(tmp_path / "k.tif")
    assert np.array_equal(read(tmp_path / "k.tif", **SLICES), GREY)


@pytest.mark.parametrize("count", [3, 4])
def test_slices_that_tifffile_took_for_colours_are_slices_once_a_person_says_so(tmp_path, count: int) -> None:
    stack = GREY[:count].astype(np.uint8)
    with warnings.catch_warnings(action="ignore"):  # tifffile knows that this is a mistake
        tifffile.imwrite(tmp_path / "k.tif", stack)
    with pytest.raises(InputError, match=rf'its {count} planes are colours by its tag, .*say axes = "ZYX"'):
        open_slices(tmp_path / "k.tif")
    with open_slices(tmp_path / "k.tif", Pick(names=("z", "y", "x"))).reading() as read:
        assert np.array_equal(read(0, count), stack)
    with open_slices(tmp_path / "k.tif", Pick({"sample": 1})).reading() as read:
        assert np.array_equal(read(0, 1)[0], stack[1])


def ome_slices(folder: Path, places: list[tuple[int, int]]) -> Path:
    """A file for each (channel, z) of an OME dataset, all of which carry its OME-XML."""
    folder.mkdir()
    planes = "".join(
        f'<TiffData FirstC="{channel}" FirstZ="{z}" FirstT="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="s_{number:04d}.ome.tif">urn:uuid:{number}</UUID></TiffData>'
        for number, (channel, z) in enumerate(places)
    )
    channels, depth = (max(place[axis] for place in places) + 1 for axis in (0, 1))
    for number in range(len(places)):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{number}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="20" SizeY="16" SizeZ="{depth}" SizeC="{channels}" SizeT="1">{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / f"s_{number:04d}.ome.tif", GREY[number], description=xml, metadata=None)
    return folder


def test_slices_of_an_ome_dataset_lie_as_its_description_says(tmp_path) -> None:
    path = ome_slices(tmp_path / "rising", [(0, z) for z in range(5)])
    with open_slices(path).reading() as read:
        assert np.array_equal(read(0, 5), GREY[:5])
    for name, places in (("falling", [(0, 4 - z) for z in range(5)]), ("channels", [(c, 0) for c in range(5)])):
        with pytest.raises(InputError, match=r"s_0001\.ome\.tif: by its OME-XML, .* not slices in the order of their"):
            open_slices(ome_slices(tmp_path / name, places))


def test_a_plane_for_which_ome_names_no_page_is_named(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "k.ome.tif", GREY, ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "k.ome.tif") as tif:
        text = tif.ome_metadata
    named = "".join(f'<TiffData IFD="{z}" FirstZ="{z}" PlaneCount="1"/>' for z in range(6) if z != 4)
    text = re.sub(r"<TiffData.*?(/>|</TiffData>)", named, text, count=1, flags=re.DOTALL)
    path = paged(tmp_path / "k.ome.tif", text, photometric="minisblack")
    told = 'names no page for plane 4 of 6, counted from 0; write it again as a whole, or say axes = "ZYX"'
    with pytest.raises(InputError, match=told):
        open_slices(path)
    assert np.array_equal(read(path, **SLICES), GREY)
