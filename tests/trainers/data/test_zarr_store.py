"""A store from a stranger runs nothing and reads nothing but its own numbers."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from search_spaces.errors import InputError
from trainers.data.axes import Pick
from trainers.data.readers import open_slices

GREY = np.random.default_rng(0).integers(0, 60_000, (4, 9, 13)).astype(np.uint16)


class Writes:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def store_2(path: Path, **changes: object) -> Path:
    """A store of version 2 with a description of its own."""
    described = {
        "zarr_format": 2, "shape": [4, 9, 13], "chunks": [4, 9, 13], "dtype": "<u2", "fill_value": 0, "order": "C",
        "compressor": None, "filters": None,
    }  # fmt: skip
    path.mkdir()
    (path / ".zarray").write_text(json.dumps({**described, **changes}))
    (path / "0.0.0").write_bytes(GREY.tobytes())
    return path


HOSTILE = {
    "pickle": [{"id": "pickle", "protocol": 4}],
    "pickle behind an object codec": [{"id": "json2", "encoding": "utf-8"}, {"id": "pickle", "protocol": 4}],
    "msgpack": [{"id": "msgpack2"}],
    "categorize": [{"id": "categorize", "labels": ["a"], "dtype": "<U1", "astype": "u1"}],
    "unknown": [{"id": "someone.elses"}],
}


@pytest.mark.parametrize("filters", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("dtype", ["|O", "<u2"])
def test_a_codec_that_could_run_something_is_refused_before_a_byte_is_decoded(
    tmp_path, filters: list, dtype: str
) -> None:
    path = store_2(tmp_path / "k.zarr", dtype=dtype, filters=filters)
    (path / "0.0.0").write_bytes(pickle.dumps(Writes(tmp_path / "ran")))
    with pytest.raises(InputError, match=r"k\.zarr: (values of type|the codec)"):
        open_slices(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", ["|O", "<U4", "|S3", "|V8", "<M8[ns]", [["a", "<u2"]], "<c8"])
def test_only_numbers_are_read(tmp_path, dtype: object) -> None:
    with pytest.raises(InputError, match="are not grey values"):
        open_slices(store_2(tmp_path / "k.zarr", dtype=dtype))


def test_a_pickled_fill_value_is_not_unpickled(tmp_path) -> None:
    value = base64.b64encode(pickle.dumps(Writes(tmp_path / "ran"))).decode()
    path = store_2(tmp_path / "k.zarr", dtype="|O", fill_value=value, filters=[{"id": "pickle"}])
    (path / "0.0.0").unlink()
    with pytest.raises(InputError):
        open_slices(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"data_type": "string"},
        {"data_type": {"name": "struct"}},
        {"storage_transformers": [{"name": "x"}]},
    ],
)
def test_version_3_is_held_to_the_same(tmp_path, change: dict) -> None:
    zarr.create_array(str(tmp_path / "k.zarr"), shape=GREY.shape, dtype=GREY.dtype, zarr_format=3)[:] = GREY
    described = json.loads((tmp_path / "k.zarr" / "zarr.json").read_text())
    (tmp_path / "k.zarr" / "zarr.json").write_text(json.dumps({**described, **change}))
    with pytest.raises(InputError, match=r"k\.zarr: (values of type|the codec|has storage transformers)"):
        open_slices(tmp_path / "k.zarr")


def test_a_codec_inside_a_shard_is_looked_at_too(tmp_path) -> None:
    zarr.create_array(str(tmp_path / "k.zarr"), shape=(4, 8, 8), chunks=(2, 4, 4), shards=(4, 8, 8), dtype="u2")
    place = tmp_path / "k.zarr" / "zarr.json"
    described = json.loads(place.read_text())
    described["codecs"][0]["configuration"]["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    place.write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"the codec 'numcodecs\.pickle' is not read"):
        open_slices(tmp_path / "k.zarr")


@pytest.mark.parametrize("inside", ["../outside", "/tmp", "a/../../outside"])
def test_a_level_that_lies_outside_of_its_store_is_refused(tmp_path, inside: str) -> None:
    zarr.create_array(str(tmp_path / "outside"), shape=GREY.shape, dtype="u2", zarr_format=2)[:] = GREY
    group = zarr.open_group(str(tmp_path / "k.zarr"), mode="w", zarr_format=2)
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": inside}]}]
    with pytest.raises(InputError, match=r"k\.zarr: its level 0 lies outside"):
        open_slices(tmp_path / "k.zarr")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["0.0.0", ".zattrs", "c/0"])
def test_a_pipe_in_a_store_is_not_waited_for(tmp_path, name: str) -> None:
    path = store_2(tmp_path / "k.zarr")
    (path / name).unlink(missing_ok=True)
    (path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(path / name)
    with pytest.raises(InputError, match=rf"k\.zarr/{name}: is neither a file nor a folder"):
        open_slices(path)


@pytest.mark.parametrize("where", ["../outside", "/dev/zero", "gone", "."])
def test_a_chunk_that_is_a_link_out_of_its_store_is_refused(tmp_path, where: str) -> None:
    (tmp_path / "outside").write_bytes(GREY.tobytes())
    path = store_2(tmp_path / "k.zarr")
    (path / "0.0.0").unlink()
    (path / "0.0.0").symlink_to(where)
    with pytest.raises(InputError, match=r"k\.zarr/0\.0\.0: (a link that leads out|is neither a file nor a folder)"):
        open_slices(path)


def test_a_description_of_gigabytes_is_not_read(tmp_path) -> None:
    (tmp_path / "s.zarr").mkdir()
    with (tmp_path / "s.zarr" / "zarr.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"zarr\.json: it has 1,099,511,627,776 bytes, and 67,108,864 are read"):
        open_slices(tmp_path / "s.zarr")


def test_a_store_that_is_a_link_and_chunks_that_are_links_inside_of_it_are_read(tmp_path) -> None:
    path = store_2(tmp_path / "elsewhere.zarr")
    (path / ".git").mkdir()
    (path / "0.0.0").rename(path / ".git" / "chunk")
    (path / "0.0.0").symlink_to(".git/chunk")
    (tmp_path / "k.zarr").symlink_to(path)
    with open_slices(tmp_path / "k.zarr").reading() as read:
        assert np.array_equal(read(0, 4), GREY)


@pytest.mark.parametrize("version", [2, 3])
def test_the_only_volume_of_a_group_is_read(tmp_path, version: int) -> None:
    """As xarray writes one: an array, and the places of its voxels along each axis."""
    group = zarr.open_group(str(tmp_path / "k.zarr"), mode="w", zarr_format=version)
    for name, edge in zip("zyx", GREY.shape, strict=True):
        group.create_array(name, shape=(edge,), dtype="f8")[:] = np.arange(edge)
    group.create_array("density", shape=GREY.shape, dtype="u2")[:] = GREY
    with open_slices(tmp_path / "k.zarr").reading() as read:
        assert np.array_equal(read(0, 4), GREY)
    group.create_array("mask", shape=GREY.shape, dtype="u1")
    with pytest.raises(
        InputError, match=r"k\.zarr: a Zarr group of 2 arrays without OME metadata; move the one to read"
    ):
        open_slices(tmp_path / "k.zarr")


@pytest.mark.parametrize("codec", ["zlib", "gzip", "bz2", "lzma", "lz4", "zstd", "blosc"])
def test_the_codecs_of_version_2_are_read(tmp_path, codec: str) -> None:
    array = zarr.create_array(
        str(tmp_path / "k.zarr"), shape=GREY.shape, dtype="u2", zarr_format=2, filters=[numcodecs.Delta("<u2")],
        compressors=numcodecs.get_codec({"id": codec}),
    )  # fmt: skip
    array[:] = GREY
    with open_slices(tmp_path / "k.zarr").reading() as read:
        assert np.array_equal(read(0, 4), GREY)


@pytest.mark.parametrize("codec", [zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec(), zarr.codecs.BloscCodec(), None])
@pytest.mark.parametrize("shards", [None, (4, 8, 8)])
def test_the_codecs_of_version_3_are_read(tmp_path, codec: object, shards: tuple[int, ...] | None) -> None:
    voxels = GREY[:, :8, :8]
    zarr.create_array(
        str(tmp_path / "k.zarr"), shape=voxels.shape, chunks=(2, 4, 4), shards=shards, dtype="u2", compressors=codec
    )[:] = voxels  # fmt: skip
    with open_slices(tmp_path / "k.zarr").reading() as read:
        assert np.array_equal(read(0, 4), voxels)


@pytest.mark.parametrize("how", [{"zarr_format": 2}, {"zarr_format": 3}, {"shards": (4, 8, 8)}])
def test_chunks_that_are_not_stored_are_said(tmp_path, how: dict) -> None:
    """As in a store that was copied in part: of 2 x 4 x 4 chunks, or 2 x 2 x 2 shards, those of the first slices."""
    array = zarr.create_array(
        str(tmp_path / "k.zarr"), shape=(8, 13, 16), chunks=(4, 4, 4), dtype="u2", fill_value=7, **how
    )
    array[:4] = 1
    missing, count = (4, 8) if "shards" in how else (16, 32)
    (note,) = open_slices(tmp_path / "k.zarr").notes
    assert note == f"{missing} of its {count} chunks are not there, so empty or not copied: read as 7"
    array[:] = 1
    assert open_slices(tmp_path / "k.zarr").notes == ()


@pytest.mark.slow
def test_a_chunk_that_unpacks_to_far_more_than_it_is_is_not_unpacked(tmp_path) -> None:
    path = store_2(tmp_path / "k.zarr", compressor={"id": "zlib", "level": 1})
    pack = zlib.compressobj(9)
    (path / "0.0.0").write_bytes(b"".join(pack.compress(bytes(2**20)) for _ in range(2**11)) + pack.flush())
    with pytest.raises(InputError, match=r"0\.0\.0: damaged: [\d,]+ bytes for a chunk of 936"):
        open_slices(path)


def test_chunks_that_do_not_fit_into_memory_are_refused(tmp_path) -> None:
    path = store_2(tmp_path / "k.zarr", shape=[2**20, 2**20, 2**20], chunks=[2**20, 2**20, 2**20])
    with pytest.raises(InputError, match=r"k\.zarr: its chunks of \d+ GiB do not fit into memory"):
        open_slices(path)


def ome_group(path: Path, version: int, levels: dict[str, np.ndarray], images: list[list[tuple[str, float]]]) -> Path:
    """An OME-Zarr group of these arrays; images: the levels of each, as (path, scale)."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    for name, voxels in levels.items():
        group.create_array(name, shape=voxels.shape, dtype=voxels.dtype)[:] = voxels
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    said = [
        {"axes": axes, "datasets": [
            {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [edge] * 3}]}
            for name, edge in datasets]}
        for datasets in images
    ]  # fmt: skip
    group.attrs.update({"multiscales": said} if version == 2 else {"ome": {"version": "0.5", "multiscales": said}})
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_of_several_images_in_one_group_none_is_read_until_one_is_named(tmp_path, version: int) -> None:
    levels = {"raw": GREY, "denoised": GREY[::-1]}
    path = ome_group(tmp_path / "k.zarr", version, levels, [[("raw", 50.0)], [("denoised", 40.0)]])
    with pytest.raises(InputError, match=r"k\.zarr: holds 2 images, and a volume has one position: say position = 0"):
        open_slices(path)
    for position, (voxels, edge) in enumerate(((GREY, 50.0), (GREY[::-1], 40.0))):
        stack = open_slices(path, Pick({"position": position}))
        with stack.reading() as read:
            assert np.array_equal(read(0, len(GREY)), voxels)
        assert stack.spacing_um == (edge, edge, edge)
    with pytest.raises(InputError, match=r"position = 2 of dataset\.toml is not there; it has 2"):
        open_slices(path, Pick({"position": 2}))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", [["0", "1"], ["1", "0"]])
