"""Langevin dynamics of many replicas in one tensor.

Contract: a state holds positions, velocities and forces of all replicas; `middle_step` takes it one time step on and is a pure
function of the state and the noise it is given. The scheme is LangevinMiddle (Zhang et al., J. Phys. Chem. A 123, 6056, 2019; OpenMM's
LangevinMiddleIntegrator): B (full kick), A (half drift), O (friction and noise), A (half drift), then new forces. Without friction
the steps are leapfrog, and energy is conserved to second order: the invariant that the tests use.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scoremd.nn.score import ForceFunction


class State(NamedTuple):
    """Positions (nm), velocities (nm/ps), forces (kJ/mol/nm), each (replica, bead, dimension), and energies (replica,) in kJ/mol."""

    positions: Tensor
    velocities: Tensor
    forces: Tensor
    energies: Tensor


class LangevinParameters(NamedTuple):
    """What fixes the dynamics.

    Attributes
    ----------
    time_step : ps
    friction : 1/ps
    thermal_energy : kT in kJ/mol
    masses : (1, bead, 1) dalton
    """

    time_step: float
    friction: float
    thermal_energy: float
    masses: Tensor


def thermal_velocities(parameters: LangevinParameters, noise: Tensor) -> Tensor:
    """Maxwell–Boltzmann velocities from standard normal `noise` (replica, bead, dimension)."""
    return torch.sqrt(parameters.thermal_energy / parameters.masses) * noise


def middle_step(state: State, noise: Tensor, force: ForceFunction, parameters: LangevinParameters) -> State:
    """One step; `noise` is standard normal, (replica, bead, dimension).

    v += h F / m;  x += h/2 v;  v = c v + sqrt((1 - c^2) kT / m) noise, c = exp(-gamma h);  x += h/2 v;  F = F(x)
    """
    h = parameters.time_step
    keep = math.exp(-parameters.friction * h)
    stir = math.sqrt(-math.expm1(-2 * parameters.friction * h))
    v = state.velocities + h / parameters.masses * state.forces
    x = state.positions + 0.5 * h * v
    v = keep * v + stir * thermal_velocities(parameters, noise)
    x = x + 0.5 * h * v
    energies, forces = force(x)
    return State(x, v, forces, energies)
