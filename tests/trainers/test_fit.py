import json
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from trainings import CONFIG, go_on, small_fit, small_network

from search_spaces.errors import InputError
from trainers.average import weight_average
from trainers.machine import available_cores
from trainers.step import NonFiniteLoss


def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = small_fit()
    unbroken.run(6, go_on)

    first = small_fit()
    assert not first.run(6, lambda step, _: step < 3)
    assert first.step == 3
    first.save(tmp_path)
    torch.manual_seed(999)  # another process would have drawn other numbers by now
    second = small_fit(network=small_network(seed=7))
    assert second.resume(tmp_path)
    assert second.step == 3
    second.run(6, go_on)

    for name, value in unbroken.averaged.state_dict().items():
        assert torch.equal(value, second.averaged.state_dict()[name]), name
    for name, value in unbroken.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


@pytest.mark.parametrize("missing", ["groups", "schedule", "scaler"])
def test_a_checkpoint_of_another_training_is_one_line(tmp_path: Path, missing: str) -> None:
    training = small_fit()
    training.run(2, go_on)
    training.save(tmp_path)
    (state,) = tmp_path.glob("*/state.json")
    kept = {key: value for key, value in json.loads(state.read_text()).items() if key != missing}
    state.write_text(json.dumps(kept))
    with pytest.raises(InputError, match=r"holds no checkpoint of this training .*; delete it to begin anew"):
        small_fit().resume(tmp_path)


def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    training = small_fit()
    training.run(2, go_on)
    training.save(tmp_path)
    (file,) = tmp_path.glob("*/tensors.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(InputError, match="holds no checkpoint of this training"):
        small_fit().resume(tmp_path)


def test_the_same_seed_trains_the_same_weights() -> None:
    one = small_fit()
    one.run(3, go_on)
    other = small_fit()
    other.run(3, go_on)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.averaged.state_dict().values(), other.averaged.state_dict().values(), strict=True)
    )


def test_training_lowers_the_loss() -> None:
    losses: list[float] = []
    fit = small_fit(CONFIG.model_copy(update={"steps": 60, "learning_rate": 0.05}))
    fit.run(60, lambda _, loss: bool(losses.append(loss)) or True)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_fresh_training_has_nothing_to_resume(tmp_path: Path) -> None:
    assert not small_fit().resume(tmp_path)


def test_a_loss_that_is_not_a_number_stops_before_the_weights_change() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            return images[:, :1] * self.weight * float("nan")

    network = Broken()
    with pytest.raises(NonFiniteLoss, match="nan"):
        small_fit(network=network).run(1, go_on)
    assert float(network.weight.detach()) == 1.0


def test_biases_and_normalisation_are_not_decayed() -> None:
    config = CONFIG.model_copy(update={"weight_decay": 0.5})
    groups = small_fit(config)._optimiser.param_groups
    assert {(group["weight_decay"], len(group["params"])) for group in groups} == {(0.5, 2), (0.0, 4)}


def test_the_average_of_few_steps_is_near_the_weights_not_the_start() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = weight_average(layer, decay=0.999)
    nn.init.zeros_(layer.weight)
    average.update_parameters(layer)  # the start: weight 0
    nn.init.ones_(layer.weight)
    for _ in range(30):
        average.update_parameters(layer)
    assert float(average.module.weight.detach()) > 0.9


def test_the_average_counts_batches_as_whole_numbers() -> None:
    norm = nn.BatchNorm1d(2)
    average = weight_average(norm, decay=0.9)
    for _ in range(3):
        norm(torch.rand(4, 2))
        average.update_parameters(norm)
    assert int(average.module.num_batches_tracked) == 3


@pytest.mark.slow
def test_no_configuration_starts_more_loader_processes_than_there_are_cores() -> None:
    counts: list[int] = []

    def count(_step: int, _loss: float) -> bool:
        children = psutil.Process().children()
        counts.append(sum("spawn_main" in " ".join(child.cmdline()) for child in children))
        return False

    small_fit(CONFIG.model_copy(update={"loader_workers": 10_000})).run(1, count)
    assert counts[0] == available_cores()
