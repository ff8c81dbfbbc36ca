"""Networks of cells: a supernet's path is the network of its genotype, weight for weight."""

import numpy as np
import pytest
import torch
from inherit import gradients, inherit, part_of
from parameters import first_is_quick

from search_spaces.any_candidate import CANDIDATES, read_candidate
from search_spaces.cells.cell_candidate import CellCandidate
from search_spaces.cells.cell_space import (
    CELL_SPACES,
    CellSpace,
    Decision,
    decisions,
    genotype_of,
    random_choice,
)
from search_spaces.cells.genotype import CellGenotype, Edge, Genotype
from search_spaces.cells.hand_made import HAND_MADE, hand_made
from search_spaces.cells.operations import OPERATIONS, DepthToSpace, SpaceToDepth
from search_spaces.cells.path import Path, Pick, plain_path
from search_spaces.errors import InputError
from search_spaces.families.cells import CellsCandidate
from search_spaces.families.hybrid import HybridCandidate
from search_spaces.network import build_network, build_supernet, check_buildable, parameters

FULL = CELL_SPACES["L4"].model_copy(update={"levels": 3, "nodes": 2, "depths": (1, 2)})


def _candidate(family: str, genotype: Genotype, width: int = 8) -> CellCandidate:
    if family == "cells":
        return CellsCandidate(genotype=genotype, width=width, slices_in=16)
    return HybridCandidate(genotype=genotype, width=width, encoder="tu-resnet10t", slices_in=3)


def _pair(space: CellSpace, family: str, choice: dict[str, tuple[int, ...]], crop: int):  # type: ignore[no-untyped-def]
    """A supernet and the network of one of its genotypes, with the same weights, in float64.

    Biases of norms are moved away from 0: a channel that is the same everywhere would lie where a ReLU has no slope.
    """
    torch.manual_seed(0)
    candidate = _candidate(family, genotype_of(space, family, choice))
    supernet = build_supernet(space, candidate, crop).double().eval()
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("norm.bias"):
                parameter.normal_(0.0, 0.1)
    network = build_network(candidate, crop).double().eval()
    inherit(network, supernet, 3 if family == "cells" else 2)
    return supernet, network


def _assert_same(space: CellSpace, family: str, choice: dict[str, tuple[int, ...]]) -> None:
    edge = 2 * max(space.stem_strides) << (space.levels - 1)  # of which two voxels are left at the coarsest level
    crop, dims = (edge, 3) if family == "cells" else (64, 2)
    supernet, network = _pair(space, family, choice, crop)
    generator = torch.Generator().manual_seed(1)
    slices = crop if family == "cells" else 3
    image = torch.randn(1, slices, crop, crop, generator=generator, dtype=torch.float64)
    weight = torch.randn(1, slices if family == "cells" else 1, crop, crop, generator=generator, dtype=torch.float64)
    expected = supernet(image, plain_path(choice))
    found = network(image)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    known = gradients(supernet)
    compared = 0
    for name, gradient in gradients(network).items():
        if gradient is None:
            continue
        of_supernet = known[name]
        assert of_supernet is not None, name
        if gradient.shape == of_supernet.shape or "kernel" not in name:
            torch.testing.assert_close(gradient, part_of(of_supernet, gradient.shape, dims), rtol=1e-5, atol=1e-6)
            compared += 1
    assert compared > 20


@pytest.mark.parametrize(
    "operation", first_is_quick(n for n, o in OPERATIONS.items() if o.resampling == "same" and n != "zero")
)
def test_each_operation_in_a_supernet_is_the_operation_of_the_decided_network(operation: str) -> None:
    space = CELL_SPACES["L1"].model_copy(
        update={"same": tuple(dict.fromkeys(("conv3", "depth7", operation))), "levels": 3, "nodes": 2}
    )
    choice = random_choice(decisions(space, "cells"), np.random.default_rng(0))
    place = space.same.index(operation)
    for decision in decisions(space, "cells"):
        if decision.options == space.same:
            choice[decision.key] = (place,)
    _assert_same(space, "cells", choice)


@pytest.mark.slow
@pytest.mark.parametrize("resampling", ["down", "up"])
def test_each_change_of_resolution_in_a_supernet_is_that_of_the_decided_network(resampling: str) -> None:
    names = tuple(n for n, o in OPERATIONS.items() if o.resampling == resampling)
    space = CELL_SPACES["L1"].model_copy(update={resampling: names, "levels": 3, "nodes": 1})
    for place in range(len(names)):
        choice = random_choice(decisions(space, "cells"), np.random.default_rng(place))
        for decision in decisions(space, "cells"):
            if decision.options == names:
                choice[decision.key] = (place,)
        _assert_same(space, "cells", choice)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["cells", "hybrid"])
