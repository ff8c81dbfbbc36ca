"""A search space: fields must exist, values and ranges must be valid, and what is offered from them."""

from typing import Any

import pytest
from pydantic import BaseModel, PositiveInt, ValidationError, model_validator

from search_spaces.any_candidate import CANDIDATES
from search_spaces.cells.cell_space import CELL_SPACES
from search_spaces.errors import InputError
from search_spaces.families import FAMILIES
from search_spaces.families.sam import SamCandidate
from search_spaces.families.unet import UnetCandidate
from search_spaces.space import Range, SearchSpace, check_section, combinations, options, rows

L1 = CELL_SPACES["L1"]


def _space(**sections: Any) -> SearchSpace:
    return SearchSpace.model_validate(sections)


def _checked(family: str, **sections: Any) -> None:
    space = _space(families=[family], **sections)
    FAMILIES[family].check_options(options(space, family, 64), CELL_SPACES["L1"])


def test_only_named_fields_are_searched() -> None:
    space = _space()
    assert space.families == ("unet",)
    assert [rows(space, family) for family in FAMILIES] == [()] * len(FAMILIES)
    assert not space.searches("unet")


def test_a_space_survives_json() -> None:
    space = _space(
        families=["unet", "cells"],
        fit={"crop": [64, 96], "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "loss": "dice"},
        inference={"axes": [[0], [0, 1, 2]]},
        unet={"encoder": ["resnet34"], "fit": {"crop": [96]}},
        cells={"genotype": ["plain"], "inference": {"overlap": [0.5]}},
    )
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space


def test_a_candidate_survives_json() -> None:
    candidate = UnetCandidate(encoder="mit_b0", decoder="FPN", encoder_weights="imagenet", slices_in=7, masks="all")
    assert CANDIDATES.validate_json(candidate.model_dump_json()) == candidate


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"unet": {"encoder": ["resnet18", "resnet99"]}}, "unet.encoder has 'resnet99': unknown encoder 'resnet99'; "
         "did you mean 'resnet"),
        ({"unet": {"decoder": ["UNet"]}}, "unet.decoder has 'UNet': unknown decoder 'UNet'; did you mean 'Unet'"),
        ({"unet": {"encoders": ["resnet18"]}}, "unknown choice in unet, 'encoders'; did you mean 'encoder'"),
        ({"unet": {"family": ["sam"]}}, "unknown choice in unet, 'family'"),
        ({"unet": {"encoder": []}}, "an empty list leaves nothing to choose"),
        ({"unet": {"masks": ["first"]}}, "unet.masks has 'first': Input should be 'middle' or 'all'"),
        ({"unet": {"slices_in": [-3]}}, "unet.slices_in has -3: Input should be greater than 0"),
        ({"sam": {"encoder": ["resnet18"]}}, "unknown encoder of family sam 'resnet18'"),
        ({"cells": {"genotype": ["plein"]}}, "unknown genotype 'plein'; did you mean 'plain'"),
        ({"cells": {"encoder": ["resnet18"]}}, "unknown choice in cells, 'encoder'"),
        ({"fit": {"crop": [64, 64]}}, "named twice"),
        ({"families": ["unett"]}, "unknown family 'unett'; did you mean 'unet'"),
        ({"families": ["unet", "unet"]}, "families names the same family twice"),
        ({"families": []}, "at least 1 item"),
        ({"unett": {"encoder": ["resnet18"]}}, "unknown family 'unett'; did you mean 'unet'"),
        ({"fit": {"learning_rate": {"low": 1e-2, "high": 1e-4}}}, "low = 0.01 is above high = 0.0001"),
        ({"fit": {"learning_rate": {"low": 0.0, "high": 1e-4, "log": True}}}, "must begin above 0"),
        ({"fit": {"vessel_share": {"low": float("nan"), "high": 1.0}}}, "should be a finite number"),
        ({"fit": {"vessel_share": {"low": 0.5}}}, "high\n  Field required"),
        ({"fit": {"vessel_share": {"low": 0.5, "high": 1.0, "step": 0.1}}}, "step\n  Extra inputs are not permitted"),
        ({"fit": {"vessel_share": {"low": "0.5", "high": 1.0}}}, "should be a finite number"),
        ({"fit": {"batch_size": {"low": True, "high": 8}}}, "should be a finite number"),
        ({"fit": {"batch_size": {"low": 1, "high": 10**400}}}, "should be a finite number, of at most 1e+15"),
        ({"unet": {"slices_in": ["5"]}}, "unet.slices_in has '5', which is read as 5; write 5"),
        ({"unet": {"slices_in": [5.0]}}, "unet.slices_in has 5.0, which is read as 5; write 5"),
        ({"unet": {"slices_in": [True]}}, "unet.slices_in has True, which is read as 1; write 1"),
        ({"encoders": ["resnet18"]}, "unknown key 'encoders'; choices belong in the table of what has the field: fit"),
        ({"lora_rank": [4]}, "unknown key 'lora_rank'; did you mean sam.lora_rank"),
        ({"fit": {"crop": {"low": 32, "high": 64}}}, "fit.crop decides what can be built"),
        ({"cells": {"fit": {"crop": {"low": 32, "high": 64}}}}, "cells.fit.crop decides what can be built"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_made_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _space(**sections)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("family", "section", "message"),
    [
        ("unet", {"slices_in": [3, 4]}, "slices_in has 4, which has no middle slice"),
        ("unet", {"slices_in": {"low": 3, "high": 5}}, "slices_in has 4, which has no middle slice"),
        ("sam", {"slices_in": [2]}, "slices_in has 2, which has no middle slice"),
        ("unet", {"encoder_weights": ["imagnet"]}, "unknown encoder_weights 'imagnet'; did you mean 'imagenet'"),
        ("unet", {"encoder": ["resnet18", "resnext101_32x16d"], "encoder_weights": ["imagenet"]},
         "encoder 'resnext101_32x16d' has none of the encoder_weights imagenet; it has instagram, ssl, swsl"),
        ("sam", {"tuning": ["frozen"]}, "tuning frozen keeps an encoder's weights, but encoder_weights offers none"),
        ("sam", {"lora_rank": [4]}, "lora_rank 4 goes with tuning lora alone; add lora to tuning"),
        ("cells", {"width": [4, 6]}, "cells of width 6 cannot be built: use a multiple of 4; set it to 4 or 8"),
        ("cells", {"width": {"low": 4, "high": 8}}, "cells of width 5 cannot be built"),
        ("cells", {"slices_in": [20]}, "slices_in 20 of family 'cells' must be a multiple of 8"),
    ],
)  # fmt: skip
def test_choices_that_make_no_network_are_refused_in_one_line(
    family: str, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        _checked(family, **{family: section})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_even_number_of_slices_needs_a_mask_of_each() -> None:
    _checked("unet", unet={"slices_in": [4], "masks": ["all"]})


def test_one_value_is_a_list_of_one_and_a_table_a_range() -> None:
    space = _space(fit={"loss": "dice", "learning_rate": {"low": 1e-4, "high": 1e-2}})
    assert space.fit == {"loss": ("dice",), "learning_rate": Range(low=1e-4, high=1e-2)}


def test_weights_are_offered_to_the_encoders_that_have_them() -> None:
    space = _space(
        unet={
            "encoder": ["resnet18", "resnext101_32x16d"],
            "encoder_weights": ["none", "imagenet", "instagram", "my.safetensors"],
        }
    )
    offered = options(space, "unet", 64)
    assert UnetCandidate.weights_for("resnet18", offered) == ["none", "imagenet", "my.safetensors"]
    assert UnetCandidate.weights_for("resnext101_32x16d", offered) == ["none", "instagram", "my.safetensors"]


def test_what_the_space_does_not_name_has_its_default_alone_and_a_range_every_whole_number() -> None:
    offered = options(_space(sam={"lora_rank": {"low": 2, "high": 5}, "slices_in": [3]}), "sam", 96)
    assert offered["lora_rank"] == (2, 3, 4, 5)
    assert (offered["slices_in"], offered["crop"]) == ((3,), (96,))
    assert offered["encoder"] == (SamCandidate.model_fields["encoder"].default,)


def test_a_section_of_a_family_applies_to_that_family_alone() -> None:
    space = _space(
        families=["unet", "cells"],
        fit={"crop": [64, 96], "loss": ["dice", "bce"]},
        cells={"width": [4], "fit": {"crop": [32]}, "inference": {"overlap": [0.5]}},
    )
    assert [(row.name, row.choice) for row in rows(space, "unet")] == [
        ("fit.crop", (64, 96)),
        ("fit.loss", ("dice", "bce")),
    ]
    assert [(row.name, row.choice) for row in rows(space, "cells")] == [
        ("cells.fit.crop", (32,)),
        ("cells.width", (4,)),
        ("fit.loss", ("dice", "bce")),
        ("cells.inference.overlap", (0.5,)),
    ]
    assert options(space, "cells", 128)["crop"] == (32,)


def test_choices_that_decide_what_can_be_built_are_made_first() -> None:
    space = _space(
        unet={"masks": ["all"], "decoder": ["Unet"], "encoder": ["resnet18"]},
        fit={"loss": ["dice"], "crop": [64]},
        inference={"overlap": [0.5]},
    )
    names = ["unet.encoder", "unet.decoder", "fit.crop", "unet.masks", "fit.loss", "inference.overlap"]
    assert [row.name for row in rows(space, "unet")] == names


def test_combinations_are_all_values_of_the_decisive_choices() -> None:
    space = _space(
        unet={"encoder": ["tu-resnet10t", "tu-vit_tiny_patch16_224"], "decoder": ["Unet", "DPT"], "masks": ["all"]}
    )
    found = combinations(space, "unet", 64)
    assert [(c.named["encoder"], c.named["decoder"], c.crop) for c in found] == [
        (encoder, decoder, 64) for encoder in ("tu-resnet10t", "tu-vit_tiny_patch16_224") for decoder in ("Unet", "DPT")
    ]
    assert found[1].candidate({"slices_in": 3}) == UnetCandidate(encoder="tu-resnet10t", decoder="DPT", slices_in=3)


def test_networks_are_tried_with_the_values_that_refuse_most() -> None:
    for offered, cheapest in (
        (("upscaled",), "upscaled"),
        (("upscaled", "stem"), "stem"),
        (("stem", "plain"), "plain"),
    ):
        space = _space(unet={"resolution": list(offered), "decoder_norm": ["group", "batch"]})
        lightest = UnetCandidate.lightest(options(space, "unet", 64), L1)
        assert (lightest["resolution"], lightest["decoder_norm"]) == (cheapest, "batch")
    group = _space(unet={"decoder_norm": ["group"]})
    assert UnetCandidate.lightest(options(group, "unet", 64), L1)["decoder_norm"] == "group"


class _Owner(BaseModel, frozen=True, extra="forbid"):
    few: PositiveInt = 1
    many: PositiveInt | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "_Owner":
        if self.many is not None and self.many < self.few:
            raise ValueError(f"many = {self.many} is less than few = {self.few}")
        return self


def test_a_value_must_be_compatible_with_the_rest_of_its_section() -> None:
    check_section({"many": (3, "none")}, _Owner, "there", _Owner(few=2))
    with pytest.raises(ValueError, match=r"^there\.many has 1: many = 1 is less than few = 2$"):
        check_section({"many": (3, 1)}, _Owner, "there", _Owner(few=2))
    with pytest.raises(ValueError, match=r"^there\.few has -1: Input should be greater than 0$"):
        check_section({"few": Range(low=-1, high=3)}, _Owner, "there")


def test_choices_are_made_in_one_order_however_a_file_has_them() -> None:
    """A run folder's own file has lists before ranges, and a resumed study has to draw what an unbroken one would."""
    ahead = {"learning_rate": {"low": 1e-4, "high": 1e-2}, "loss": ["dice", "bce"], "crop": [64]}
    behind = dict(reversed(ahead.items()))
    one, other = (_space(fit=fit, unet={"slices_in": [3], "encoder": ["resnet18"]}) for fit in (ahead, behind))
    names = [row.name for row in rows(one, "unet")]
    assert names == [row.name for row in rows(other, "unet")]
    assert names == ["unet.encoder", "fit.crop", "unet.slices_in", "fit.learning_rate", "fit.loss"]
