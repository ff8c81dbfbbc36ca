"""Editing dataset.toml for one volume changes the given facts and nothing else."""

import tomllib
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from trainers.data.manifest_edit import table_text, with_facts

FACTS = {"labels": "labels_pseudo", "soft": True, "annotated": 1.0}
PATH = Path("dataset.toml")


def test_values_are_replaced_in_place_and_new_ones_added_after_the_last_key() -> None:
    text = (
        "# all scans\n\n[volumes.a]\nkidney = 'k'  # the donor\nannotated = 0.65   # said by # two people\n\n"
        "# the second\n[volumes.b]\nannotated = 0.5\n"
    )
    assert with_facts(PATH, text, "a", FACTS) == (
        "# all scans\n\n[volumes.a]\nkidney = 'k'  # the donor\nannotated = 1.0   # said by # two people\n"
        'labels = "labels_pseudo"\nsoft = true\n\n# the second\n[volumes.b]\nannotated = 0.5\n'
    )


def test_a_hash_sign_inside_a_string_is_not_a_comment() -> None:
    text = '[volumes.a]\nlabels = "of # one"  # two\n'
    assert with_facts(PATH, text, "a", {"labels": "x"}) == '[volumes.a]\nlabels = "x"  # two\n'


def test_a_volume_that_is_missing_is_added_at_the_end() -> None:
    text = "[volumes.b]\nannotated = 0.5\n"
    assert with_facts(PATH, text, "a c", {"soft": True}) == text + '\n[volumes."a c"]\nsoft = true\n'


def test_an_empty_file_gets_the_table_alone() -> None:
    assert with_facts(PATH, "", "a", {"soft": True}) == table_text("a", {"soft": True}) + "\n"


@pytest.mark.parametrize("header", ["[volumes.a]", "[ volumes . a ]  # here", '[volumes."a"]', "['volumes'.a]"])
def test_the_table_is_found_however_its_name_is_written(header: str) -> None:
    assert with_facts(PATH, f"{header}\nsoft = false\n", "a", {"soft": True}) == f"{header}\nsoft = true\n"


def test_windows_line_endings_are_kept() -> None:
    assert with_facts(PATH, "[volumes.a]\r\nsoft = false\r\n", "a", {"soft": True}) == "[volumes.a]\r\nsoft = true\r\n"


def test_a_second_edit_changes_nothing() -> None:
    once = with_facts(PATH, "[volumes.a]\n", "a", FACTS)
    assert with_facts(PATH, once, "a", FACTS) == once
    assert tomllib.loads(once) == {"volumes": {"a": FACTS}}


@pytest.mark.parametrize(
    "text",
    [
        "volumes = { a = { annotated = 0.5 } }\n",
        "[volumes]\na.annotated = 0.5\n",
        "[volumes]\na = { annotated = 0.5 }\n",
        "[volumes.a]\nvoxel_spacing_um = [\n[1][0], 2, 3]\n",
        "[volumes.a]\nannotated = \n",
    ],
)
def test_what_cannot_be_edited_is_left_to_people_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r'dataset.toml: a is described .*add by hand: labels = "labels_pseudo"') as e:
        with_facts(PATH, text, "a", FACTS)
    assert "\n" not in str(e.value)
