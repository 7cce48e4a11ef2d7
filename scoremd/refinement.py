"""Refinement of a trained model by what it makes, and by how its networks agree.

Where the noise is small, score matching sees stiff bonds and little of the soft landscape, whose errors a simulation then adds up to wrong
populations. What is wrong with the forces' energy E shows beside the likelihood p of the probability flow, which the populations of samples
come from: for frames of the data ln w = -E - ln p would be a constant if both agreed. With Delta E = E_new - E_old the log-variance
divergence (Richter et al., arXiv 2010.10436),

    S = 1/2 variance of (ln w - Delta E),

is least where that is so, and is close to the relative entropy of the two where they are. It asks for energies alone, not for scores, and
needs no simulation: an error in how basins weigh, which simulations would take nanoseconds to show, is there in every frame.

What is wrong with samples shows beside the data. The relative entropy of the data and the new model (Shell, J. Chem. Phys. 129, 144108,
2008) is, up to a constant,

    S = <Delta E>_data + ln <exp(-Delta E)>_samples,

which serves as long as the change is small (reweighting: Thaler & Zavadlav, Nat. Commun. 12, 6884, 2021). Networks that sample are given
it at several noise levels: data and samples are noised alike, and what is learned, Delta E(x, t) = ln p_samples(x, t) / p_data(x, t), turns
the score of the one into that of the other.

Only the local term's own weights are changed, a function of the torsions that all molecules share: the rest is what score matching is good
at, and what the encoder tells the term of each molecule would learn the noise of so few frames.
"""

import copy
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
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
from scoremd.trajectory_files import read_trajectory, write_samples

LOG, SETTINGS = "refinement.csv", "refinement.json"
#: Half log signal-to-noise ratios at which samples are refined: noise of 0.13 to 0.04; where there is more, samples and data are alike.
_LEVELS = (2.0, 3.3)
#: Of Adam, with one warm-up and cosine decay, by what is refined by.
_LEARNING_RATES = {"likelihoods": 1e-3, "samples": 1e-3}
#: Nats by which ln w differs from its median at most: further off are single frames that the flow itself has wrong.
_LARGEST = 3.0
#: Molecules of each step of the optimiser, and frames of each of them, of the data and of the model.
_MOLECULES, _FRAMES = 6, 800
_ALL = 10**9
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


@dataclass(frozen=True)
class Contrast:
    """Frames of one molecule in the model's slots, scaled and centred, (frame, slot, 3), that tell what is wrong with a network.

    Attributes
    ----------
    molecule : one row
    data : reference frames
    made : samples of the model, or None
    log_weights : (frame,) ln w of `data`, up to a constant, where there are no samples
    """

    molecule: MoleculeBatch
    data: Tensor
    made: Tensor | None
    log_weights: Tensor

    def divergence(self, change: Callable[[Tensor], Tensor], frames: int, generator: torch.Generator) -> Tensor:
        """S of the module's docstring, less that of no change, by at most so many frames of the data and of the samples.

        Parameters
        ----------
        change : Delta E (frame,) of coordinates
        frames, generator : how many, and by what they are chosen
        """
        chosen = torch.randperm(len(self.data), generator=generator)[:frames]
        if self.made is None:
            before = self.log_weights[chosen]
            return 0.5 * ((before - change(self.data[chosen])).var() - before.var())
        made = self.made[torch.randperm(len(self.made), generator=generator)[:frames]]
        of_data, of_model = change(torch.cat([self.data[chosen], made])).tensor_split([len(chosen)])
        return relative_entropy(of_data, of_model)


