"""Phantom kidneys: synthetic scans whose vessels are known, for tests and for a first run without data.

They imitate HiP-CT scans: a bean-shaped organ with a bright capsule in dark surroundings, cortex and medulla, and
arteries with a dark lumen inside a bright wall, which enter through a hilum. There are also equally dark structures
without a wall that are not arteries (tubules, cysts, cracks), bright spots, noise, shading and rings around the
rotation axis. Each kidney has its own grey scale, as real ones do.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from search_spaces.errors import InputError
from trainers.atomic import whole_folder
from trainers.data import phantom_tree as tree
from trainers.data.geometry import Micrometres
from trainers.data.manifest import MANIFEST_NAME
from trainers.data.phantom_decoys import Decoy
from trainers.data.phantom_organ import Organ, Rings, SmoothNoise
from trainers.data.rle import encode
from trainers.report import SILENT, Report

Floats = NDArray[np.float32]

# Relative grey values: surroundings at 0, tissue around 1. In HiP-CT of human kidneys the lumen lies between
# surroundings and tissue, the wall above all tissue, and cortex and medulla differ slightly.
AIR, SINUS, CORTEX, MEDULLA, CAPSULE = 0.0, 0.55, 1.0, 0.88, 1.45
LUMEN, WALL = 0.25, 1.4

_MADE = "# Phantom kidneys, made with seed"  # how the dataset.toml of phantoms begins


class PhantomConfig(BaseModel, frozen=True, extra="forbid"):
    """The properties of phantom kidneys."""

    kidneys: PositiveInt = 3  # number of kidneys, named phantom_1, phantom_2 and so on
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 128)  # (D, H, W) in voxels, the same for all
    spacing_um: Micrometres = 50.0  # edge of a voxel, in micrometres
    vessel_share: PositiveFloat = Field(default=0.02, le=0.1)  # approximate share of all voxels that are vessel
    smallest_radius: PositiveFloat = 0.7  # vessel radius in voxels at which the branching ends
    decoys: NonNegativeFloat = 1.2  # number of voxels in structures that resemble vessels, per vessel voxel
    edge_width: PositiveFloat = 1.6  # width in voxels of the grey transition across a surface
    noise: NonNegativeFloat = 0.15  # standard deviation of the noise, in units of air-to-cortex contrast
    rings: NonNegativeFloat = 0.03  # standard deviation of the ring artefacts, in the same units


@dataclass(frozen=True)
class Phantom:
    """One phantom kidney: image uint16 and label uint8 (0 or 1), both (D, H, W)."""

    image: NDArray[np.uint16]
    label: NDArray[np.uint8]


def make_phantom(config: PhantomConfig, seed: int) -> Phantom:
    """The phantom kidney for this seed; equal arguments give equal voxels.

    A voxel is labelled if its centre lies inside a lumen. Raises InputError if an edge is too short for an organ.
    """
    if min(config.shape) < 16:
        raise InputError(f"phantom shape {config.shape} is too small; every edge needs at least 16 voxels")
    organ_rng, tree_rng, decoy_rng, grey_rng = (np.random.default_rng([seed, part]) for part in range(4))
    organ = Organ.random(config.shape, organ_rng)
    lumen, wall = _draw_arteries(config, organ, tree_rng)
    decoys, decoy_grey = _draw_decoys(config, organ, (lumen, wall), decoy_rng)
    image = _paint(config, organ, (lumen, wall, decoys, decoy_grey), grey_rng)
    return Phantom(image, (lumen < 0).astype(np.uint8))


def write_phantoms(root: Path, config: PhantomConfig, seed: int, report: Report = SILENT) -> None:
    """Write `config.kidneys` phantoms under `root` in the Kaggle layout, with dataset.toml and train_rles.csv.

    The folder appears only once it is complete. Raises InputError if `root` already contains something.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is not empty; name a new folder for the phantoms, or remove it first")
    names = [f"phantom_{number}" for number in range(1, config.kidneys + 1)]
    total = config.kidneys * config.shape[0]
    rows = ["id,rle"]
    with whole_folder(root) as part:
        for number, name in enumerate(names):
            phantom = make_phantom(config, phantom_seed(seed, number))
            (part / "train" / name / "images").mkdir(parents=True)
            (part / "train" / name / "labels").mkdir()
            for z in range(config.shape[0]):
                tifffile.imwrite(part / "train" / name / "images" / f"{z:04d}.tif", phantom.image[z])
                tifffile.imwrite(part / "train" / name / "labels" / f"{z:04d}.tif", phantom.label[z] * np.uint8(255))
                rows.append(f"{name}_{z:04d},{encode(phantom.label[z])}")
                report.progress("making phantom kidneys", number * config.shape[0] + z + 1, total)
        (part / "train_rles.csv").write_text("\n".join(rows) + "\n")
        (part / MANIFEST_NAME).write_text(_manifest(names, config, seed))


