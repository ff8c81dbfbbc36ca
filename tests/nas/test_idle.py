"""A setting that somebody wrote and that does nothing beside the others is said, in one line."""

from pathlib import Path

import pytest

from nas.config.presets import PRESETS
from nas.config.runs import open_run, read_source
from nas.config.write import write_config


def _notes(capfd: pytest.CaptureFixture[str], *overrides: str, source: Path | None = None) -> list[str]:
    capfd.readouterr()
    read_source(source, None if source else "demo", overrides)
    return capfd.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["fit.warm_up=0.5"], 'fit.warm_up does nothing: only fit.schedule = "one-cycle" has it'),
        (["space.fit.warm_up={low=0.1,high=0.2}"], "space.fit.warm_up does nothing: only fit.schedule = "),
        (["space.unet.fit.warm_up=[0.1]"], "space.unet.fit.warm_up does nothing: only fit.schedule = "),
        (["fit.schedule=one-cycle", "fit.cooldown=0.1"], "fit.cooldown does nothing: only fit.schedule = "),
        (["fit.schedule=one-cycle", "fit.warm_up_steps=5"], "fit.warm_up_steps does nothing: only fit.schedule = "),
        (['space.families=["unet"]', "cell_space.nodes=3"], "[cell_space] does nothing: no searched family (unet) has"),
        (['space.families=["unet"]', "cell_search.steps=3"], "[cell_search] does nothing: no searched family (unet)"),
        (['space.families=["cells"]', "cell_search.supernets.hybrid.crops=[32]"],
         "[cell_search.supernets.hybrid] does nothing: space.families leaves hybrid out"),
        (["space.sam.slices_in=[3]"], "[space.sam] does nothing: space.families leaves sam out"),
        (["data.root=/scans", "phantom.kidneys=4"], "[phantom] does nothing: the scans are in /scans"),
        (["study.leaders=0", "study.seeds=4"], "study.seeds does nothing: study.leaders is 0"),
        (["study.rungs=0", "study.reduction=4"], "study.reduction does nothing: study.rungs is 0"),
        (["study.trial_sampler=random", "study.random_trials=4"], "study.random_trials does nothing: "),
    ],
)  # fmt: skip
def test_a_setting_that_does_nothing_is_said(
    capfd: pytest.CaptureFixture[str], overrides: list[str], says: str
) -> None:
    (line,) = _notes(capfd, *overrides)
    assert line.startswith(f"nas: note: {says}")


@pytest.mark.parametrize(
    "overrides",
    [
        ["fit.warm_up=0.5", "fit.schedule=one-cycle"],
        ["fit.warm_up=0.5", 'space.fit.schedule=["one-cycle", "warmup-stable-decay"]'],
        ["fit.cooldown=0.1", 'space.families=["unet"]'],
        ["study.rungs=0", "study.leaders=0", "study.trial_sampler=random"],
        ["cell_space.nodes=3", "phantom.kidneys=4", "study.seeds=4"],
    ],
)
def test_a_setting_that_counts_is_not_remarked_on(capfd: pytest.CaptureFixture[str], overrides: list[str]) -> None:
    assert _notes(capfd, *overrides) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_holds_ready_is_not_remarked_on(capfd: pytest.CaptureFixture[str], preset: str) -> None:
    for overrides in ([], ['space.families=["unet"]'], ["data.root=/scans"]):
        capfd.readouterr()
        read_source(None, preset, overrides)
        assert capfd.readouterr().err == ""


def test_a_file_is_remarked_on_and_the_configuration_of_a_run_is_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "demo"\n[fit]\nwarm_up = 0.5\n')
    assert _notes(capfd, source=file) == ['nas: note: fit.warm_up does nothing: only fit.schedule = "one-cycle" has it']
    config, folder = open_run(file, None, tmp_path / "run", [], has_data=False)
    folder.config.write_text(write_config(config))
    assert _notes(capfd, source=folder.config) == []