def test_the_finest_level_is_read_wherever_it_is_listed(tmp_path, version: int, order: list[str]) -> None:
    edges = {"0": 50.0, "1": 100.0, "gone": 200.0}
    levels = {"0": GREY, "1": GREY[::2, ::2, ::2]}
    path = ome_group(tmp_path / "k.zarr", version, levels, [[(name, edges[name]) for name in (*order, "gone")]])
    stack = open_slices(path)
    with stack.reading() as read:
        assert np.array_equal(read(0, len(GREY)), GREY)
    assert stack.spacing_um == (50.0, 50.0, 50.0)
    told = "its levels are not listed from fine to coarse: '0' is the finest, and read"
    assert stack.notes == ((told,) if order[0] == "1" else ())


def coordinate_systems(folder: Path, kind: str) -> Path:
    """An image of OME-Zarr 0.6, stored in (x, y, z): its level leads to one of two systems, and on to the other."""
    group = zarr.open_group(str(folder / "k.zarr"), mode="w", zarr_format=3)
    group.create_array("0", shape=GREY.T.shape, dtype=GREY.dtype)[:] = GREY.T
    steps: list[dict[str, object]] = [
        {"type": "scale", "scale": [0.002, 0.003, 0.005]},
        {"type": "translation", "translation": [1, 2, 3]},
    ]
    place = {"input": {"path": "0"}, "output": {"name": "scanner"}}
    other = {"type": "scale", "scale": [9, 9, 9], "input": {"name": "scanner"}, "output": {"name": "body"}}
    systems = {
        "body": [{"name": name, "type": "space", "unit": "meter"} for name in "zyx"],
        "scanner": [{"name": name, "type": "space", "unit": "millimeter"} for name in "xyz"],
    }
    step = {"scale": steps[0], "sequence": {"type": "sequence", "transformations": steps}, "identity": {"type": kind}}
    group.attrs["ome"] = {
        "version": "0.6",
        "multiscales": [
            {
                "coordinateSystems": [{"name": name, "axes": axes} for name, axes in systems.items()],
                "datasets": [{"path": "0", "coordinateTransformations": [{**step[kind], **place}]}],
                "coordinateTransformations": [other],
            }
        ],
    }
    return folder / "k.zarr"


PLACES = {
    "scale": ((5, 3, 2), (0, 0, 0)),
    "sequence": ((5, 3, 2), (3_000, 2_000, 1_000)),
    "identity": (None, None),
}


@pytest.mark.parametrize("kind", PLACES)
def test_the_coordinate_system_of_its_level_says_how_an_image_lies(tmp_path, kind: str) -> None:
    stack = open_slices(coordinate_systems(tmp_path, kind))
    with stack.reading() as read:
        assert np.array_equal(read(0, 4), GREY)
    spacing, origin = PLACES[kind]
    assert stack.spacing_um == (spacing and pytest.approx(spacing))
    assert stack.geometry.origin_um == (origin and pytest.approx(origin))
