"""Every cell of the table in docs/formats.md is held by tests that are there."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
READERS = "tests/trainers/data"

BY_NAMES = "test_axes.py::test_a_volume_is_read_by_the_names_of_its_axes"
OF_TWO = "test_axes.py::test_of_two_channels_or_times_none_is_read_until_one_is_named"
TYPES = "test_greys.py::test_labels_of_every_type_are_the_same_mask"
STATED = "test_spacing.py::test_the_spacing_that_a_file_states_counts"
UNKNOWN = "test_spacing.py::test_a_spacing_that_is_not_stated_stays_unknown"
ABSURD = "test_spacing.py::test_a_spacing_that_no_scan_has_is_refused_before_anything_else"
IMAGES = "test_tiff_images.py"

# By the beginnings of a row and of a column: tests, or one case of theirs in brackets.
CELLS: dict[tuple[str, str], tuple[str, ...]] = {
    ("axes", "TIFF"): (
        f"{BY_NAMES}[imagej zyx]", f"{BY_NAMES}[ome zyx]", f"{BY_NAMES}[tifffile's own]", f"{BY_NAMES}[plain pages]",
        f"{IMAGES}::test_the_names_that_tifffile_writes_count",
        f"{IMAGES}::test_pages_that_were_written_one_by_one_are_slices",
    ),
    ("axes", "Zarr"): (
        f"{BY_NAMES}[ome-zarr xyz]", f"{BY_NAMES}[ome-zarr 0.5]", f"{BY_NAMES}[zarr with dimension names]",
        f"{BY_NAMES}[zarr by an image's edges]", f"{BY_NAMES}[zarr by rows]", f"{BY_NAMES}[zarr 2 by xarray]",
        "test_axes.py::test_names_of_which_none_is_known_are_said",
        "test_axes.py::test_names_that_are_half_known_are_not_guessed",
    ),
    ("axes", "NIfTI"): (f"{BY_NAMES}[nifti]", f"{BY_NAMES}[nifti, one time]"),
    ("axes", ".npy"): (f"{BY_NAMES}[npy]", f"{BY_NAMES}[npy, leading axis]"),
    ("more than one", "TIFF"): (
        f"{OF_TWO}[imagej zcyx]", f"{OF_TWO}[imagej tzyx]", f"{OF_TWO}[ome czyx]", f"{OF_TWO}[ome tzyx]",
        "test_axes.py::test_positions_of_an_ome_file_are_named_too",
        "test_axes.py::test_one_of_several_colours_can_be_read",
        "test_greys.py::test_samples_that_say_nothing_are_left_out_and_it_is_said",
        "test_greys.py::test_samples_that_differ_on_one_page_are_not_chosen_from",
    ),
    ("more than one", "Zarr"): (
        f"{OF_TWO}[ome-zarr czyx]", f"{OF_TWO}[ome-zarr ztyx]", f"{OF_TWO}[zarr with dimension names]",
        "test_naming.py::test_the_only_image_of_a_bioformats2raw_store_is_read",
    ),
    ("more than one", "NIfTI"): (f"{OF_TWO}[nifti of two times]",),
    ("more than one", ".npy"): ("test_axes.py::test_axes_without_a_name_are_not_guessed",),
    ("types", "TIFF"): (
        f"{TYPES}[imagej, big-endian]", f"{TYPES}[tiff, 1 bit]", "test_greys.py::test_packed_values_are_read",
    ),
    ("types", "Zarr"): (
        f"{TYPES}[zarr 2, big-endian]", f"{TYPES}[zarr 3, float16]",
        "test_zarr_store.py::test_the_codecs_of_version_2_are_read",
        "test_zarr_store.py::test_the_codecs_of_version_3_are_read",
    ),
    ("types", "NIfTI"): (
        f"{TYPES}[nifti, big-endian]", f"{TYPES}[nifti, scaled to uint8]", f"{TYPES}[nifti, scaled to int16]",
    ),
    ("types", ".npy"): (
        f"{TYPES}[npy, big-endian float]", f"{TYPES}[npy, float16]", f"{TYPES}[npy, bool]",
        "test_npy.py::test_every_version_and_order_of_a_file_is_read",
    ),
    ("WhiteIsZero", "TIFF"): (
        "test_greys.py::test_white_is_zero_is_read_as_pillow_shows_it",
        "test_greys.py::test_a_mask_of_bool_by_tifffile_is_read_as_tifffile_reads_it",
        f"{IMAGES}::test_a_page_that_does_not_say_what_is_black_is_read_as_stored",
    ),
    ("spacing", "TIFF"): (
        f"{STATED}[imagej, micron]", f"{STATED}[imagej, units of the axes]", f"{STATED}[ome, nm]",
        f"{STATED}[tags, centimetre]", f"{STATED}[tags, inch]", f"{STATED}[tags, millimetre]",
        f"{STATED}[imagej, slices that state no distance]", f"{UNKNOWN}[tags of a screen]",
        f"{IMAGES}::test_each_image_of_an_ome_file_has_its_own_spacing",
        "test_spacing.py::test_the_resolution_of_a_screen_or_a_printer_is_no_spacing",
        "test_spacing.py::test_a_slice_with_another_spacing_is_named",
        "test_spacing.py::test_slices_of_different_spacings_are_read_where_a_person_states_one",
        f"{ABSURD}[tags-0.001]",
    ),
    ("spacing", "Zarr"): (
        f"{STATED}[ome-zarr, three units]", f"{STATED}[ome-zarr, scaled twice]", f"{UNKNOWN}[ome-zarr, another unit]",
        f"{ABSURD}[ome-zarr-0]",
    ),
    ("spacing", "NIfTI"): (
        f"{STATED}[nifti, micron]", f"{STATED}[nifti, no unit]", "test_spacing.py::test_what_was_assumed_is_said",
        "test_nifti.py::test_a_header_that_contradicts_itself_is_refused",
        "test_nifti.py::test_an_affine_that_is_sheared_is_refused", f"{ABSURD}[nifti-nan]",
    ),
    ("spacing", ".npy"): ("test_sources.py::test_an_unknown_spacing_is_reported",),
    ("orientation", "TIFF"): (
        "test_geometry.py::test_slices_are_laid_onto_each_other_by_their_orientation_tag",
        "test_geometry.py::test_slices_of_one_folder_lie_alike",
    ),
    ("orientation", "Zarr"): ("test_geometry.py::test_the_place_of_an_ome_zarr_image_is_compared",),
    ("orientation", "NIfTI"): (
        "test_geometry.py::test_labels_in_any_orientation_are_laid_onto_their_image",
        "test_nifti.py::test_of_two_affines_that_differ_the_sform_counts_and_that_is_said",
    ),
    ("orientation", ".npy"): (
        "test_geometry.py::test_what_only_one_of_two_files_says_about_its_place_is_said_to_be_left_aside",
    ),
    ("slice numbers", "TIFF"): (
        "test_geometry.py::test_slice_numbers_are_compared_where_both_have_them",
        "test_naming.py::test_slices_of_one_name_are_one_volume_for_every_command",
    ),
    **{
        ("slice numbers", name): (f"test_sources.py::test_every_format_gives_the_same_voxels[images.{ending}]",)
        for name, ending in (("Zarr", "zarr"), ("NIfTI", "nii.gz"), (".npy", "npy"))
    },
    ("refused", "TIFF"): (
        f"{IMAGES}::test_a_mask_that_is_shown_by_an_inverting_table_is_refused_as_a_scan_is",
        f"{IMAGES}::test_inks_are_not_grey_values", "test_axes.py::test_a_page_unlike_the_others_is_named",
        "test_sources.py::test_a_broken_stack_is_named_in_one_line[missing slice]",
        f"{IMAGES}::test_an_imagej_file_with_more_or_fewer_pages_than_stated_is_refused_until_a_person_decides",
        f"{IMAGES}::test_an_ome_file_that_is_a_part_is_refused_until_its_axes_are_told",
    ),
    ("refused", "Zarr"): (
        "test_zarr_store.py::test_only_numbers_are_read",
        "test_zarr_store.py::test_a_codec_that_could_run_something_is_refused_before_a_byte_is_decoded",
        "test_zarr_store.py::test_version_3_is_held_to_the_same",
        "test_zarr_store.py::test_a_level_that_lies_outside_of_its_store_is_refused",
        "test_zarr_store.py::test_a_chunk_that_is_a_link_out_of_its_store_is_refused",
        "test_zarr_store.py::test_a_pipe_in_a_store_is_not_waited_for",
        "test_zarr_chunks.py::test_chunks_that_their_array_never_asks_for_are_refused_by_the_key_that_says_so",
        "test_zarr_chunks.py::test_a_chunk_far_larger_than_its_array_is_not_unpacked",
    ),
    ("refused", "NIfTI"): ("test_nifti.py::test_a_header_that_contradicts_itself_is_refused",),
    ("refused", ".npy"): (
        "test_npy.py::test_what_is_no_array_of_numbers_is_one_line[objects]",
        "test_greys.py::test_what_is_no_number_is_refused",
    ),
}  # fmt: skip


def table() -> list[tuple[str, str]]:
    """The row and the column of every cell that says something."""
    lines = [
        line.strip("|").split("|") for line in (PROJECT / "docs/formats.md").read_text().splitlines() if "|" in line
    ]
    columns, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [
        (row[0], column.strip("`"))
        for row in rows
        for column, cell in zip(columns[1:], row[1:], strict=True)
        if cell != "–"
    ]


def test_every_cell_of_the_table_has_tests() -> None:
    named = [[key for key in CELLS if row.startswith(key[0]) and column.startswith(key[1])] for row, column in table()]
    assert [len(keys) for keys in named] == [1] * len(named)
    assert len(named) == len(CELLS)


def test_the_tests_of_every_cell_are_there() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider", READERS]
    collected = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    there = {line.removeprefix(f"{READERS}/") for line in collected.splitlines()}
    there |= {case.partition("[")[0] for case in there}
    assert [test for tests in CELLS.values() for test in tests if test not in there] == []
