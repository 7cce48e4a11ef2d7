"""Refinement of a trained model by what it makes: its simulations and its samples of training molecules, against the data.

Where the noise is small, score matching sees stiff bonds and little of the soft landscape, whose errors a simulation then adds up to wrong
populations. What is wrong with them shows in the simulation itself. With Delta E = E_new - E_old the relative entropy of the data and the
new model (Shell, J. Chem. Phys. 129, 144108, 2008) is, up to a constant,

    S = <Delta E>_data + ln <exp(-Delta E)>_model,

the second mean over a simulation with the old model, which serves as long as the change is small (reweighting: Thaler & Zavadlav, Nat.
Commun. 12, 6884, 2021). It is convex in Delta E, least where that is ln p_model / p_data, and asks for energies alone, not for scores. At
the noise of forces that is done with simulations, in which phi and psi, where the molecule has them, are flattened
(`scoremd.flattening`): others of that length would hardly leave the basins that they begin in. Networks that sample are given the same at
several noise levels: data and samples are noised alike, and what is learned, Delta E(x, t) = ln p_samples(x, t) / p_data(x, t), turns the
score of the one into that of the other.

Only the local term's own weights are changed, a function of the torsions that all molecules share: the rest is what score matching is good
at, and what the encoder tells the term of each molecule would learn the noise of so few frames.
"""

import copy
import csv
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mdtraj
import numpy as np
import torch
from torch import Tensor

from scoremd.data import Ensemble
from scoremd.diffusion.losses import add_noise
from scoremd.diffusion.space import Space
from scoremd.equilibration import equilibrated
from scoremd.errors import ScoreMDError
from scoremd.files import claim, exclusive, make_folder, write_text
from scoremd.flattening import EQUILIBRATION, bias, flattened, flattening, simulation_settings, starting_frames
from scoremd.force_field import ForceField, check_samples
from scoremd.model_files import CONFIG, WEIGHTS
from scoremd.nn.energy import MoleculeEnergy
from scoremd.nn.molecule import MoleculeBatch
from scoremd.progress import progress
from scoremd.systems import System, ToySystem, find_system
from scoremd.training.dataset import read_ensembles
from scoremd.trajectory_files import read_trajectory, write_samples

_log = logging.getLogger("scoremd")

LOG, SETTINGS = "refinement.csv", "refinement.json"
#: Half log signal-to-noise ratios at which samples are refined: noise of 0.13 to 0.04; where there is more, samples and data are alike.
_LEVELS = (2.0, 3.3)
#: Of Adam, with one warm-up and cosine decay, by what is refined by.
_LEARNING_RATES = {"simulations": 3e-4, "samples": 1e-3}
#: Molecules of each step of the optimiser, and frames of each of them, of the data and of the model.
_MOLECULES, _FRAMES = 6, 800
_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class RefinementSettings:
    """What fixes a refinement.

    Attributes
    ----------
    samples : of each molecule
    replicas, ps : of the simulation of each molecule, which starts from frames of the data
    epochs : how often the optimiser sees all molecules
    seed : of everything
    """

    samples: int
    replicas: int
    ps: float
    epochs: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Contrast:
    """Frames of one molecule in the model's slots, scaled and centred: (frame, slot, 3).

    Attributes
    ----------
    molecule : one row
    data : reference frames
    made : frames of the model
    log_weights : (frame,) ln of what each of these counts, up to a constant
    lost : how many replicas of the simulation blew up, of which only the frames from before are in `made`
    """

    molecule: MoleculeBatch
    data: Tensor
    made: Tensor
    log_weights: Tensor
    lost: int = 0


def relative_entropy(change_of_data: Tensor, change_of_model: Tensor, log_weights: Tensor) -> Tensor:
    """S of the module's docstring, in nats, without its constant: 0 for no change, and the less the better.

    Parameters
    ----------
    change_of_data, change_of_model : (frame,) Delta E of frames of the data, and of the old model
    log_weights : (frame,) ln of what each of the latter counts, up to a constant
    """
    return change_of_data.mean() + torch.logsumexp(log_weights - change_of_model, 0) - torch.logsumexp(log_weights, 0)


