"""The Langevin integrator: the right ensemble, detailed balance, and mechanics where there is no friction."""

import math

import numpy as np
import pytest
import torch

from scoremd.analysis.histograms import cell_index
from scoremd.simulation.langevin import LangevinParameters, State, middle_step, thermal_velocities
from scoremd.systems import load_toy
from scoremd.toys import toy_potential


def spring(constant):
    def force(x):
        return 0.5 * constant * (x**2).sum((1, 2)), -constant * x

    return force


def normal(shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def start(positions, force, parameters, generator):
    return State(positions, thermal_velocities(parameters, normal(positions.shape, generator)), *force(positions)[::-1])


def run(state, force, parameters, steps, generator):
    for _ in range(steps):
        state = middle_step(state, normal(state.positions.shape, generator), force, parameters)
    return state


def kinetic(state, parameters):
    """On-step kinetic energy: the state's velocities are half a kick behind."""
    v = state.velocities + 0.5 * parameters.time_step / parameters.masses * state.forces
    return 0.5 * (parameters.masses * v**2).sum((1, 2))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def masses(*values):
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def test_one_step_is_the_published_one(generator):
    """Written out: kick, half drift, friction and noise, half drift, new forces."""
    parameters = LangevinParameters(0.1, 2.0, 1.5, masses(1.0, 4.0))
    x, v, noise = (normal((3, 2, 3), generator) for _ in range(3))
    force = spring(2.0)
    state = middle_step(State(x, v, *force(x)[::-1]), noise, force, parameters)
    v = v - 0.1 * 2.0 * x / parameters.masses
    x = x + 0.05 * v
    v = math.exp(-0.2) * v + torch.sqrt((1 - math.exp(-0.4)) * 1.5 / parameters.masses) * noise
    x = x + 0.05 * v
    for found, expected in zip(state, (x, v, -2 * x, (x**2).sum((1, 2))), strict=True):
        torch.testing.assert_close(found, expected)


def test_equipartition_over_masses(generator):
    """m <v^2> = kT for light and heavy beads, in equilibrium."""
    parameters = LangevinParameters(0.02, 1.0, 2.5, masses(1.0, 12.0, 16.0))
    force = spring(3.0)
    state = run(
        start(torch.zeros(4000, 3, 3, dtype=torch.float64), force, parameters, generator),
        force,
        parameters,
        400,
        generator,
    )
    temperature = (parameters.masses * state.velocities**2).mean((0, 2))
    torch.testing.assert_close(temperature, torch.full_like(temperature, 2.5), rtol=5 * math.sqrt(2 / 12_000), atol=0)


@pytest.mark.parametrize("time_step", [0.05, 0.5, 1.2])
def test_harmonic_positions_have_no_error_of_the_time_step(generator, time_step):
    """<x^2> = kT / k at any stable time step (omega h < 2): the scheme's virtue."""
    parameters = LangevinParameters(time_step, 1.0, 2.5, masses(1.0))
    force = spring(1.0)
    x = math.sqrt(2.5) * normal((20_000, 1, 2), generator)
    x = run(start(x, force, parameters, generator), force, parameters, int(10 / time_step), generator).positions
    assert float((x**2).mean()) == pytest.approx(2.5, rel=5 * math.sqrt(2 / 40_000))


def test_double_well_is_sampled_from_one_side(generator):
    """Started in the left well, replicas end with the exact density over both."""
    system = load_toy("double-well")
    potential = toy_potential(system)
    parameters = LangevinParameters(0.05, system.friction, system.thermal_energy, masses(system.mass))
    n, bins = 3000, 24
    state = start(torch.full((n, 1, 1), -1.0, dtype=torch.float64), potential.force, parameters, generator)
    found = np.zeros(bins + 1)
    state = run(state, potential.force, parameters, 2000, generator)
    for _ in range(5):  # 500 steps apart: a fifth of the wells' relaxation time, so chi-squared is allowed five times its scatter
        state = run(state, potential.force, parameters, 500, generator)
        found += np.bincount(cell_index(state.positions[:, 0].numpy(), potential.box, bins), minlength=bins + 1)
    expected = 5 * n * potential.cell_probabilities(potential.box, bins)
    filled = expected > 10
    chi2 = ((found - expected)[filled] ** 2 / expected[filled]).sum()
    assert chi2 < 5 * (filled.sum() + 4 * math.sqrt(2 * filled.sum()))
    assert found[: bins // 2].sum() / found.sum() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(n))


def test_detailed_balance_between_three_wells(generator):
    """From equilibrium, as many replicas go from each well of Müller–Brown to each other as come back: p_i P_ij = p_j P_ji."""
    system = load_toy("mueller-brown")
    potential = toy_potential(system)
    parameters = LangevinParameters(system.time_step, system.friction, system.thermal_energy, masses(system.mass))

    def well(x):
        return (x[:, 0, 0] > 0.25).long() + (x[:, 0, 1] < 0.9).long()

    x = potential.sample(20_000, generator)
    before = well(x)
    after = well(run(start(x, potential.force, parameters, generator), potential.force, parameters, 150, generator).positions)
    counts = torch.bincount(3 * before + after, minlength=9).view(3, 3).double()
    assert counts.min() > 100
    scatter = (counts - counts.T).abs() / (counts + counts.T).sqrt()
    assert scatter.max() < 4.5


def test_energy_is_conserved_without_friction(generator):
    """The leapfrog's invariant: no drift over dozens of periods, and a ripple that falls with the square of the time step."""
    force = toy_potential(load_toy("double-well")).force

    def ripple(time_step, steps):
        parameters = LangevinParameters(time_step, 0.0, 1.0, masses(1.0))
        x = torch.linspace(-1.4, 1.4, 20, dtype=torch.float64)[:, None, None]
        state = State(x, torch.zeros_like(x) + 0.3, *force(x)[::-1])
        energies = []
        for _ in range(steps):
            state = middle_step(state, torch.zeros_like(x), force, parameters)
            energies.append(kinetic(state, parameters) + state.energies)
        return torch.stack(energies)

    coarse, fine = ripple(0.04, 2000), ripple(0.02, 4000)
    drift = (coarse[-500:].mean(0) - coarse[:500].mean(0)).abs().max()
    assert drift < 0.1 * coarse.std(0).max()
    ratio = coarse.std(0).mean() / fine.std(0).mean()
    assert 3.5 < ratio < 4.5


def test_motion_without_friction_is_reversible(generator):
    force = toy_potential(load_toy("mueller-brown")).force
    parameters = LangevinParameters(5e-3, 0.0, 23.0, masses(0.5))
    x = toy_potential(load_toy("mueller-brown")).sample(10, generator)
    state = start(x, force, parameters, generator)
    turned = run(state, force, parameters, 200, generator)
    # velocities are half a step off the positions: the time-reversed state has them half a kick on and turned round
    turned = turned._replace(velocities=-(turned.velocities + parameters.time_step / parameters.masses * turned.forces))
    back = run(turned, force, parameters, 200, generator)
    torch.testing.assert_close(back.positions, x, rtol=0, atol=1e-6)


def test_velocities_without_forces_forget_at_the_friction(generator):
    """<v(0) v(t)> = kT / m exp(-friction t), and the mean square displacement grows as 2 kT / (m friction) t."""
    parameters = LangevinParameters(0.05, 2.0, 1.0, masses(4.0))
    force = spring(0.0)
    state = start(torch.zeros(40_000, 1, 3, dtype=torch.float64), force, parameters, generator)
    later = run(state, force, parameters, 10, generator)
    correlation = float((state.velocities * later.velocities).mean())
    assert correlation == pytest.approx(0.25 * math.exp(-1), abs=5 * 0.25 / math.sqrt(120_000))
    t = 10.0
    x = run(later._replace(positions=0 * later.positions), force, parameters, int(t / 0.05), generator).positions
    expected = 2 * 0.25 / 2 * (t - (1 - math.exp(-2 * t)) / 2)
    assert float((x**2).mean()) == pytest.approx(expected, rel=0.03)
