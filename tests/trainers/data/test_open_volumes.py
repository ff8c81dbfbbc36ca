"""Opening volumes: when each is converted, and the grey scale that they share."""

from pathlib import Path

import numpy as np
import pytest
from stacks import write_slices

from trainers.data.open_volumes import open_piece, open_volumes
from trainers.data.prepare import prepare
from trainers.data.sources import scan


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two pieces of one kidney at 50 µm, a zoom into it, and another kidney; each a slope of grey values of its own."""
    root, facts = tmp_path / "scans", ""
    pieces = {"dark": ("one", 50), "bright": ("one", 50), "zoom": ("one", 5), "other": ("two", 50)}
    for number, (name, (kidney, spacing)) in enumerate(pieces.items()):
        image = np.arange(4 * 20 * 24, dtype=np.uint16).reshape(4, 20, 24) + 5_000 * number
        write_slices(root / name / "images", image)
        facts += f'[volumes.{name}]\nkidney = "{kidney}"\nvoxel_spacing_um = {spacing}\n'
    (root / "dataset.toml").write_text(facts)
    return root


def test_volumes_of_one_kidney_and_spacing_share_a_grey_scale(scans: Path, tmp_path: Path) -> None:
    volumes = {volume.name: volume for volume in open_volumes(scan(scans), tmp_path / "cache")}
    greys = {name: (volume.grey_low, volume.grey_high) for name, volume in volumes.items()}
    assert greys["dark"] == greys["bright"]
    assert greys["dark"][0] < 2_000 and greys["dark"][1] > 6_000
    for source in scan(scans):
        alone = prepare(source, tmp_path / "cache")
        own = (alone.grey_low, alone.grey_high)
        assert (greys[source.name] == own) == (source.name in ("zoom", "other"))


def test_they_come_in_order_and_each_is_converted_when_its_turn_comes(scans: Path, tmp_path: Path) -> None:
    sources = sorted(scan(scans), key=lambda source: ("other", "dark", "zoom", "bright").index(source.name))
    converted, names = [], []
    for volume in open_volumes(sources, tmp_path / "cache"):
        names.append(volume.name)
        converted.append(len(list((tmp_path / "cache").glob("*/image.npy"))))
    assert names == ["other", "dark", "zoom", "bright"]
    assert converted == [1, 3, 4, 4]  # the bright piece together with the dark one


@pytest.mark.parametrize("name", ["dark", "bright", "zoom", "other"])
def test_a_piece_alone_has_the_grey_scale_that_it_has_beside_the_others(scans: Path, tmp_path: Path, name: str) -> None:
    source = next(source for source in scan(scans) if source.name == name)
    piece = open_piece(source, scans, tmp_path / "one")
    together = next(v for v in open_volumes(scan(scans), tmp_path / "all") if v.name == name)
    assert (piece.name, piece.grey_low, piece.grey_high) == (name, together.grey_low, together.grey_high)
    kept = {path.parent.name.split("-")[0] for path in (tmp_path / "one").glob("*/image.npy")}
    assert kept == ({"dark", "bright"} if name in ("dark", "bright") else {name})  # nothing else is converted
