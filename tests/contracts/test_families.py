"""What every family must guarantee, so that a new one is tested the day it is named."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.config.field_comments import field_comments
from search_spaces.any_candidate import CANDIDATES, read_candidate
from search_spaces.candidate import Candidate
from search_spaces.cells.cell_candidate import CellCandidate
from search_spaces.cells.cell_space import CELL_SPACES, FRAMES
from search_spaces.errors import InputError
from search_spaces.families import FAMILIES
from search_spaces.network import build_network, check_buildable, parameters
from search_spaces.space import SearchSpace, options
from trainers.cell_search.config import CellSearchConfig

CROP = 64
L1 = CELL_SPACES["L1"]
NOTHING = SearchSpace.model_validate({})
ROOT = Path(__file__).parents[2]

every_family = pytest.mark.parametrize("family", FAMILIES)


def candidate_of(family: str) -> Candidate:
    """The lightest one of a space that says nothing."""
    return read_candidate({"family": family, **FAMILIES[family].lightest(options(NOTHING, family, CROP), L1)})


@every_family
def test_its_row_has_its_own_name(family: str) -> None:
    assert FAMILIES[family].model_fields["family"].default == family


@every_family
def test_a_candidate_survives_json(family: str) -> None:
    candidate = candidate_of(family)
    assert type(candidate) is FAMILIES[family]
    assert CANDIDATES.validate_json(candidate.model_dump_json()) == candidate
    assert CANDIDATES.validate_python(candidate.model_dump(mode="json")) == candidate
    assert hash(CANDIDATES.validate_json(candidate.model_dump_json())) == hash(candidate)


@every_family
def test_the_cheapest_and_the_dearest_choices_make_candidates(family: str) -> None:
    offered = options(NOTHING, family, CROP)
    for values in (FAMILIES[family].lightest(offered, L1), FAMILIES[family].dearest(offered, L1)):
        check_buildable(FAMILIES[family].model_validate(values), CROP)


@every_family
def test_a_space_that_does_not_name_it_can_be_built(family: str) -> None:
    FAMILIES[family].check_options(options(NOTHING, family, CROP), L1)


@every_family
def test_a_network_gives_a_mask_of_each_slice_that_it_says(family: str) -> None:
    candidate = candidate_of(family)
    with torch.device("meta"):
        network = build_network(candidate, CROP, pretrained=False)
        logits = network(torch.empty(2, candidate.slices_in, CROP, CROP))
    assert logits.shape == (2, candidate.slices_out, CROP, CROP)
    assert 0 < parameters(candidate, CROP) <= sum(p.numel() for p in network.parameters())


@every_family
def test_crops_are_multiples_of_its_stride_and_no_others(family: str) -> None:
    candidate = candidate_of(family)
    assert CROP % candidate.stride == 0
    check_buildable(candidate, CROP + candidate.stride)
    with pytest.raises(InputError, match=r"cannot be built: .*set the crop to") as caught:
        check_buildable(candidate, CROP + candidate.stride // 2)
    assert "\n" not in str(caught.value)


@every_family
def test_it_takes_tiles_of_another_size_if_it_says_so(family: str) -> None:
    candidate = candidate_of(family)
    if not candidate.any_size:
        return
    with torch.device("meta"):
        network = build_network(candidate, CROP, pretrained=False)
        tile = (CROP, CROP + candidate.stride)
        logits = network(torch.empty(2, candidate.slices_in, *tile))
    assert logits.shape == (2, candidate.slices_out, *tile)


@every_family
def test_the_texts_about_it_are_short_and_in_one_line(family: str) -> None:
    candidate = candidate_of(family)
    card = candidate.card()
    texts = [candidate.title(), candidate.title("likeliest"), candidate.described(), *card, *card.values()]
    assert card
    assert all(0 < len(text) <= 120 and "\n" not in text for text in texts)
    assert (candidate.decided_cells is not None) == ("likeliest" in candidate.title("likeliest"))


@every_family
def test_an_unknown_key_is_refused_with_the_nearest(family: str) -> None:
    values = candidate_of(family).model_dump()
    with pytest.raises(InputError, match=f"unknown key of family {family} 'slice_in'; did you mean 'slices_in'"):
        read_candidate({**values, "slice_in": 3})


@every_family
def test_a_candidate_from_scratch_and_a_folded_one_are_of_the_same_family(family: str) -> None:
    candidate = candidate_of(family)
    assert candidate.from_scratch().start is None
    assert {type(candidate.from_scratch()), type(candidate.folded())} == {FAMILIES[family]}
    assert candidate.find_weights() is None
    assert CANDIDATES.validate_json(candidate.folded().model_dump_json()) == candidate.folded()


@every_family
def test_the_choices_that_it_names_are_fields(family: str) -> None:
    kind = FAMILIES[family]
    assert set(kind.decisive) <= {*kind.model_fields, "crop"}
    assert "crop" in kind.decisive
    assert set(kind.priced) <= kind.model_fields.keys()
    assert kind.model_fields.keys() == field_comments(kind).keys()


def test_networks_that_read_boxes_give_all_their_slices() -> None:
    boxes = [candidate_of(family) for family in FAMILIES if FAMILIES[family].boxes]
    assert boxes and all(candidate.slices_out == candidate.slices_in for candidate in boxes)


def test_families_of_cells_have_a_frame_and_supernets() -> None:
    with_cells = {name for name, kind in FAMILIES.items() if issubclass(kind, CellCandidate)}
    assert with_cells == FRAMES.keys() == CellSearchConfig().supernets.keys()


@pytest.mark.parametrize("values", [{"family": "unett"}, {"family": ["unet"]}, {"family": None}])
def test_a_family_that_does_not_exist_is_refused_with_those_that_do(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown family .*; (did you mean 'unet'|choose one of: cells, hybrid, sam)"):
        read_candidate(values)


def test_a_value_that_is_not_a_table_is_not_a_candidate() -> None:
    with pytest.raises(ValueError, match="a candidate is a table, as in"):
        read_candidate("resnet18")


def test_no_code_asks_for_the_family_of_a_candidate() -> None:
    """What differs from family to family is said by its class."""
    asks = re.compile(rf"""\bfamily\s*[=!]=|[=!]=\s*["']({"|".join(FAMILIES)})["']""")
    rooms = ("search_spaces", "trainers", "results", "nas")
    asking = [path for room in rooms for path in (ROOT / room).rglob("*.py") if asks.search(path.read_text())]
    assert asking == []
