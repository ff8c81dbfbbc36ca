"""What `fuzz.py` damages: for each reader an intact file, and how it is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import optuna
import tifffile
import torch
import zarr

from nas.config.read import read_config
from nas.config.write import write_config
from nas.search.mend import mend
from nas.search.shown_cells import read_genotype
from nas.study.plan import Pace, Plan, read_plan
from results.bundles.bundle import ARCHITECTURE, WEIGHTS, Bundle, read_bundle
from results.bundles.ensemble import ENSEMBLE, Ensemble, check_members, member_of, read_ensemble, write_ensemble
from results.leaderboard.leaderboard import read_leaderboard
from results.record import read_record
from results.run_folder import RunFolder
from trainers.checkpoint import load_checkpoint, save_checkpoint
from trainers.data.geometry import Geometry
from trainers.data.manifest import read_manifest
from trainers.data.masks import write_mask
from trainers.data.readers import open_slices
from trainers.data.rle import decode, encode, read_rles
from trainers.data.zarr_store import ome_attributes

SHAPE = (4, 24, 20)
Target = tuple[Path, Callable[[], object]]  # the file to damage, and what reads it


def volume() -> np.ndarray:
    """Grey values with some structure."""
    z, y, x = np.indices(SHAPE)
    return (1000 * z + 37 * y + x * x).astype(np.uint16)


def read_all(path: Path) -> object:
    """Every voxel of a stack."""
    slices = open_slices(path)
    with slices.reading() as read:
        return [read(z, z + 1).sum() for z in range(min(slices.shape[0], 8))]


def tiff_folder(root: Path) -> Target:
    """Slices, the first of them damaged."""
    for z, image in enumerate(volume()):
        tifffile.imwrite(root / f"{z:04d}.tif", image, compression="zlib" if z else None)
    return root / "0000.tif", lambda: read_all(root)


def _compressed(root: Path, **how: Any) -> Target:
    tifffile.imwrite(root / "0000.tif", volume()[0], **how)
    return root / "0000.tif", lambda: read_all(root)


def tiff_lzw(root: Path) -> Target:
    """A slice by LZW."""
    return _compressed(root, compression="lzw", rowsperstrip=4)


def tiff_lzw_predictor(root: Path) -> Target:
    """The same with differencing, in tiles."""
    return _compressed(root, compression="lzw", predictor=True, tile=(16, 16))


def tiff_deflate(root: Path) -> Target:
    """A slice by Deflate, in tiles."""
    return _compressed(root, compression="zlib", predictor=True, tile=(16, 16))


def tiff_packbits(root: Path) -> Target:
    """A slice by PackBits."""
    return _compressed(root, compression="packbits", rowsperstrip=4)


def tiff_zstd(root: Path) -> Target:
    """A slice by Zstandard."""
    return _compressed(root, compression="zstd", rowsperstrip=8)


def tiff_jpeg2000(root: Path) -> Target:
    """A slice by JPEG 2000."""
    return _compressed(root, compression="jpeg2000")


def tiff_pages(root: Path) -> Target:
    """One file of many pages."""
    tifffile.imwrite(root / "v.tif", volume(), photometric="minisblack")
    return root / "v.tif", lambda: read_all(root / "v.tif")


def tiff_ome(root: Path) -> Target:
    """The same with axes and spacing by OME."""
    facts = {"axes": "ZYX", "PhysicalSizeX": 50.0, "PhysicalSizeY": 50.0, "PhysicalSizeZ": 50.0}
    tifffile.imwrite(root / "v.ome.tif", volume(), metadata=facts, photometric="minisblack")
    return root / "v.ome.tif", lambda: read_all(root / "v.ome.tif")


def tiff_imagej(root: Path) -> Target:
    """The same by ImageJ."""
    facts = {"axes": "ZYX", "spacing": 50.0, "unit": "um"}
    tifffile.imwrite(root / "v.tif", volume(), imagej=True, resolution=(0.02, 0.02), metadata=facts)
    return root / "v.tif", lambda: read_all(root / "v.tif")


def npy(root: Path) -> Target:
    """NumPy's own format."""
    np.save(root / "v.npy", volume())
    return root / "v.npy", lambda: read_all(root / "v.npy")


def zarr_metadata(root: Path) -> Target:
    """The JSON of a Zarr array."""
    array = zarr.create_array(root / "v.zarr", shape=SHAPE, dtype="uint16", chunks=(2, 12, 20))
    array[:] = volume()
    return root / "v.zarr" / "zarr.json", lambda: read_all(root / "v.zarr")