def relative_entropy(change_of_data: Tensor, change_of_model: Tensor) -> Tensor:
    """The second S of the module's docstring, in nats, without its constant: 0 for no change, and the less the better.

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
    learning_rate: float,
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
    learning_rate, epochs, seed : of the optimiser

    Yields
    ------
    after each epoch the network as refined so far, and by how much it has lowered the divergence of training molecules, during the
    epoch, and of validation molecules after it, in nats (nan without any)
    """
    new = copy.deepcopy(network)
    trained = [p.requires_grad_() for name, p in new.named_parameters() if name.startswith("torsion.")]
    optimizer = torch.optim.Adam(trained, learning_rate, betas=(0.9, 0.99))
    steps = epochs * -(-len(training) // _MOLECULES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)

    def divergence(one: Contrast, frames: int, generator: torch.Generator) -> Tensor:
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
            watched = [-float(divergence(one, _ALL, torch.Generator().manual_seed(k))) for k, one in enumerate(validation)]
        yield copy.deepcopy(new), float(np.mean(gains)), float(np.mean(watched)) if watched else float("nan")


def refine(force_field: ForceField, data: Path, validation: Path | None, output: Path, settings: RefinementSettings) -> ForceField:
    """Refine a model and save it to `output`, beside what it was refined by: `likelihoods`, `samples`, `refinement.csv`.

    Of each network the epoch that was best for the molecules to watch is kept; the last one without such.

    Likelihoods and samples that are there are taken as they are, so that an interrupted run goes on.

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
        If the model has no local term or is of no molecule, a file cannot be read or is of a molecule that the model does not cover, the
        output cannot be written or holds a refinement with other settings, or a number makes no sense.
    """
    description = force_field.description
    system = find_system(description.systems[0])
    if isinstance(system, ToySystem) or not description.torsions:
        raise ScoreMDError(f"model {description.name} has no local term of torsions that could be refined")
    settings.check()
    stages = [stage for stage in _stages(force_field) if stage[1] == "likelihoods" or settings.samples > 0]
    jobs = [("training", one) for one in read_ensembles(system, data)]
    jobs += [("validation", one) for one in read_ensembles(system, validation)] if validation is not None else []
    make_folder(output)
    with exclusive(output):
        text = json.dumps([force_field.hash, str(data), str(validation), asdict(settings)])
        claim(output / SETTINGS, text, "a refinement", (CONFIG, WEIGHTS))
        contrasts: dict[tuple[str, str], list[Contrast]] = {}
        with progress(f"likelihoods and samples of {system.name}", len(jobs), "molecules") as bar:
            for k, (role, (member, ensemble)) in enumerate(jobs):
                for kind in sorted({kind for _, kind, _ in stages}):
                    one = _contrast(force_field, member, ensemble, output / kind, settings, settings.seed + k)
                    contrasts.setdefault((role, kind), []).append(one)
                bar.advance(1)
        refined = list(force_field.experts)
        rows: list[list[str]] = [["network", "by", "epoch", "training_nats", "validation_nats"]]
        for number, kind, levels in stages:
            rate, noised, kept = _LEARNING_RATES[kind], kind == "samples", -math.inf
            training, watched = contrasts["training", kind], contrasts.get(("validation", kind), [])
            networks = refine_network(
                refined[number], training, watched, levels, noised=noised, learning_rate=rate, epochs=settings.epochs, seed=settings.seed
            )
            with progress(f"refine by {kind}", settings.epochs, "epochs") as bar:
                for epoch, (network, gain, watched_gain) in enumerate(networks):
                    # without molecules to watch it is not a number, and the last network is kept
                    if not watched_gain <= kept:
                        refined[number], kept = network, watched_gain
                    rows.append([str(number), kind, str(epoch + 1), f"{gain:.5f}", f"{watched_gain:.5f}"])
                    bar.advance(1)
        molecules = len(contrasts["training", "likelihoods"])
        facts = {"model": force_field.hash, "molecules": molecules, **asdict(settings)}
        result = ForceField(description.model_copy(update={"trained": description.trained | {"refined": facts}}), refined)
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        write_text(output / LOG, table.getvalue())
        result.save(output)
    return result


def _stages(force_field: ForceField) -> Iterator[tuple[int, str, tuple[float, float]]]:
    """Number of each network, by what it is refined, and the noise levels: the first by what it is there for, forces."""
    d, schedule = force_field.description, force_field.description.make_schedule()
    level = float(schedule.log_snr(torch.tensor(d.simulation_time, dtype=torch.float64)))
    yield 0, "likelihoods", (level, level)
    for number, times in enumerate(d.time_ranges[1:], 1):
        high, low = schedule.log_snr(torch.tensor(times, dtype=torch.float64)).tolist()
        if low < _LEVELS[1] and high > _LEVELS[0]:
            yield number, "samples", _LEVELS


def _contrast(
    force_field: ForceField, system: System, ensemble: Ensemble, folder: Path, settings: RefinementSettings, seed: int
) -> Contrast:
    """The data of a molecule, and what the model says of it or makes of it: `folder` is that of likelihoods or of samples."""
    beads, path = system.beads_of(ensemble), make_folder(folder) / f"{system.name}.h5"
    data, sampled = mdtraj.Trajectory(beads.positions, system.topology()), folder.name == "samples"
    if not path.exists():
        if sampled:
            made, columns = force_field.sample(system, settings.samples, seed), {}
        else:
            chosen = np.random.default_rng(seed).permutation(beads.n_frames)[: settings.frames]
            made = data[np.sort(chosen)]
            columns = {"log_weight": force_field.weigh(system, made, seed).log_weights}
        write_samples(path, made, columns)
    made = read_trajectory(path, system.topology()).trajectory
    d = force_field.description
    bound, norm = force_field.bind(system), d.make_schedule().norm(torch.tensor(d.simulation_time, dtype=torch.float64))

    def scaled(frames: mdtraj.Trajectory) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frames.xyz, np.float32))
        return bound.space.project(bound.to_slots(x * (d.length_scale / float(norm))))

    if sampled:
        return Contrast(bound.molecule, scaled(data), scaled(made), torch.zeros(0))
    with h5py.File(path) as file:
        log_weights = torch.from_numpy(file["log_weight"][:]).float()
    return Contrast(bound.molecule, scaled(made), None, (log_weights - log_weights.median()).clamp(-_LARGEST, _LARGEST))