def local_energy(network: MoleculeEnergy, x: Tensor, log_snr: Tensor, molecule: MoleculeBatch) -> Tensor:
    """Share of the local term in the energy, (batch,), of scaled coordinates at one noise level (1,)."""
    context = network.context(log_snr, molecule)
    assert network.torsion is not None  # as `refine` makes sure
    assert context.torsion is not None  # as the network has the term
    energy: Tensor = network.torsion(x, context.torsion)
    return context.share * energy


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
    after each epoch the network as refined so far, and by how much it has lowered the relative entropy of training molecules, during the
    epoch, and of validation molecules after it, in nats (nan without any)
    """
    new = copy.deepcopy(network)
    trained = [p.requires_grad_() for name, p in new.named_parameters() if name.startswith("torsion.")]
    optimizer = torch.optim.Adam(trained, learning_rate, betas=(0.9, 0.99))
    steps = epochs * -(-len(training) // _MOLECULES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)

    def entropy(one: Contrast, frames: int, generator: torch.Generator) -> Tensor:
        data, made = (torch.randperm(len(q), generator=generator)[:frames] for q in (one.data, one.made))
        low, high = levels
        log_snr = low + (high - low) * torch.rand(1, generator=generator)
        x = torch.cat([one.data[data], one.made[made]])
        if noised:
            x = add_noise(x, Space(one.molecule.mask(x.dtype)).noise(len(x), generator), log_snr)
        with torch.no_grad():
            before = local_energy(network, x, log_snr, one.molecule)
        change = local_energy(new, x, log_snr, one.molecule) - before
        return relative_entropy(change[: len(data)], change[len(data) :], one.log_weights[made])

    for _ in range(epochs):
        gains = []
        order = torch.randperm(len(training), generator=generator).tolist()
        for k in range(0, len(order), _MOLECULES):
            optimizer.zero_grad()
            losses = [entropy(training[j], _FRAMES, generator) for j in order[k : k + _MOLECULES]]
            torch.stack(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(trained, _GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            gains += [-float(q.detach()) for q in losses]
        with torch.no_grad():
            watched = [-float(entropy(one, len(one.made), torch.Generator().manual_seed(k))) for k, one in enumerate(validation)]
        yield copy.deepcopy(new), float(np.mean(gains)), float(np.mean(watched)) if watched else float("nan")


def refine(force_field: ForceField, data: Path, validation: Path | None, output: Path, settings: RefinementSettings) -> ForceField:
    """Refine a model and save it to `output`, beside what it was refined by: `samples`, `simulations`, `refinement.csv`.

    Of each network the epoch that was best for the molecules to watch is kept, or the network as it was if none is better; without such
    molecules the last one.

    Samples and simulations that are there are taken as they are, so that an interrupted run goes on.

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
        output cannot be written or holds a refinement with other settings, or too few frames of a simulation are left.
    """
    description = force_field.description
    system = find_system(description.systems[0], force_field.systems)
    if isinstance(system, ToySystem) or not description.torsions:
        raise ScoreMDError(f"model {description.name} has no local term of torsions that could be refined")
    simulation_settings(settings.replicas, settings.ps, 0).check()
    check_samples(settings.samples, 2)
    stages = list(_stages(force_field))
    folders = [("training", data)] + ([("validation", validation)] if validation is not None else [])
    jobs = [
        (role, member, member.beads_of(replace(ensemble, forces=None)))
        for role, folder in folders
        for member, ensemble in read_ensembles(system, folder)
    ]
    make_folder(output)
    with exclusive(output):
        text = json.dumps([force_field.hash, str(data), str(validation), asdict(settings)])
        claim(output / SETTINGS, text, "a refinement", (CONFIG, WEIGHTS))
        contrasts: dict[tuple[str, str], list[Contrast]] = {}
        with progress(f"sample and simulate {system.name}", len(jobs), "molecules") as bar:
            for k, (role, member, beads) in enumerate(jobs):
                for kind in sorted({kind for _, kind, _ in stages}):
                    one = _contrast(force_field, member, beads, output / kind, settings, settings.seed + k)
                    contrasts.setdefault((role, kind), []).append(one)
                bar.advance(1)
        refined = list(force_field.experts)
        rows: list[list[str]] = [["network", "by", "epoch", "training_nats", "validation_nats"]]
        for number, kind, levels in stages:
            rate, noised, best = _LEARNING_RATES[kind], kind == "samples", 0.0
            training, watched = contrasts["training", kind], contrasts.get(("validation", kind), [])
            networks = refine_network(
                refined[number], training, watched, levels, noised=noised, learning_rate=rate, epochs=settings.epochs, seed=settings.seed
            )
            with progress(f"refine by {kind}", settings.epochs, "epochs") as bar:
                for epoch, (network, gain, watched_gain) in enumerate(networks):
                    if not watched or watched_gain > best:
                        refined[number], best = network, watched_gain
                    rows.append([str(number), kind, str(epoch + 1), f"{gain:.5f}", f"{watched_gain:.5f}"])
                    bar.advance(1)
            if refined[number] is force_field.experts[number]:
                _log.warning("refined by %s, no epoch of network %d was better for the molecules to watch: it stays", kind, number + 1)
        simulated = contrasts["training", "simulations"]
        lost = sum(one.lost for one in simulated)
        if lost:
            _log.warning("%d of %d replicas blew up; their frames from before count", lost, len(simulated) * settings.replicas)
        facts = {"model": force_field.hash, "molecules": len(simulated), "lost_replicas": lost, **asdict(settings)}
        result = ForceField(description.model_copy(update={"trained": description.trained | {"refined": facts}}), refined)
        result.systems = force_field.systems
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        write_text(output / LOG, table.getvalue())
        result.save(output)
    return result


def _stages(force_field: ForceField) -> Iterator[tuple[int, str, tuple[float, float]]]:
    """Number of each network, by what it is refined, and the noise levels: the first by what it is there for, forces."""
    d, schedule = force_field.description, force_field.description.make_schedule()
    level = float(schedule.log_snr(torch.tensor(d.simulation_time, dtype=torch.float64)))
    yield 0, "simulations", (level, level)
    for number, times in enumerate(d.time_ranges[1:], 1):
        high, low = schedule.log_snr(torch.tensor(times, dtype=torch.float64)).tolist()
        if low < _LEVELS[1] and high > _LEVELS[0]:
            yield number, "samples", _LEVELS


def _contrast(force_field: ForceField, system: System, beads: Ensemble, folder: Path, settings: RefinementSettings, seed: int) -> Contrast:
    """The data of a molecule, and what the model makes of it: `folder` is that of samples or of simulations."""
    path, sampled = make_folder(folder) / f"{system.name}.h5", folder.name == "samples"
    bound = force_field.bind(system)

    def scaled(positions: np.ndarray) -> Tensor:
        return bound.scaled(torch.from_numpy(np.ascontiguousarray(positions, np.float32)))

    data = scaled(beads.positions)
    flat = None if sampled else flattening(force_field, system, data)
    if not path.exists() and sampled:
        drawn = force_field.sample(system, settings.samples, seed)
        write_samples(path, drawn, origin=force_field.origin_of_samples(system, settings.samples, seed))
    elif not path.exists():
        run = simulation_settings(settings.replicas, settings.ps, seed)
        if flat is None:
            simulated, chosen = force_field, np.random.default_rng(seed).integers(beads.n_frames, size=run.replicas)
        else:
            simulated, chosen = flattened(force_field, flat), starting_frames(force_field, system, data, flat, run.replicas, seed)
        simulated.simulate(
            system,
            **vars(run),
            start=mdtraj.Trajectory(beads.positions[chosen], system.topology()),
            output=path,
        )
    trajectory, replicas, lost = read_trajectory(path, system.topology())
    kept = trajectory if sampled else equilibrated(trajectory, replicas, EQUILIBRATION)[0]
    if kept.n_frames < 2:
        raise ScoreMDError(f"{path}: holds too few frames to refine by; do its replicas blow up?")
    made = scaled(kept.xyz)
    log_weights = torch.zeros(len(made)) if flat is None else bias(force_field, system, made, flat)
    return Contrast(bound.molecule, data, made, log_weights, lost or 0)