@pytest.mark.parametrize("seed", range(4))
def test_a_random_path_through_all_levels_of_choice_is_its_network(family: str, seed: int) -> None:
    choice = random_choice(decisions(FULL, family), np.random.default_rng(seed))
    _assert_same(FULL, family, choice)


def test_a_narrow_level_costs_no_more_parameters_than_its_share() -> None:
    choice = random_choice(decisions(FULL, "cells"), np.random.default_rng(0))
    sizes = []
    for option in (0, 2):  # half and full width
        widths = {key: (option,) for key in choice if key.startswith("width/")}
        candidate = _candidate("cells", genotype_of(FULL, "cells", {**choice, **widths}), width=16)
        sizes.append(parameters(candidate, 16))
    assert sizes[0] < 0.4 * sizes[1]


def test_a_depthwise_kernel_is_the_middle_of_the_larger_one_it_shares() -> None:
    space = CELL_SPACES["L1"].model_copy(update={"same": ("depth3", "depth7"), "levels": 2, "nodes": 1})
    supernet = _candidate("cells", hand_made("plain", "cells")).build_supernet(space, 16)
    names = {n: p for n, p in supernet.named_parameters(remove_duplicate=False) if n.endswith("kernel")}
    threes = [p for n, p in names.items() if "depth3" in n]
    sevens = [p for n, p in names.items() if "depth7" in n]
    assert all(a is b for a, b in zip(threes, sevens, strict=True))
    assert {tuple(p.shape[2:]) for p in threes} == {(7, 7, 7)}


