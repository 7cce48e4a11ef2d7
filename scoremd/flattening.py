"""Flattened torsions: simulations that cross within picoseconds what separates basins, and the weights that undo it.

Where forces weigh basins wrongly, a simulation drifts towards their populations at the pace at which it crosses barriers, a hundred
picoseconds and more; what it shows meanwhile is where it began. Umbrella sampling (Torrie & Valleau, J. Comput. Phys. 23, 187, 1977) does
not wait: most of the free energy of each torsion, as the data have it, is taken from the energy, and frames count by exp(bias / kT).

The free energy of a torsion is taken to be the logarithm of the distribution of largest entropy whose cosines and sines have the means of
the data (Jaynes, Phys. Rev. 106, 620, 1957): a Fourier series as long as that which the local term sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremd.collective_variables import has_phi_psi
from scoremd.description import ModelDescription
from scoremd.equilibration import equilibrated
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.nn.torsion import FOURIER_ORDER
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import System

#: Share of the free energy that is taken away: with all of it, what is rare would be most of what is simulated.
_SHARE = 0.8
#: Share of the data that is taken to be spread evenly: it bounds the free energy where there are none.
_SPREAD = 0.03
#: Of flattened simulations: the time step in fs, for only torsions are learned from them, so that it may be larger than bonds would like;
#: ps between frames; and the share of their time that is dropped, for they begin where basins need not have the weights of the forces.
TIME_STEP_FS, FRAME_INTERVAL_PS, EQUILIBRATION = 4.0, 0.2, 0.25
_ANGLES = 720
_BIAS = "torsion.bias"


def phi_psi_torsions(description: ModelDescription, system: System) -> list[tuple[int, int]]:
    """Group, and number in it, of a molecule's phi and psi among the torsions of a model; none if it does not see them."""
    if not has_phi_psi(system):
        return []
    slots = description.slots_of(system)
    wanted = [tuple(slots[bead] for bead in system.collective_variables[name]) for name in ("phi", "psi")]
    return [(g, k) for g, group in enumerate(description.torsions) for k, torsion in enumerate(group) if torsion in wanted]


def flattening(force_field: ForceField, system: System, x: Tensor) -> Tensor | None:
    """What flattens phi and psi of a molecule.

    Parameters
    ----------
    force_field : whose first network has a local term
    system : the molecule
    x : (frame, slot, 3) its data, scaled (`BoundModel.scaled`)

    Returns
    -------
    (group, series) coefficients of the local term's series, in kT, or None if the term does not see the phi and psi of the molecule
    """
    chosen = phi_psi_torsions(force_field.description, system)
    if not chosen:
        return None
    means = series_of_forces(force_field, system, x)[0].double().mean(0)
    coefficients = torch.zeros(means.shape)
    n = 2 * FOURIER_ORDER
    for group, torsion in chosen:
        part = slice(torsion * n, torsion * n + n)
        coefficients[group, part] = _SHARE * log_density_of_largest_entropy((1 - _SPREAD) * means[group, part])
    # the last digits of sums depend on where in the memory their terms are, and simulations on the last digits of forces
    return coefficients.round(decimals=3)


def flattened(force_field: ForceField, coefficients: Tensor) -> ForceField:
    """The model whose energy has the bias added to it: its first network alone, at all times, for simulations.

    Parameters
    ----------
    force_field : left as it is
    coefficients : as of `flattening`
    """
    name = f"{force_field.description.name} with flattened torsions"
    return with_bias(force_field, coefficients, name=name, time_ranges=((0.0, 1.0),))


def with_bias(force_field: ForceField, coefficients: Tensor, **changes: Any) -> ForceField:
    """The model with more of a bias of the torsions of its first network.

    Parameters
    ----------
    force_field : left as it is
    coefficients : (group, series) as of `flattening`
    changes : of its description; networks for whose times it then has no range are left out
    """
    d = force_field.description
    d = d.model_copy(update=changes | {"network": d.network.model_copy(update={"torsion_bias": True})})
    networks = []
    for k, network in enumerate(force_field.experts[: len(d.time_ranges)]):
        weights, biased = network.state_dict(), d.make_network()
        there = weights.get(_BIAS, torch.zeros_like(coefficients))
        biased.load_state_dict(weights | {_BIAS: there + coefficients if k == 0 else there})
        networks.append(biased)
    result = ForceField(d, networks)
    result.systems = force_field.systems
    return result