def are_phantoms(root: Path) -> bool:
    """Whether a folder was written by `write_phantoms`."""
    try:
        return (root / MANIFEST_NAME).read_text(encoding="utf-8").startswith(_MADE)
    except (OSError, UnicodeDecodeError):
        return False


def phantom_seed(seed: int, number: int) -> int:
    """The seed for kidney `number` (from 0) of a set; unlike with seed + number, no two sets share a kidney."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _manifest(names: list[str], config: PhantomConfig, seed: int) -> str:
    lines = [f"{_MADE} {seed} from {config.model_dump_json()}"]
    for name in names:
        lines += ["", f"[volumes.{name}]", f'kidney = "{name}"', f"voxel_spacing_um = {config.spacing_um}"]
        lines += ["annotated = 1.0"]
    return "\n".join(lines) + "\n"


def _draw_arteries(config: PhantomConfig, organ: Organ, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Signed distance from the lumen's surface in voxels, and the thickness of the wall; (D, H, W) each."""
    distance = np.full(config.shape, 1e3, np.float32)
    wall = np.zeros(config.shape, np.float32)
    trunks = 3
    voxels = config.vessel_share * float(np.prod(config.shape)) / trunks
    radius = tree.trunk_radius(voxels, config.smallest_radius)
    for number in range(trunks):
        root, heading = organ.entrance(number, trunks, rng)
        grown = tree.grow_tree(
            root, heading, radius * rng.uniform(0.9, 1.1), config.smallest_radius, organ.depth_at, organ.inwards_at, rng
        )
        tree.draw_segments(distance, grown, reach=1.5, wall=wall)
    return distance, wall


def _draw_decoys(
    config: PhantomConfig, organ: Organ, arteries: tuple[Floats, Floats], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Signed distance from the surface of the decoys, and their grey value; (D, H, W) each.

    They are drawn until they fill `config.decoys` times as many voxels as the arteries; none touches an artery's wall.
    """
    lumen, wall = arteries
    distance = np.full(config.shape, 1e3, np.float32)
    grey = np.zeros(config.shape, np.float32)
    wanted = config.decoys * float((lumen < 0).sum())
    drawn = 0.0
    while drawn < wanted:
        decoy = Decoy.random(organ.random_inside(rng), config.smallest_radius, min(config.shape), rng)
        drawn += decoy.draw(distance, grey)
    distance[lumen < wall + 1.5] = 1e3
    return distance, grey


def _paint(
    config: PhantomConfig, organ: Organ, drawn: tuple[Floats, Floats, Floats, Floats], rng: np.random.Generator
) -> NDArray[np.uint16]:
    """The image, computed slice by slice, without further arrays of the volume's size."""
    lumen, wall, decoys, decoy_grey = drawn
    # Ranges of four kidneys, 10th to 99.8th percentile: from 19000..22000 to 30000..45000.
    darkest = rng.uniform(18_000, 30_000)
    contrast = rng.uniform(2_500, 10_000)
    layers = SmoothNoise(config.shape, 24.0, rng)
    shading = SmoothNoise(config.shape, 0.4 * max(config.shape), rng)
    texture = SmoothNoise(config.shape, 3.0, rng)
    clumps = SmoothNoise(config.shape, 9.0, rng)
    rings = Rings(config.shape, rng)
    width = config.edge_width
    image = np.empty(config.shape, np.uint16)
    for z in range(config.shape[0]):
        depth, sinus = organ.slice(z)
        medulla = _share(depth - organ.cortex * (1.0 + 0.35 * layers.slice(z)), 3.0)
        tissue = CORTEX + (MEDULLA - CORTEX) * medulla + 0.03 * texture.slice(z) + 0.03 * clumps.slice(z)
        tissue += (SINUS - tissue) * sinus
        tissue += (CAPSULE - tissue) * np.exp(-0.5 * ((depth - 0.8) / 0.7) ** 2)
        tissue += (decoy_grey[z] - tissue) * _share(-decoys[z], width) * _share(depth - 2.0)
        outside = AIR + 0.06 * clumps.slice(z)
        grey = outside + (tissue - outside) * _share(depth)
        grey += (WALL - grey) * _share(wall[z] - lumen[z], width)
        grey += (LUMEN - grey) * _share(-lumen[z], width)
        grey *= 1.0 + 0.06 * shading.slice(z)
        grey += config.rings * rings.slice(z) + config.noise * rng.standard_normal(grey.shape, np.float32)
        image[z] = np.clip(np.rint(darkest + contrast * grey), 0, 65_535).astype(np.uint16)
    return image


def _share(distance: Floats, width: float = 1.0) -> Floats:
    """The share of a voxel that lies on the positive side of a surface `distance` voxels away."""
    return np.asarray(np.clip(distance / np.float32(width) + np.float32(0.5), 0.0, 1.0), np.float32)
