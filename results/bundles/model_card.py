"""The model card: a bundle described for people."""

from results.bundles.architecture import Architecture
from results.bundles.reading import Reading
from results.record import start_of
from results.text import escape
from search_spaces.candidate import Candidate
from trainers.data.volume import HIGH_PERCENTILE, LOW_PERCENTILE
from trainers.fit import FitConfig
from trainers.metrics.table import protocol_of


def model_card(architecture: Architecture) -> str:
    """The bundle described for people."""
    reading, fit, candidate = architecture.reading, architecture.fit, architecture.candidate
    score, inference = reading.score, reading.inference
    spacing = (
        ", ".join("x".join(f"{s:g}" for s in spacing) for spacing in architecture.voxel_spacing_um) or "not stated"
    )
    result = (
        f"On {', '.join(map(escape, architecture.provenance.held_out_volumes))}: {escape(score.text())}.\n\n"
        f"Ranked by {escape(protocol_of(score.rank_by))}. The interval shows how the score depends on which part of "
        "that kidney is scored. It does not show how kidneys differ: expect a lower score on another kidney, "
        "above all at another voxel spacing."
        if score
        else "Trained on all kidneys: there is no held-out score."
    )
    smallest = inference.smallest_component
    removed = "none are removed" if smallest is None else f"those below {smallest} voxels are removed"
    return f"""# {escape(architecture.name)}

Segments vessels in 3D kidney scans, in {_patches(architecture)}.
Found by vessel-nas {architecture.provenance.version}, study {escape(architecture.provenance.study)},
trial {architecture.provenance.trial}, seed {architecture.provenance.seed}.

## Result
{result}

## Use
`nas predict {{this folder}} VOLUME` writes a mask at threshold {reading.threshold:.3f}. Grey values are stretched
for each kidney so that its percentiles {LOW_PERCENTILE:g} and {HIGH_PERCENTILE:g} fall on 0 and 1; predict pieces
of one kidney together. Trained at a voxel spacing of {spacing} µm{_read_at(fit)}. Symmetries averaged:
{inference.symmetries}. Connected components: {removed}.{_tuned(reading)}

## Network and training
| | |
|---|---|
{_network(candidate)}
| parameters | {architecture.parameters:,} |
| encoder weights at the start | {escape(start_of(candidate))} |
| augmentation | {escape(fit.augmentation)} |
| loss | {escape(fit.loss)} |
| training | {fit.steps} steps of {fit.batch_size} crops of {fit.crop} pixels, AdamW, peak rate {fit.learning_rate:g} |
| trained on | {", ".join(map(escape, architecture.provenance.train_volumes))} |
{_teachers(architecture)}"""


def _patches(architecture: Architecture) -> str:
    """What the network sees at once, and along which axes."""
    slices, crop = architecture.candidate.slices_in, architecture.fit.crop
    shape = (
        f"boxes of {slices} x {crop} x {crop} voxels"
        if architecture.candidate.boxes
        else f"planes with {slices} neighbouring slices at once"
    )
    return f"{shape} along {', '.join('zyx'[axis] for axis in architecture.reading.inference.axes)}"


def _tuned(reading: Reading) -> str:
    """Where the reading was chosen, as a sentence that begins with a space."""
    if not reading.tuned_on:
        return ""
    where = f" Symmetries and components were chosen on {', '.join(map(escape, reading.tuned_on))}"
    if reading.score is None:
        return f"{where}."
    return f"{where}, for each half of the slabs on the other half, so the score above does not profit from the choice."


def _network(candidate: Candidate) -> str:
    """What its family says about the network, as rows of a table."""
    return "\n".join(f"| {what} | {escape(value)} |" for what, value in candidate.card().items())


def _read_at(fit: FitConfig) -> str:
    """What the recipe does with voxel sizes, to continue a sentence."""
    if fit.voxel_size_um is not None:
        return f", read at {fit.voxel_size_um:g} µm, to which every scan is resampled"
    return "" if fit.target_um is None else f", with samples made to look like scans of {fit.target_um:g} µm"


def _teachers(architecture: Architecture) -> str:
    """A row for the kidneys that makers of soft labels had seen, if there were any."""
    kidneys = sorted({kidney for teacher in architecture.provenance.teachers for kidney in teacher.kidneys})
    return f"| soft labels by networks that have seen | {', '.join(map(escape, kidneys))} |\n" if kidneys else ""