@pytest.mark.parametrize("edges", [(4, 6), (2, 4, 6)])
def test_space_to_depth_keeps_every_voxel_and_can_be_undone(edges: tuple[int, ...]) -> None:
    image = torch.arange(2 * 3 * np.prod(edges), dtype=torch.float32).reshape(2, 3, *edges)
    deep = SpaceToDepth()(image)
    assert deep.shape == (2, 3 * 2 ** len(edges), *(edge // 2 for edge in edges))
    torch.testing.assert_close(DepthToSpace()(deep), image, rtol=0, atol=0)


@pytest.mark.parametrize("level", CELL_SPACES)
@pytest.mark.parametrize("family", ["cells", "hybrid"])
def test_a_genotype_survives_json_whatever_the_order_of_its_keys(level: str, family: str) -> None:
    space = CELL_SPACES[level]
    genotype = genotype_of(space, family, random_choice(decisions(space, family), np.random.default_rng(3)))
    again = Genotype.model_validate_json(genotype.to_json())
    backwards = Genotype.model_validate(dict(reversed(genotype.model_dump(mode="json").items())))
    shuffled = Genotype.model_validate({**genotype.model_dump(), "cells": tuple(reversed(genotype.cells))})
    assert again == genotype == backwards == shuffled
    assert again.hash == genotype.hash == backwards.hash == shuffled.hash
    assert again.to_json() == genotype.to_json()
    other = genotype.model_copy(update={"depths": tuple(d + 1 for d in genotype.depths)})
    assert other.hash != genotype.hash


def test_a_network_built_from_json_is_the_network() -> None:
    genotype = hand_made("residual", "cells", 3)
    torch.manual_seed(0)
    first = build_network(_candidate("cells", genotype), 16)
    torch.manual_seed(0)
    second = build_network(_candidate("cells", Genotype.model_validate_json(genotype.to_json())), 16)
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", first_is_quick(HAND_MADE))
@pytest.mark.parametrize("family", ["cells", "hybrid"])
def test_a_genotype_drawn_by_hand_makes_a_network_by_its_name(name: str, family: str) -> None:
    values = {"family": family, "genotype": name, "width": 8, "slices_in": 32 if family == "cells" else 3}
    candidate = read_candidate({**values, "encoder": "tu-resnet10t"} if family == "hybrid" else values)
    check_buildable(candidate, 32 if family == "cells" else 64)
    assert CANDIDATES.validate_json(candidate.model_dump_json()) == candidate


def test_a_node_whose_edges_all_carry_zero_keeps_one_operation() -> None:
    space = CellSpace(same=("zero", "conv3"), down=("down_max",), up=("up_linear",), nodes=1, levels=2)
    genotype = genotype_of(space, "cells", {d.key: (0,) for d in decisions(space, "cells")})
    nodes = genotype.nodes("encoder_normal")
    assert nodes == ((Edge(source=0, operation="conv3"),),)


def test_if_all_skips_into_a_level_are_closed_its_own_is_open() -> None:
    space = CELL_SPACES["L3"].model_copy(update={"levels": 3})
    closed = {d.key: tuple(range(d.picks)) for d in decisions(space, "cells")}
    skips = genotype_of(space, "cells", closed).skips
    assert skips is not None
    assert [(skip.source, skip.target, skip.gate) for skip in skips] == [(0, 0, "identity"), (1, 1, "identity")]


def test_a_thing_with_one_option_is_not_a_decision() -> None:
    space = CellSpace(same=("conv3",), down=("down_max",), up=("up_linear",), nodes=2, edges=3, levels=2)
    assert decisions(space, "cells") == ()
    wider = space.model_copy(update={"edges": 2})
    assert {d for d in decisions(wider, "cells") if d.key == "reduction/1/edges"} == {
        Decision("reduction/1/edges", ("0", "1", "2"), 2)
    }


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (((),), "node 0 has no incoming edge"),
        (((Edge(source=2, operation="conv3"),),), "node 0 has an edge from 2"),
        (((Edge(source=0, operation="conv3"), Edge(source=0, operation="sep3")),), "two edges from the same source"),
    ],
)
def test_a_cell_that_cannot_be_wired_is_refused(nodes: tuple[tuple[Edge, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellGenotype(kind="reduction", nodes=nodes)


def test_a_shortcut_around_a_cell_that_changes_the_resolution_is_refused() -> None:
    nodes = ((Edge(source=0, operation="down_max"),),)
    with pytest.raises(ValueError, match="cell of kind reduction changes the resolution, so it cannot have a shortcut"):
        CellGenotype(kind="reduction", nodes=nodes, shortcut="identity")


def test_a_shortcut_adds_the_second_input_of_the_cell() -> None:
    plain = hand_made("plain", "cells", 2)
    around = Genotype.model_validate(
        {
            **plain.model_dump(),
            "cells": [
                {**cell.model_dump(), "shortcut": "identity" if cell.kind == "encoder_normal" else "none"}
                for cell in plain.cells
            ],
        }
    )
    torch.manual_seed(0)
    one = build_network(_candidate("cells", plain), 16).eval()
    other = build_network(_candidate("cells", around), 16).eval()
    other.load_state_dict(one.state_dict())
    cells = [
        (one.encoder.normal[0][0], other.encoder.normal[0][0]),
        (one.decoder.normal["0"][0], other.decoder.normal["0"][0]),
    ]
    first, second = torch.randn(2, 1, 8, 8, 8, 8)
    with torch.no_grad():
        added = [b(first, second, None, None) - a(first, second, None, None) for a, b in cells]
        torch.testing.assert_close(added[0], cells[0][0].adapters[1](second), rtol=1e-5, atol=1e-5)
    assert not added[1].any()


def test_a_genotype_of_another_space_is_refused_in_one_line() -> None:
    of_hybrid, of_cells = hand_made("plain", "hybrid"), hand_made("plain", "cells", 3)
    with pytest.raises(
        InputError, match=r"belongs to another search space than family 'cells'; it lacks cells .*reduction"
    ):
        check_buildable(_candidate("cells", of_hybrid), 32)
    with pytest.raises(InputError, match="belongs to another search space than family 'hybrid'; it lacks cells skip"):
        check_buildable(_candidate("hybrid", of_cells), 64)


def test_an_unknown_operation_in_a_genotype_is_named_with_the_nearest() -> None:
    text = hand_made("plain", "cells", 3).to_json().replace('"conv3"', '"conf3"')
    with pytest.raises(
        InputError, match=r"unknown operation in decoder_normal of genotype .*'conf3'; did you mean 'conv3'"
    ):
        check_buildable(_candidate("cells", Genotype.model_validate_json(text)), 16)


def test_boxes_and_crops_that_the_levels_do_not_divide_are_refused() -> None:
    candidate = _candidate("cells", hand_made("plain", "cells", 4))
    assert candidate.stride == 8
    with pytest.raises(
        InputError, match="at crop 20 cannot be built: its maps need multiples of 8; set the crop to 16 or 24"
    ):
        check_buildable(candidate, 20)
    shallow = candidate.model_copy(update={"slices_in": 12})
    with pytest.raises(InputError, match="boxes of 12 slices: its maps need multiples of 8"):
        check_buildable(shallow, 16)
    with pytest.raises(InputError, match="set the crop to 64 or 96"):
        check_buildable(_candidate("hybrid", hand_made("plain", "hybrid")), 70)
    with pytest.raises(InputError, match="multiples of 32 of at least 64; set the crop to 64"):
        check_buildable(_candidate("hybrid", hand_made("plain", "hybrid")), 32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"family": "cells"}, "genotype\n  Field required"),
        ({"family": "unet", "width": 8}, "unknown key of family unet 'width'; choose one of: .*decoder"),
        ({"family": "cells", "genotype": "plain", "encoder": "resnet18"}, "unknown key of family cells 'encoder'"),
        (
            {"family": "hybrid", "genotype": "plain", "decoder": "FPN"},
            "unknown key of family hybrid 'decoder'; did",
        ),
        ({"family": "cells", "genotype": "plain", "masks": "middle"}, "unknown key of family cells 'masks'"),
        ({"family": "cells", "genotype": "plein"}, "unknown genotype 'plein'; did you mean 'plain'"),
    ],
)
def test_a_candidate_that_contradicts_its_family_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_candidate(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"same": ("conv3", "conv4")}, "unknown operation 'conv4'; did you mean"),
        ({"down": ("down_max", "conv3")}, "operation 'conv3' is listed under 'down' but belongs under 'same'"),
        ({"same": ("zero",)}, "carries nothing"),
    ],
)
def test_a_space_with_a_wrong_operation_is_refused(changes: dict[str, tuple[str, ...]], message: str) -> None:
    candidate = _candidate("cells", hand_made("plain", "cells", 4))
    with pytest.raises(InputError, match=message):
        build_supernet(CELL_SPACES["L1"].model_copy(update=changes), candidate, 32)


