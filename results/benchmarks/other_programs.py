"""Files of other programs: what is read from them, voxel by voxel, against a reader that shares no code with ours.

    pip install SimpleITK tensorstore ngff-zarr ome-types
    python results/benchmarks/other_programs.py    # a Markdown table; exit code 1 if a voxel or a spacing differs

Writers are tifffile, Pillow, nibabel, SimpleITK, zarr, ngff-zarr, and ome-types for what OME-TIFF says. Readers beside
ours are SimpleITK, Pillow, nibabel and tensorstore, whichever did not write the file, and ome-types for spacings.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ngff_zarr
import nibabel
import numpy as np
import ome_types
import SimpleITK
import tensorstore
import tifffile
import zarr
from numpy.typing import NDArray
from ome_types.model import OME, Image, Pixels, TiffData
from PIL import Image as Picture

from trainers.data.readers import open_slices

SHAPE = (7, 40, 30)
Array = NDArray[Any]


@dataclass(frozen=True)
class File:
    """A file, how another program reads it, and the spacing (z, y, x) that this one reads, in micrometres."""

    writer: str
    what: str
    path: Path
    reader: str
    voxels: Callable[[], Array]
    spacing_um: tuple[float, float, float] | None = None


def grey(dtype: Any, seed: int = 0) -> Array:
    """Random values over the whole range of a type."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, SHAPE).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, SHAPE, dtype, endpoint=True)