def zarr_chunk(root: Path) -> Target:
    """The voxels of a Zarr array."""
    zarr_metadata(root)
    chunk = next(path for path in sorted((root / "v.zarr").rglob("*")) if path.is_file() and path.suffix != ".json")
    return chunk, lambda: read_all(root / "v.zarr")


def zarr_2(root: Path) -> Target:
    """The JSON of an array of Zarr 2 with filters."""
    filters = [numcodecs.Delta(dtype="uint16")]
    array = zarr.create_array(
        root / "v.zarr", shape=SHAPE, dtype="uint16", chunks=(2, 12, 20), zarr_format=2, filters=filters,
        compressors=numcodecs.Blosc(),
    )  # fmt: skip
    array[:] = volume()
    return root / "v.zarr" / ".zarray", lambda: read_all(root / "v.zarr")


def zarr_shard(root: Path) -> Target:
    """A shard: chunks and their index in one file."""
    array = zarr.create_array(root / "v.zarr", shape=SHAPE, dtype="uint16", chunks=(2, 12, 10), shards=(4, 24, 20))
    array[:] = volume()
    shard = next(path for path in sorted((root / "v.zarr").rglob("*")) if path.is_file() and path.suffix != ".json")
    return shard, lambda: read_all(root / "v.zarr")


def ome_zarr(root: Path) -> Target:
    """What OME-Zarr says about an image."""
    group = zarr.create_group(root / "v.zarr", attributes={"ome": ome_attributes(Geometry.counted(SHAPE, (50.0,) * 3))})
    group.create_array("0", shape=SHAPE, dtype="uint16", chunks=(2, 12, 20))[:] = volume()
    return root / "v.zarr" / "zarr.json", lambda: read_all(root / "v.zarr")


def _nifti(path: Path) -> Target:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(volume(), np.diag([0.05, 0.05, 0.05, 1.0])), path)
    return path, lambda: read_all(path)


def nifti(root: Path) -> Target:
    """NIfTI."""
    return _nifti(root / "v.nii")


def nifti_packed(root: Path) -> Target:
    """The same by gzip."""
    return _nifti(root / "v.nii.gz")


def manifest(root: Path) -> Target:
    """dataset.toml."""
    text = (
        '[volumes.a]\nkidney = "k"\nvoxel_spacing_um = [50.0, 50, 50.5]\nannotated = 0.9\n[volumes.b]\nkidney = "j"\n'
    )
    (root / "dataset.toml").write_text(text)
    return root / "dataset.toml", lambda: read_manifest(root)


def rles(root: Path) -> Target:
    """The competition's CSV of labels."""
    masks = volume() % 3 == 0
    lines = [f"kidney_1_{z:04d},{encode(mask)},{SHAPE[1]},{SHAPE[2]}" for z, mask in enumerate(masks)]
    (root / "train_rles.csv").write_text("\n".join(["id,rle,height,width", *lines, "kidney_1_0009,1 0,24,20"]) + "\n")

    def read() -> object:
        for rows in read_rles(root / "train_rles.csv").values():
            for row in rows.values():
                decode(row.rle, SHAPE[1], SHAPE[2])
        return None

    return root / "train_rles.csv", read


def config(root: Path) -> Target:
    """A run's configuration."""
    (root / "config.toml").write_text(write_config(read_config("demo")))
    return root / "config.toml", lambda: read_config(root / "config.toml")


def _bundle(root: Path) -> Bundle:
    from results.bundles.architecture import Architecture
    from results.bundles.bundle import write_bundle
    from results.bundles.reading import Reading
    from search_spaces.any_candidate import read_candidate
    from search_spaces.network import build_network
    from trainers.fit import FitConfig
    from trainers.inference.reader import InferenceConfig
    from trainers.metrics.score import ScoreConfig

    candidate = read_candidate({"family": "cells", "genotype": "plain/2", "width": 4, "slices_in": 8})
    network = build_network(candidate, 16)
    provenance = {"study": "s", "trial": 0, "seed": 0, "version": "0", "train_volumes": {"a": "b"}}
    architecture = Architecture(
        name="n",
        candidate=candidate,
        fit=FitConfig(crop=16),
        voxel_spacing_um=((50.0, 50.0, 50.0),),
        grey_scales={"b": (0.0, 1.0)},
        reading=Reading(inference=InferenceConfig(), threshold=0.5, score_config=ScoreConfig()),
        parameters=1,
        provenance={**provenance, "held_out_volumes": {}, "libraries": {}},  # type: ignore[arg-type]
    )
    write_bundle(root / "bundle", architecture, network.state_dict())
    return read_bundle(root / "bundle")