def test_a_level_of_space_can_be_named_and_changed_in_part() -> None:
    space = CellSpace.model_validate({"level": "L3", "nodes": 2})
    assert space == CELL_SPACES["L3"].model_copy(update={"nodes": 2})
    with pytest.raises(ValueError, match="unknown level of cell space 'L9'"):
        CellSpace.model_validate({"level": "L9"})


def test_an_encoder_without_a_map_at_some_level_also_makes_a_hybrid() -> None:
    values = {"family": "hybrid", "genotype": "plain", "width": 8, "encoder": "mit_b0", "slices_in": 3}
    check_buildable(read_candidate(values), 64)
    tokens = {**values, "encoder": "tu-vit_tiny_patch16_224"}
    with pytest.raises(InputError, match="cells take a pyramid of maps and the encoder gives token maps"):
        check_buildable(read_candidate(tokens), 64)


@pytest.mark.slow
@pytest.mark.parametrize("gates", [("identity",), ("attention",), ("identity", "attention")])
@pytest.mark.parametrize("encoder", ["tu-resnet10t", "mit_b0"])  # the second has no map of stride 2
def test_a_network_works_with_all_skips_closed(encoder: str, gates: tuple[str, ...]) -> None:
    space = CELL_SPACES["L1"].model_copy(update={"skips": gates, "nodes": 1})
    choice = random_choice(decisions(space, "hybrid"), np.random.default_rng(0))
    choice |= {key: (0,) for key in choice if key.startswith("skip/") and ">" in key}
    genotype = genotype_of(space, "hybrid", choice)
    candidate = _candidate("hybrid", genotype).model_copy(update={"encoder": encoder})
    torch.manual_seed(0)
    supernet, network = build_supernet(space, candidate, 64).eval(), build_network(candidate, 64).eval()
    inherit(network, supernet, 2)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), supernet(image, plain_path(choice)), rtol=1e-4, atol=1e-4)


def test_a_skip_that_is_only_compared_does_not_count_as_open() -> None:
    space = CELL_SPACES["L3"].model_copy(update={"levels": 2, "nodes": 1})
    choice = random_choice(decisions(space, "cells"), np.random.default_rng(0))
    choice |= {key: (0,) for key in choice if key.startswith("skip/") and ">" in key}
    torch.manual_seed(0)
    supernet = _candidate("cells", hand_made("plain", "cells"), width=4).build_supernet(space, 8)
    image = torch.randn(1, 8, 8, 8)
    path = plain_path(choice)
    compared = {
        key: (*picks, Pick(1, torch.zeros((), requires_grad=True))) if key.startswith("skip/") and ">" in key else picks
        for key, picks in path.picks.items()
    }
    torch.testing.assert_close(supernet(image, Path(compared)), supernet(image, path))
