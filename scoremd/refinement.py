"""Refinement of a trained model by what it makes, and by how its networks agree.

What is wrong with samples shows beside the data. With Delta E = E_new - E_old the relative entropy of the data and the new model (Shell,
J. Chem. Phys. 129, 144108, 2008) is, up to a constant,

    S = <Delta E>_data + ln <exp(-Delta E)>_samples,

which serves as long as the change is small (reweighting: Thaler & Zavadlav, Nat. Commun. 12, 6884, 2021). Networks that sample are given
it at several noise levels: data and samples are noised alike, and what is learned, Delta E(x, t) = ln p_samples(x, t) / p_data(x, t), turns
the score of the one into that of the other.

Where the noise is small, score matching sees stiff bonds and little of the soft landscape, whose errors a simulation then adds up to wrong
populations. What is wrong with the forces' energy E shows beside the likelihood p of the model's probability flow, with the sampling
networks as refined: for frames of the data ln r = -E - ln p would be a constant if both agreed. The log-variance divergence (Richter et
al., arXiv 2010.10436),

    S = 1/2 variance of (ln r - Delta E),

is least where that is so, and is close to the relative entropy of the two where they nearly agree. It needs no simulation: an error in how
basins weigh is there in every frame, however long a simulation would take to show it.

Both ask for energies alone, not for scores.

Only the local term's own weights are changed, a function of the torsions that all molecules share: the rest is what score matching is good
at, and what the encoder tells the term of each molecule would learn the noise of so few frames.
"""

import copy
import csv
import io
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mdtraj
import numpy as np
import torch
from torch import Tensor

from scoremd.data import Ensemble
from scoremd.diffusion.losses import add_noise
from scoremd.diffusion.space import Space
from scoremd.errors import ScoreMDError
from scoremd.files import claim, exclusive, make_folder, write_text
from scoremd.force_field import ForceField
from scoremd.model_files import CONFIG, WEIGHTS
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.molecule import MoleculeBatch
from scoremd.progress import progress
from scoremd.systems import System, ToySystem, find_system
from scoremd.training.dataset import read_ensembles
from scoremd.trajectory_files import read_column, read_trajectory, write_samples

_log = logging.getLogger("scoremd")

LOG, SETTINGS = "refinement.csv", "refinement.json"
#: What networks are refined by, and the folders of it.
SAMPLES, LIKELIHOODS = "samples", "likelihoods"
_LOG_RATIO = "log_ratio"
#: Half log signal-to-noise ratios at which samples are refined: noise of 0.13 to 0.04; where there is more, samples and data are alike.
_LEVELS = (2.0, 3.3)
#: Of Adam, with one warm-up and cosine decay.
_LEARNING_RATE = 1e-3
#: Nats by which ln r counts as different from its median at most: further off are single frames that the flow itself has wrong.
_LARGEST = 3.0
#: Molecules of each step of the optimiser, and frames of each of them, of the data and of the model.
_MOLECULES, _FRAMES = 6, 800
_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class RefinementSettings:
    """What fixes a refinement.

    Attributes
    ----------
    frames : of the data of each molecule, whose likelihood is asked for
    samples : of each molecule; 0 leaves networks that sample as they are
    epochs : how often the optimiser sees all molecules
    seed : of everything
    """

    frames: int
    samples: int
    epochs: int = 5
    seed: int = 0

    def check(self) -> None:
        """Refuse numbers that make no sense, by a ScoreMDError."""
        if self.frames < 2:
            raise ScoreMDError(f"the number of frames must be at least 2, not {self.frames}")
        if self.samples < 0 or self.samples == 1:
            raise ScoreMDError(f"the number of samples must be 0 or at least 2, not {self.samples}")


#: Delta E (frame,) of coordinates
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SampleContrast:
    """Frames of one molecule in the model's slots, scaled and centred, (frame, slot, 3): what data have and samples should.

    Attributes
    ----------
    molecule : one row
    data : reference frames
    made : samples of the model
    """

    molecule: MoleculeBatch
    data: Tensor
    made: Tensor

    def divergence(self, change: Change, frames: int | None, generator: torch.Generator) -> Tensor:
        """The first S of the module's docstring, by so many frames of each side, None for all, chosen by `generator`."""
        data, made = (q[torch.randperm(len(q), generator=generator)[:frames]] for q in (self.data, self.made))
        of_data, of_model = change(torch.cat([data, made])).tensor_split([len(data)])
        return relative_entropy(of_data, of_model)


@dataclass(frozen=True)
class LikelihoodContrast:
    """Frames of the data of one molecule, as in `SampleContrast`, of which the model itself knows the likelihood.

    Attributes
    ----------
    molecule : one row
    data : reference frames
    log_ratio : (frame,) ln r, up to a constant
    """

    molecule: MoleculeBatch
    data: Tensor
    log_ratio: Tensor

    def divergence(self, change: Change, frames: int | None, generator: torch.Generator) -> Tensor:
        """The second S of the module's docstring, less that of no change; arguments as in `SampleContrast`."""
        chosen = torch.randperm(len(self.data), generator=generator)[:frames]
        before = self.log_ratio[chosen]
        return 0.5 * ((before - change(self.data[chosen])).var() - before.var())


