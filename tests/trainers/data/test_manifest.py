import pytest
from stacks import a_volume, write_slices

from search_spaces.errors import InputError
from trainers.data.manifest import COMPETITION, INSIDE, check_name, facts_of, read_manifest
from trainers.data.prepare import prepare
from trainers.data.sources import scan


def manifest_of(tmp_path, text: str):
    (tmp_path / "dataset.toml").write_text(text)
    return read_manifest(tmp_path)


def test_a_folder_may_have_no_manifest(tmp_path) -> None:
    assert read_manifest(tmp_path) is None


def test_one_spacing_stands_for_three_axes(tmp_path) -> None:
    manifest = manifest_of(
        tmp_path, "[volumes.a]\nvoxel_spacing_um = 63\n[volumes.b]\nvoxel_spacing_um = [5, 1, 1.5]\n"
    )
    assert manifest.volumes["a"].spacing_um == (63.0, 63.0, 63.0)
    assert manifest.volumes["b"].spacing_um == (5.0, 1.0, 1.5)


def test_the_volumes_of_the_competition_are_known() -> None:
    sparse = facts_of("kidney_3_sparse", None)
    assert (sparse.kidney, sparse.spacing_um, sparse.annotated) == ("kidney_3", (50.16,) * 3, 0.85)
    assert facts_of("kidney_2", None).annotated == 0.65
    assert facts_of("kidney_1_voi", None).kidney == facts_of("kidney_1_dense", None).kidney == "kidney_1"


def test_any_part_of_a_numbered_kidney_belongs_to_it() -> None:
    assert facts_of("kidney_3_crop_7", None).kidney == "kidney_3"
    assert facts_of("kidney_30", None).kidney == "kidney_30"
    assert facts_of("my_kidney_3", None).kidney is None


def test_the_manifest_wins_over_what_is_known_and_leaves_the_rest(tmp_path) -> None:
    manifest = manifest_of(tmp_path, "[volumes.kidney_2]\nannotated = 0.9\n")
    facts = facts_of("kidney_2", manifest)
    assert (facts.annotated, facts.kidney, facts.spacing_um) == (0.9, "kidney_2", (50.0,) * 3)


def test_what_lies_inside_another_volume_is_of_the_same_kidney() -> None:
    assert INSIDE["kidney_3_dense"] == "kidney_3_sparse"
    assert all(COMPETITION[inner].kidney == COMPETITION[outer].kidney for inner, outer in INSIDE.items())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[volumes.a]\nkidny = 'x'", "unknown key .*'kidny'; did you mean 'kidney'"),
        (
            "[volume.a]\nkidney = 'x'",
            "unknown key at top level, 'volume'; did you mean 'volumes'|volumes: field required",
        ),
        ("[volumes.a]\nkidney = 3", r"volumes\.a\.kidney = 3"),
        ("[volumes.a]\nvoxel_spacing_um = -1", r"volumes\.a\.voxel_spacing_um must be 0\.01 to 100,000 micrometres"),
        ("[volumes.a]\nvoxel_spacing_um = [1, 2]", r"must be 0\.01 to 100,000 micrometres, one number or three"),
        ("[volumes.a]\nvoxel_spacing_um = '50'", r"must be 0\.01 to 100,000 micrometres, one number or three"),
        ("[volumes.a]\nvoxel_spacing_um = inf", r"must be 0\.01 to 100,000 micrometres, one number or three"),
        ("[volumes.a]\nannotated = 65", r"volumes\.a\.annotated = 65"),
        (
            "[volumes.a]\naxes = 'ZYW'",
            r"volumes\.a\.axes names every axis of a file by a letter, out of Z \(z\), Y \(y\)",
        ),
        ("[volumes.a]\naxes = ''", r"volumes\.a\.axes names every axis of a file by a letter"),
        ("[volumes.a]\naxes = ['z', 'y', 'x']", r"volumes\.a\.axes names every axis of a file by a letter"),
        ("[volumes.a", "not valid TOML"),
        ("[volumes.'../a']\nkidney = 'x'", "cannot be the name of a volume"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named_in_one_line(tmp_path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        manifest_of(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "dataset.toml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["..", ".", "", " ", "a/b", "a\\b", "/etc", "C:x", "a\0b"])
def test_a_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(InputError):
        check_name(name, "ids")


def test_a_name_leaves_room_for_what_files_are_named_after_it(tmp_path) -> None:
    """A file system allows 255 bytes; a converted volume adds 22 of its own to the name."""
    for letter, most in (("a", 200), ("\N{GREEK SMALL LETTER ALPHA}", 100)):
        assert check_name(letter * most, "ids") == letter * most
        with pytest.raises(InputError, match="cannot be the name of a volume; 200 bytes is the most"):
            check_name(letter * (most + 1), "ids")
    write_slices(tmp_path / ("a" * 200) / "images", a_volume()[0])
    prepare(scan(tmp_path)[0], tmp_path / "cache")
