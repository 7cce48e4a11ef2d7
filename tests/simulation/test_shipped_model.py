"""The shipped model, run by OpenMM: energy is conserved without a thermostat, and with one the temperature is right."""

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from scoremd.force_field import ForceField
from scoremd.simulation.engine import Replicas, SimulationSettings, langevin_parameters
from scoremd.units import thermal_energy

pytestmark = pytest.mark.compiled


@pytest.fixture(scope="module")
def model():
    return ForceField.load("alanine-dipeptide")


def prepared(model, integrator):
    system, _ = model.create_openmm("ALDP")
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    start = model.bind("ALDP").system.reference_ensemble().positions[1000]
    context.setPositions(start.astype(float))
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return context


def energies(context):
    state = context.getState(getEnergy=True)
    return [e.value_in_unit(unit.kilojoule_per_mole) for e in (state.getPotentialEnergy(), state.getKineticEnergy())]


def test_energy_is_conserved_and_its_error_is_of_second_order(model):
    spread = []
    for step in (0.5, 1.0):
        context = prepared(model, openmm.VerletIntegrator(step * 1e-3))
        totals = []
        for _ in range(int(200 / step)):
            context.getIntegrator().step(1)
            totals.append(sum(energies(context)))
        spread.append(np.std(totals))
        drift = np.polyfit(np.arange(len(totals)) * step * 1e-3, totals, 1)[0]  # kJ/mol/ps over 0.2 ps
        assert abs(drift) * 0.2 < 0.05 * thermal_energy(300) * 6
    assert spread[0] < 0.1 * thermal_energy(300) * 6
    assert spread[1] / spread[0] == pytest.approx(4, rel=0.5)


@pytest.mark.slow
def test_no_drift_in_twenty_picoseconds(model):
    context = prepared(model, openmm.VerletIntegrator(0.0005))
    totals = []
    for _ in range(200):
        context.getIntegrator().step(200)
        totals.append(sum(energies(context)))
    assert abs(np.mean(totals[-50:]) - np.mean(totals[:50])) < 0.1 * thermal_energy(300)


@pytest.mark.slow
def test_kinetic_temperature_under_openmms_thermostat(model):
    integrator = openmm.LangevinMiddleIntegrator(300, 1 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    context = prepared(model, integrator)
    kinetic = []
    for _ in range(12000):
        context.getIntegrator().step(20)
        kinetic.append(energies(context)[1])
    blocks = np.mean(np.reshape(kinetic, (30, 400)), 1)
    expected = 0.5 * 15 * thermal_energy(300)
    error = np.std(blocks, ddof=1) / np.sqrt(30)
    assert error < 0.025 * expected
    assert np.mean(blocks) == pytest.approx(expected, abs=4 * error)


def test_kinetic_temperature_of_the_engine(model):
    """Short enough for every run of the tests: many replicas for little time."""
    bound = model.bind("ALDP")
    start = bound.system.reference_ensemble().positions[::600]
    replicas = Replicas(bound, langevin_parameters(bound, SimulationSettings(ns=1.0, replicas=200)), bound.forces())
    replicas.start(torch.from_numpy(start.copy()), torch.Generator().manual_seed(0))
    found = []
    for k in range(40):
        replicas.advance(5)
        if k >= 10:
            found.append(0.5 * (replicas.parameters.masses * replicas.state.velocities**2).sum((1, 2)).numpy())
    per_replica = np.mean(found, 0)
    expected = 0.5 * 15 * thermal_energy(300)
    error = np.std(per_replica, ddof=1) / np.sqrt(200)
    assert error < 0.03 * expected
    assert np.mean(per_replica) == pytest.approx(expected, abs=4 * error)


def test_samples_have_the_bonds_of_the_reference(model):
    reference = model.bind("ALDP").system.reference_ensemble()
    samples = model.sample("ALDP", 200, seed=0).xyz
    lengths = [np.linalg.norm(np.diff(x, axis=1), axis=-1) for x in (samples, reference.positions)]
    error = 5 * lengths[1].std(0) / np.sqrt(200)
    assert (np.abs(lengths[0].mean(0) - lengths[1].mean(0)) < error + 2e-4).all()
    assert np.allclose(lengths[0].std(0) / lengths[1].std(0), 1, atol=0.25)


def test_engine_energy_is_consistent_with_its_forces_in_double_precision(model):
    bound = model.bind("ALDP")
    network = bound.experts[0].double()
    try:
        x = torch.from_numpy(bound.system.reference_ensemble().positions[:2].astype(float)) * model.description.length_scale
        lam = torch.tensor([6.9], dtype=torch.float64)
        x.requires_grad_()
        energy = network(x, lam, bound.molecule)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
        h = 1e-6
        for bead in range(5):
            step = torch.zeros_like(x)
            step[:, bead, 1] = h
            slope = (network(x + step, lam, bound.molecule) - network(x - step, lam, bound.molecule)) / (2 * h)
            torch.testing.assert_close(slope.detach(), gradient[:, bead, 1], rtol=1e-5, atol=1e-4)
    finally:
        network.float()