@dataclass(frozen=True)
class FlattenedRun:
    """A simulation with a bias, less its beginning.

    Attributes
    ----------
    trajectory, replica : its frames, and the replica of each
    x : (frame, slot, 3) the frames, scaled
    coefficients : of the bias
    log_weights : (frame,) ln of what each frame counts without it, up to a constant
    lost : number of replicas that blew up, of which only the frames from before are there
    """

    trajectory: mdtraj.Trajectory
    replica: NDArray[np.int64]
    x: Tensor
    coefficients: Tensor
    log_weights: Tensor
    lost: int


def simulation_settings(replicas: int, ps: float, seed: int) -> SimulationSettings:
    """Settings of a flattened simulation; `ps` is the length of each replica."""
    return SimulationSettings(ps * 1e-3, replicas, seed, TIME_STEP_FS, frame_interval_ps=FRAME_INTERVAL_PS)


def simulate_flattened(force_field: ForceField, system: System, data: mdtraj.Trajectory, settings: SimulationSettings) -> FlattenedRun:
    """Simulate a molecule whose phi and psi the local term sees with these flattened.

    Parameters
    ----------
    force_field, system : the model and the molecule
    data : frames to flatten by, and to begin with
    settings : of the run

    Raises
    ------
    ScoreMDError
        As `ForceField.simulate`, and if too few frames are left.
    """
    bound = force_field.bind(system)
    x = bound.scaled(torch.from_numpy(data.xyz))
    coefficients = flattening(force_field, system, x)
    assert coefficients is not None  # as the term sees phi and psi
    start = data[starting_frames(force_field, system, x, coefficients, settings.replicas, settings.seed)]
    run = flattened(force_field, coefficients).simulate(system, **vars(settings), start=start)
    kept, replica = equilibrated(run.trajectory, run.replica, EQUILIBRATION)
    assert replica is not None  # as the run has replicas
    if kept.n_frames < 2:
        raise ScoreMDError(f"too few frames of a simulation of {system.name} are left: its replicas blow up")
    made = bound.scaled(torch.from_numpy(np.ascontiguousarray(kept.xyz)))
    return FlattenedRun(kept, replica, made, coefficients, bias(force_field, system, made, coefficients), len(run.lost))


def bias(force_field: ForceField, system: System, x: Tensor, coefficients: Tensor) -> Tensor:
    """Energy that `flattened` adds, (frame,) in kT: the logarithm, up to a constant, of what its frames weigh in the ensemble without it.

    Parameters
    ----------
    force_field : without the bias
    system : the molecule
    x : (frame, slot, 3) scaled
    coefficients : as of `flattening`
    """
    series, share = series_of_forces(force_field, system, x)
    return share * (series * coefficients).sum((1, 2))


def series_of_forces(force_field: ForceField, system: System, x: Tensor) -> tuple[Tensor, Tensor]:
    """The local term's series, (frame, group, series), and its share in the energy, (1,), where forces are taken.

    Parameters
    ----------
    force_field, system, x : as of `bias`
    """
    bound, network = force_field.bind(system), force_field.experts[0]
    context = network.context(bound.level_of_forces, bound.molecule)
    term, given = network.torsion, context.torsion
    assert term is not None  # as the model has torsions
    assert given is not None  # for that reason
    cosine, sine = term.cosine_sine(x, given.softness)
    series = term.series(cosine, sine, given)
    if term.achiral:  # as the term's energy is
        series = 0.5 * (series + term.series(cosine, -sine, given))
    return series, context.share


def starting_frames(force_field: ForceField, system: System, x: Tensor, coefficients: Tensor, n: int, seed: int) -> NDArray[np.int64]:
    """Numbers (n,) of frames of the data for a simulation with the bias to begin with: spread as it would be if the model were right.

    Parameters
    ----------
    force_field, system, x, coefficients : as of `bias`
    n : how many
    seed : of the draws
    """
    chances = torch.softmax(-bias(force_field, system, x, coefficients).double(), 0).numpy()
    return np.random.default_rng(seed).choice(len(x), n, p=chances)


def log_density_of_largest_entropy(means: Tensor) -> Tensor:
    """Coefficients, in the order of `means`, of the logarithm of the density of an angle.

    Parameters
    ----------
    means : (2 n,) of cos, sin, cos 2, sin 2, ... of the angle
    """
    angles = torch.arange(_ANGLES, dtype=torch.float64) * (2 * torch.pi / _ANGLES)
    series = torch.stack([f(k * angles) for k in range(1, len(means) // 2 + 1) for f in (torch.cos, torch.sin)], 1)
    # its gradient is the difference of the means
    return least(lambda c: torch.logsumexp(series @ c, 0) - means.double() @ c, len(means)).to(means.dtype)


def least(function: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """Where a convex function of (n,) numbers in double precision is least; searched from zero."""
    c = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([c], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        optimizer.zero_grad()
        found = function(c)
        found.backward()
        return found

    optimizer.step(value)
    return c.detach()