def by_sitk(path: Path) -> Array:
    """(D, H, W) as SimpleITK reads it."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def by_pillow(path: Path) -> Array:
    """(D, H, W) as Pillow reads it."""
    with Picture.open(path) as picture:
        pages = []
        for page in range(picture.n_frames):
            picture.seek(page)
            pages.append(np.asarray(picture))
    return np.stack(pages)


def by_tensorstore(path: Path, driver: str) -> Array:
    """(D, H, W) as tensorstore reads it."""
    store = {"driver": driver, "kvstore": {"driver": "file", "path": str(path)}}
    return np.asarray(tensorstore.open(store).result().read().result())


def by_nibabel(path: Path) -> Array:
    """(D, H, W) as nibabel reads it."""
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def of_tifffile(root: Path) -> Iterator[File]:
    """Types, compressions, byte orders and layouts."""
    plain: dict[str, dict[str, Any]] = {
        "strips": {}, "tiles": {"tile": (16, 16)}, "LZW": {"compression": "lzw"}, "Deflate": {"compression": "zlib"},
        "LZW with differences": {"compression": "lzw", "predictor": True}, "PackBits": {"compression": "packbits"},
        "BigTIFF": {"bigtiff": True}, "big-endian": {"byteorder": ">"}, "rows of 3": {"rowsperstrip": 3},
    }  # fmt: skip
    for dtype in ("uint8", "uint16", "float32"):
        for what, how in plain.items():
            path = root / f"{dtype}-{what}.tif"
            tifffile.imwrite(path, grey(dtype), photometric="minisblack", metadata=None, **how)
            # ITK reads no tiles of several pages.
            reader, read = ("Pillow", by_pillow) if what == "tiles" else ("SimpleITK", by_sitk)
            yield File("tifffile", f"{dtype}, {what}", path, reader, lambda path=path, read=read: read(path))
    for dtype in ("int8", "int16", "int32", "uint32"):
        path = root / f"{dtype}.tif"
        tifffile.imwrite(path, grey(dtype), photometric="minisblack", metadata=None)
        yield File("tifffile", dtype, path, "SimpleITK", lambda path=path: by_sitk(path))


def of_pillow(root: Path) -> Iterator[File]:
    """Pages of grey, packed and float values."""
    for mode, dtype in (("L", "uint8"), ("I;16", "uint16"), ("F", "float32"), ("1", "uint8")):
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            pages = [
                Picture.fromarray(page).convert(mode) if mode == "1" else Picture.fromarray(page)
                for page in grey(dtype)
            ]
            path = root / f"{mode[0]}{dtype}-{compression}.tif"
            pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
            yield File("Pillow", f"{mode}, {compression}", path, "tifffile", lambda path=path: tifffile.imread(path))


def of_nifti(root: Path) -> Iterator[File]:
    """Types, packing, units, orientations and scaled values by nibabel; and NIfTI of SimpleITK."""
    units = {"mm": 1000.0, "micron": 1.0, "meter": 1e6}
    for dtype in ("uint8", "int16", "uint16", "float32", "float64"):
        for suffix in (".nii", ".nii.gz"):
            for unit, um in units.items():
                image = nibabel.Nifti1Image(grey(dtype).transpose(2, 1, 0), np.diag([0.05, 0.06, 0.07, 1.0]))
                image.header.set_xyzt_units(unit)
                path = root / f"{dtype}-{unit}{suffix}"
                nibabel.save(image, path)
                found = (0.07 * um, 0.06 * um, 0.05 * um)
                yield File(
                    "nibabel", f"{dtype} {suffix} {unit}", path, "SimpleITK", lambda path=path: by_sitk(path), found
                )
    scaled = nibabel.Nifti1Image(grey("int16").transpose(2, 1, 0), np.diag([0.05, 0.05, 0.05, 1.0]))
    scaled.header.set_slope_inter(0.5, 3)
    nibabel.save(scaled, root / "scaled.nii")
    yield File("nibabel", "scaled values", root / "scaled.nii", "SimpleITK", lambda: by_sitk(root / "scaled.nii"))
    for dtype in ("uint8", "uint16", "float32"):
        image = SimpleITK.GetImageFromArray(grey(dtype))
        image.SetSpacing((0.05, 0.06, 0.07))
        path = root / f"itk-{dtype}.nii.gz"
        SimpleITK.WriteImage(image, str(path))
        yield File(
            "SimpleITK", f"{dtype} NIfTI", path, "nibabel", lambda path=path: by_nibabel(path), (70.0, 60.0, 50.0)
        )
        path = root / f"itk-{dtype}.tif"
        SimpleITK.WriteImage(image, str(path))
        yield File("SimpleITK", f"{dtype} TIFF", path, "Pillow", lambda path=path: by_pillow(path))


def of_zarr(root: Path) -> Iterator[File]:
    """Formats, codecs and shards."""
    for form, driver in ((2, "zarr"), (3, "zarr3")):
        for dtype in ("uint8", "uint16", "int16", "float32"):
            for chunks in ((2, 16, 16), (7, 40, 30), (1, 40, 30)):
                path = root / f"{form}-{dtype}-{chunks[0]}.zarr"
                zarr.create_array(path, shape=SHAPE, dtype=dtype, chunks=chunks, zarr_format=form)[:] = grey(dtype)
                what = f"Zarr {form}, {dtype}, chunks of {chunks}"
                yield File("zarr", what, path, "tensorstore", lambda path=path, d=driver: by_tensorstore(path, d))
    path = root / "shards.zarr"
    zarr.create_array(path, shape=SHAPE, dtype="uint16", chunks=(2, 8, 10), shards=(4, 16, 30))[:] = grey("uint16")
    yield File("zarr", "shards", path, "tensorstore", lambda: by_tensorstore(root / "shards.zarr", "zarr3"))


def of_ngff_zarr(root: Path) -> Iterator[File]:
    """OME-Zarr 0.4 and 0.5 with units, axes in other numbers, and several levels."""
    units = {"micrometer": 1.0, "millimeter": 1000.0, "nanometer": 1e-3, "centimeter": 1e4, "angstrom": 1e-4}
    for version, driver in (("0.4", "zarr"), ("0.5", "zarr3")):
        for unit, um in units.items():
            scale = {"z": 70 / um, "y": 60 / um, "x": 50 / um}
            image = ngff_zarr.to_ngff_image(
                grey("uint16"), dims=("z", "y", "x"), scale=scale, axes_units=dict.fromkeys("zyx", unit)
            )
            path = root / f"{version}-{unit}.ome.zarr"
            levels = ngff_zarr.to_multiscales(image, scale_factors=[2], chunks=16)
            ngff_zarr.to_ngff_zarr(str(path), levels, version=version)
            inside = ngff_zarr.from_ngff_zarr(str(path)).metadata.datasets[0].path
            voxels = lambda path=path / inside, d=driver: by_tensorstore(path, d)  # noqa: E731
            yield File("ngff-zarr", f"OME-Zarr {version}, {unit}", path, "tensorstore", voxels, (70.0, 60.0, 50.0))


def of_ome_types(root: Path) -> Iterator[File]:
    """OME-XML with units, on pages of tifffile."""
    units = {"µm": 1.0, "mm": 1000.0, "nm": 1e-3, "Å": 1e-4, "cm": 1e4}
    for unit, um in units.items():
        sizes = {"physical_size_x": 50 / um, "physical_size_y": 60 / um, "physical_size_z": 70 / um}
        named = {f"{name}_unit": unit for name in sizes}
        depth, height, width = SHAPE
        pixels = Pixels(
            dimension_order="XYZCT", size_x=width, size_y=height, size_z=depth, size_c=1, size_t=1, type="uint16",
            tiff_data_blocks=[TiffData(plane_count=depth)], **sizes, **named,
        )  # fmt: skip
        path = root / f"ome-{um}.ome.tif"
        described = OME(images=[Image(pixels=pixels)]).to_xml().encode()
        tifffile.imwrite(path, grey("uint16"), description=described, metadata=None, photometric="minisblack")
        read = ome_types.from_tiff(path).images[0].pixels
        found = tuple(float(getattr(read, f"physical_size_{axis}")) * um for axis in "zyx")
        yield File("ome-types", f"OME-TIFF, {unit}", path, "SimpleITK", lambda path=path: by_sitk(path), found)


def differs(file: File) -> str | None:
    """What differs, or None."""
    ours = open_slices(file.path)
    theirs = file.voxels()
    with ours.reading() as read:
        voxels = np.concatenate([read(z, z + 1).copy() for z in range(ours.shape[0])])
    if voxels.shape != theirs.shape:
        return f"shape {voxels.shape}, and {theirs.shape} by {file.reader}"
    if not np.array_equal(voxels.astype(np.float64), theirs.astype(np.float64)):
        return f"{int((voxels != theirs).sum())} voxels"
    said = ours.spacing_um
    if file.spacing_um is not None and (said is None or not np.allclose(said, file.spacing_um, rtol=1e-5)):
        return f"spacing {said}, and {file.spacing_um} by {file.reader}"
    return None


def main() -> int:
    """A table of writers, and how many files differ."""
    counts, voxels, defects = Counter[tuple[str, str]](), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as name:
        for make in (of_tifffile, of_pillow, of_nifti, of_zarr, of_ngff_zarr, of_ome_types):
            root = Path(name) / make.__name__
            root.mkdir()
            for file in make(root):
                counts[file.writer, file.reader] += 1
                voxels[file.writer, file.reader] += int(np.prod(SHAPE))
                if (what := differs(file)) is not None:
                    defects += 1
                    print(f"{file.writer}: {file.what}: {what}", file=sys.stderr)
    print("| written by | read by ours and by | files | voxels |\n|---|---|---:|---:|")
    for (writer, reader), count in counts.items():
        print(f"| {writer} | {reader} | {count} | {voxels[writer, reader]:,} |")
    print(f"\n{sum(counts.values())} files, {defects} differ.")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