Contrast = SampleContrast | LikelihoodContrast


def relative_entropy(change_of_data: Tensor, change_of_model: Tensor) -> Tensor:
    """The first S of the module's docstring, in nats, without its constant: 0 for no change, and the less the better.

    Parameters
    ----------
    change_of_data, change_of_model : (frame,) Delta E of frames of the data, and of the old model
    """
    return change_of_data.mean() + torch.logsumexp(-change_of_model, 0) - float(np.log(len(change_of_model)))


def local_energy(network: MoleculeEnergy, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
    """Share of the local term in the energy, (batch,), of scaled coordinates at one noise level (1,)."""
    context = network.context(log_snr, molecule)
    assert network.torsion is not None  # as `refine` makes sure
    assert context.torsion is not None  # as the network has the term
    return context.share * network.torsion(x, context.torsion)


def refine_network(
    network: MoleculeEnergy,
    training: Sequence[Contrast],
    validation: Sequence[Contrast],
    levels: tuple[float, float],
    *,
    noised: bool,
    epochs: int,
    seed: int,
) -> Iterator[tuple[MoleculeEnergy, float, float]]:
    """Refine the local term of a network.

    Parameters
    ----------
    network : left as it is
    training, validation : molecules to learn from, and to watch
    levels : range of half log signal-to-noise ratios, drawn evenly
    noised : add the noise of the level; without, frames are taken as they are
    epochs, seed : of the optimiser

    Yields
    ------
    after each epoch the network as refined so far, and by how much it has lowered the divergence of training molecules, during the
    epoch, and of validation molecules after it, in nats (nan without any)
    """
    new = copy.deepcopy(network)
    trained = [p.requires_grad_() for name, p in new.named_parameters() if name.startswith("torsion.")]
    optimizer = torch.optim.Adam(trained, _LEARNING_RATE, betas=(0.9, 0.99))
    steps = epochs * -(-len(training) // _MOLECULES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps + 1, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)

    def divergence(one: Contrast, frames: int | None, generator: torch.Generator) -> Tensor:
        low, high = levels
        log_snr = low + (high - low) * torch.rand(1, generator=generator)

        def change(x: Tensor) -> Tensor:
            if noised:
                x = add_noise(x, Space(one.molecule.mask(x.dtype)).noise(len(x), generator), log_snr)
            with torch.no_grad():
                before = local_energy(network, x, log_snr, one.molecule)
            return local_energy(new, x, log_snr, one.molecule) - before

        return one.divergence(change, frames, generator)

    for _ in range(epochs):
        gains = []
        order = torch.randperm(len(training), generator=generator).tolist()
        for k in range(0, len(order), _MOLECULES):
            optimizer.zero_grad()
            losses = [divergence(training[j], _FRAMES, generator) for j in order[k : k + _MOLECULES]]
            torch.stack(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(trained, _GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            gains += [-float(q.detach()) for q in losses]
        with torch.no_grad():
            watched = [-float(divergence(one, None, torch.Generator().manual_seed(k))) for k, one in enumerate(validation)]
        yield copy.deepcopy(new), float(np.mean(gains)), float(np.mean(watched)) if watched else float("nan")


def refine(force_field: ForceField, data: Path, validation: Path | None, output: Path, settings: RefinementSettings) -> ForceField:
    """Refine a model and save it to `output`, beside what it was refined by: `samples`, `likelihoods`, `refinement.csv`.

    First the networks that sample, then by what they have become the one that gives the forces. Of each the epoch that was best for the
    molecules to watch is kept, the network as it was if none is better; without such molecules the last one.

    Samples and likelihoods that are there are taken as they are, so that an interrupted run goes on.

    Parameters
    ----------
    force_field : the model, left as it is
    data : ensemble of the model's molecule, or folder of ensembles of members of its family, as for training
    validation : the same of molecules to watch, or None
    output : folder, made if need be
    settings : of the run

    Raises
    ------
    ScoreMDError
        If the model has no local term or is of no molecule, a file cannot be read, has one frame or is of another molecule, the output
        cannot be written or holds a refinement with other settings, or a number makes no sense.
    """
    description = force_field.description
    system = find_system(description.systems[0])
    if isinstance(system, ToySystem) or not description.torsions:
        raise ScoreMDError(f"model {description.name} has no local term of torsions that could be refined")
    settings.check()
    roles = {"training": list(read_ensembles(system, data)), "validation": []}
    if validation is not None:
        roles["validation"] = list(read_ensembles(system, validation))
    for member, ensemble in itertools.chain(*roles.values()):
        if ensemble.n_frames < 2:
            raise ScoreMDError(f"the data of {member.name} have {ensemble.n_frames} frame; at least two are needed")
    make_folder(output)
    rows: list[list[str]] = [["network", "by", "epoch", "training_nats", "validation_nats"]]
    with exclusive(output):
        text = json.dumps([force_field.hash, str(data), str(validation), asdict(settings)])
        claim(output / SETTINGS, text, "a refinement", (CONFIG, WEIGHTS))
        refined = force_field
        for kind, numbers, levels in _stages(force_field, settings):
            folder = make_folder(output / kind)
            contrasts = _contrasts(refined, kind, roles, folder, settings)
            experts = list(refined.experts)
            for number in numbers:
                experts[number], gains = _best(experts[number], contrasts, levels, f"refine by {kind}", settings, noised=kind == SAMPLES)
                rows += [[str(number), kind, str(k), f"{a:.5f}", f"{b:.5f}"] for k, (a, b) in enumerate(gains, 1)]
            refined = ForceField(description, experts)
        facts = {"model": force_field.hash, "molecules": len(roles["training"]), **asdict(settings)}
        result = ForceField(description.model_copy(update={"trained": description.trained | {"refined": facts}}), refined.experts)
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        write_text(output / LOG, table.getvalue())
        result.save(output)
    return result


def _stages(force_field: ForceField, settings: RefinementSettings) -> Iterator[tuple[str, list[int], tuple[float, float]]]:
    """What is refined by, the numbers of the networks, and the noise levels."""
    d, schedule = force_field.description, force_field.description.make_schedule()

    def levels(times: tuple[float, ...]) -> list[float]:
        return [float(q) for q in schedule.log_snr(torch.tensor(times, dtype=torch.float64))]

    ends = {number: levels(times) for number, times in enumerate(d.time_ranges) if number}
    sampling = [number for number, (high, low) in ends.items() if low < _LEVELS[1] and high > _LEVELS[0]]
    if sampling and settings.samples:
        yield SAMPLES, sampling, _LEVELS
    (level,) = levels((d.simulation_time,))
    yield LIKELIHOODS, [0], (level, level)


def _best(
    network: MoleculeEnergy,
    contrasts: dict[str, list[Contrast]],
    levels: tuple[float, float],
    title: str,
    settings: RefinementSettings,
    *,
    noised: bool,
) -> tuple[MoleculeEnergy, list[tuple[float, float]]]:
    """The network after the epoch that is kept, and what each epoch has gained, in training and validation."""
    watched = contrasts["validation"]
    kept, best, gains = network, 0.0, []
    epochs = refine_network(network, contrasts["training"], watched, levels, noised=noised, epochs=settings.epochs, seed=settings.seed)
    with progress(title, settings.epochs, "epochs") as bar:
        for new, gain, watched_gain in epochs:
            if not watched or watched_gain > best:
                kept, best = new, watched_gain
            gains.append((gain, watched_gain))
            bar.advance(1)
    if kept is network:
        _log.warning("%s: no epoch was better for the validation molecules; the network stays as it was", title)
    return kept, gains


def _contrasts(
    force_field: ForceField,
    kind: str,
    roles: dict[str, list[tuple[System, Ensemble]]],
    folder: Path,
    settings: RefinementSettings,
) -> dict[str, list[Contrast]]:
    """What each molecule's data and the model make of each other; what is in the folder is read, the rest made."""
    make = _sample_contrast if kind == SAMPLES else _likelihood_contrast
    found: dict[str, list[Contrast]] = {role: [] for role in roles}
    seeds = itertools.count(settings.seed)
    with progress(kind, sum(map(len, roles.values())), "molecules") as bar:
        for role, molecules in roles.items():
            for system, ensemble in molecules:
                data = mdtraj.Trajectory(system.beads_of(ensemble).positions, system.topology())
                found[role].append(make(force_field, system, data, folder / f"{system.name}.h5", settings, next(seeds)))
                bar.advance(1)
    return found


def _sample_contrast(
    force_field: ForceField, system: System, data: mdtraj.Trajectory, path: Path, settings: RefinementSettings, seed: int
) -> SampleContrast:
    if not path.exists():
        write_samples(path, force_field.sample(system, settings.samples, seed))
    model, made = force_field.bind(system), read_trajectory(path, system.topology()).trajectory
    return SampleContrast(model.molecule, model.scaled(_positions(data)), model.scaled(_positions(made)))


def _likelihood_contrast(
    force_field: ForceField, system: System, data: mdtraj.Trajectory, path: Path, settings: RefinementSettings, seed: int
) -> LikelihoodContrast:
    if not path.exists():
        chosen = np.random.default_rng(seed).permutation(data.n_frames)[: settings.frames]
        known = force_field.weigh(system, data[np.sort(chosen)], seed)
        write_samples(path, known.trajectory, {_LOG_RATIO: known.log_ratio})
    model, frames = force_field.bind(system), read_trajectory(path, system.topology()).trajectory
    log_ratio = torch.from_numpy(read_column(path, _LOG_RATIO)).float()
    return LikelihoodContrast(model.molecule, model.scaled(_positions(frames)), (log_ratio - log_ratio.median()).clamp(-_LARGEST, _LARGEST))


def _positions(frames: mdtraj.Trajectory) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames.xyz, np.float32))