def bundle(root: Path) -> Target:
    """The description of a network."""
    _bundle(root)
    return root / "bundle" / ARCHITECTURE, lambda: read_bundle(root / "bundle")


def weights(root: Path) -> Target:
    """Its weights."""
    _bundle(root)
    return root / "bundle" / WEIGHTS, lambda: read_bundle(root / "bundle")


def genotype(root: Path) -> Target:
    """A genotype's file."""
    from search_spaces.cells.hand_made import hand_made

    (root / "g.json").write_text(hand_made("residual", "cells", 3).model_dump_json(indent=1))
    return root / "g.json", lambda: read_genotype(root / "g.json")


def record(root: Path) -> Target:
    """A trial's record."""
    from results.record import Job, Outcome, Record
    from search_spaces.families.unet import UnetCandidate
    from trainers.fit import FitConfig
    from trainers.inference.reader import InferenceConfig

    candidate = UnetCandidate(encoder="resnet18")
    job = Job(trial=0, name="n", candidate=candidate, fit=FitConfig(), inference=InferenceConfig(), seed=0)
    (root / "r.json").write_text(
        Record(job=job, outcome=Outcome(state="failed", reason="r"), version="0").model_dump_json()
    )
    return root / "r.json", lambda: read_record(root / "r.json")


def leaderboard(root: Path) -> Target:
    """leaderboard.json."""
    from results.leaderboard.ranking import rank
    from trainers.metrics.score import ScoreConfig

    folder = RunFolder(root)
    folder.leaderboard_json.write_text(rank([], "s", "k", ScoreConfig()).model_dump_json(indent=1))
    return folder.leaderboard_json, lambda: read_leaderboard(folder.leaderboard_json)


def plan(root: Path) -> Target:
    """A search's plan."""
    folder = RunFolder(root)
    made = Plan(
        time=900.0, spent=9.0, pace=Pace(step=0.2, part=1.0, whole=3.0), steps=300, rungs=1, reduction=3,
        candidates=12, baselines=3, fresh=4, cells=("cells-16",),
    )  # fmt: skip
    folder.plan.write_text(made.model_dump_json(indent=1))
    return folder.plan, lambda: read_plan(folder)


def ensemble(root: Path) -> Target:
    """The description of an ensemble, and whether its members are those that it names."""
    reading = _bundle(root).architecture.reading
    members = (member_of(root / "top2", root / "bundle", 0), member_of(root / "top2", root / "bundle", 1))
    made = Ensemble(
        name="top2", members=members, reading=reading, study="s", version="0", held_out_volumes={"a": "b"}
    )  # fmt: skip
    write_ensemble(root / "top2", made)
    return root / "top2" / ENSEMBLE, lambda: check_members(root / "top2", read_ensemble(root / "top2"))


def journal(root: Path) -> Target:
    """The study: damage that cannot be mended is named."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = RunFolder(root)
    study = optuna.create_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(folder.journal))))
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, float(number))
    return folder.journal, lambda: mend(folder)


def checkpoint(root: Path) -> Target:
    """A training's checkpoint: a damaged one is skipped."""
    path = save_checkpoint(root / "c", 3, {"a": torch.arange(6.0)}, {"groups": [1, 2]})
    return path / "tensors.safetensors", lambda: load_checkpoint(root / "c")


def mask(root: Path) -> Target:
    """A mask that `nas score` reads."""
    from trainers.data.masks import read_mask

    write_mask(root / "m.tif", volume() % 3 == 0, Geometry.counted(volume().shape, (50.0, 50.0, 50.0)))
    return root / "m.tif", lambda: read_mask(root / "m.tif")


TARGETS = [
    tiff_folder,
    tiff_lzw,
    tiff_lzw_predictor,
    tiff_deflate,
    tiff_packbits,
    tiff_zstd,
    tiff_jpeg2000,
    tiff_pages,
    tiff_ome,
    tiff_imagej,
    npy,
    zarr_metadata,
    zarr_2,
    zarr_chunk,
    zarr_shard,
    ome_zarr,
    nifti,
    nifti_packed,
    manifest,
    rles,
    config,
]
TARGETS += [bundle, weights, ensemble, genotype, record, leaderboard, plan, journal, checkpoint, mask]
