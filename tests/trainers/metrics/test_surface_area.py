"""The marching-cubes areas: by hand, by symmetry, and against the reference implementation."""

from itertools import permutations, product

import numpy as np
import pytest
from surface_distance import lookup_tables

from trainers.metrics.surface_area import surface_areas

ANISOTROPIC = [(2.0, 1.0, 1.0), (1.0, 3.0, 1.0), (0.5, 1.0, 4.0), (50.0, 25.14, 63.08)]


def code_of(*corners: tuple[int, int, int]) -> int:
    return sum(1 << (4 * z + 2 * y + x) for z, y, x in corners)


@pytest.mark.parametrize(
    ("corners", "area"),
    [
        ([], 0.0),
        ([(0, 0, 0)], np.sqrt(3) / 8),  # an equilateral triangle with sides of sqrt(1/2)
        ([(0, 0, 0), (0, 0, 1)], np.sqrt(0.5)),  # a rectangle of 1 by sqrt(1/2)
        ([(0, 0, 0), (0, 1, 1)], np.sqrt(3) / 4),  # diagonal: two corners apart
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)], 1.0),  # a flat face
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)], 3 * np.sqrt(3) / 4),  # a regular hexagon
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0)], 0.5 + 3 * np.sqrt(3) / 8),  # L: triangle and trapezoid
        ([(0, 1, 0), (0, 0, 0), (0, 0, 1), (1, 0, 1)], 4 * np.sqrt(3) / 8 + 2 * np.sqrt(2) / 4),  # winding path
    ],
)
def test_areas_in_a_unit_cube_are_those_of_the_polygons(corners: list[tuple[int, int, int]], area: float) -> None:
    assert surface_areas((1, 1, 1))[code_of(*corners)] == pytest.approx(area, abs=1e-15)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), *ANISOTROPIC])
def test_areas_equal_the_reference_for_all_codes(spacing: tuple[float, float, float]) -> None:
    # Its bit order is ours mirrored along all three axes, which changes no area.
    reference = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    np.testing.assert_allclose(surface_areas(spacing), reference, rtol=1e-12, atol=0)


def test_a_flat_face_has_the_area_of_its_two_voxel_sides() -> None:
    areas = surface_areas((2.0, 3.0, 5.0))
    side_z, side_y, side_x = (
        code_of(*(corner for corner in product((0, 1), repeat=3) if not corner[axis])) for axis in range(3)
    )
    assert (areas[side_z], areas[side_y], areas[side_x]) == (15.0, 10.0, 6.0)


@pytest.mark.parametrize("spacing", ANISOTROPIC)
def test_a_mask_and_its_complement_have_the_same_surface(spacing: tuple[float, float, float]) -> None:
    areas = surface_areas(spacing)
    np.testing.assert_allclose(areas, areas[::-1], rtol=1e-14)


def test_only_empty_and_full_cubes_hold_no_surface() -> None:
    assert np.flatnonzero(surface_areas((1, 2, 3)) == 0).tolist() == [0, 255]


def test_permuting_the_axes_permutes_the_areas() -> None:
    spacing = (0.5, 1.0, 4.0)
    corners = list(product((0, 1), repeat=3))
    for order in permutations(range(3)):
        permuted = surface_areas((spacing[order[0]], spacing[order[1]], spacing[order[2]]))
        for code in range(256):
            chosen = [corner for bit, corner in enumerate(corners) if code >> bit & 1]
            moved = code_of(*((c[order[0]], c[order[1]], c[order[2]]) for c in chosen))
            assert permuted[moved] == pytest.approx(surface_areas(spacing)[code], rel=1e-14)
