"""Langevin dynamics of many replicas in one tensor.

Contract: a state holds positions, velocities and forces of all replicas; `middle_step` takes it one time step on and is a pure
function of the state and the noise it is given. The scheme is LangevinMiddle (Zhang et al., J. Phys. Chem. A 123, 6056, 2019; OpenMM's
LangevinMiddleIntegrator): B (full kick), A (half drift), O (friction and noise), A (half drift), then new forces. Without friction
the steps are leapfrog, and energy is conserved to second order: the invariant that the tests use.
"""

import functools
import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class LangevinParameters:
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

    @functools.cached_property
    def kick(self) -> Tensor:
        """What a force changes velocities by in a step."""
        return self.time_step / self.masses

    @functools.cached_property
    def keep(self) -> float:
        """What friction leaves of velocities in a step."""
        return math.exp(-self.friction * self.time_step)

    @functools.cached_property
    def stir(self) -> Tensor:
        """Standard deviation of what noise adds to velocities in a step."""
        return math.sqrt(-math.expm1(-2 * self.friction * self.time_step)) * torch.sqrt(self.thermal_energy / self.masses)


def thermal_velocities(parameters: LangevinParameters, noise: Tensor) -> Tensor:
    """Maxwell–Boltzmann velocities from standard normal `noise` (replica, bead, dimension)."""
    return torch.sqrt(parameters.thermal_energy / parameters.masses) * noise


def middle_step(state: State, noise: Tensor, force: ForceFunction, parameters: LangevinParameters) -> State:
    """One step; `noise` is standard normal, (replica, bead, dimension).

    v += h F / m;  x += h/2 v;  v = c v + sqrt((1 - c^2) kT / m) noise, c = exp(-gamma h);  x += h/2 v;  F = F(x)
    """
    half = 0.5 * parameters.time_step
    v = torch.addcmul(state.velocities, parameters.kick, state.forces)
    x = torch.add(state.positions, v, alpha=half)
    v = torch.addcmul(parameters.keep * v, parameters.stir, noise)
    x = torch.add(x, v, alpha=half)
    energies, forces = force(x)
    return State(x, v, forces, energies)
