"""Does the engine sample its ensemble, with the shipped models? By physical_validation (Merz & Shirts, PLOS ONE 13, e0202764)."""

import mdtraj
import numpy as np
import pytest
import torch

from scoremd.analysis.intervals import average
from scoremd.collective_variables import phi_psi
from scoremd.force_field import ForceField
from scoremd.simulation.engine import Replicas, SimulationSettings, langevin_parameters
from scoremd.simulation.langevin import LangevinParameters
from scoremd.units import thermal_energy

physical_validation = pytest.importorskip("physical_validation")
made = pytest.importorskip("physical_validation.data")

pytestmark = [pytest.mark.slow, pytest.mark.compiled]

SHIPPED = [("alanine-dipeptide", "ALDP"), ("dipeptides", "KS")]
REPLICAS, BEFORE, FRAMES, APART = 200, 2.0, 60, 0.25


@pytest.fixture(scope="module")
def model():
    return ForceField.load("alanine-dipeptide")


def run(model, temperature=300.0, time_step=2.0, seed=0, frames=FRAMES, apart=APART, name="ALDP"):
    """Potential and kinetic energy in kJ/mol and positions in nm of replicas at times `apart` ps, (replica, frame, ...)."""
    bound = model.bind(name)
    own = langevin_parameters(bound, SimulationSettings(ns=1.0, replicas=REPLICAS, time_step_fs=time_step))
    parameters = LangevinParameters(own.time_step, own.friction, thermal_energy(temperature), own.masses)
    replicas = Replicas(bound, parameters, bound.forces())
    start = torch.from_numpy(model.sample(name, REPLICAS, seed=seed).xyz)
    replicas.start(start, torch.Generator().manual_seed(seed))
    replicas.advance(round(BEFORE / own.time_step))
    found = []
    for _ in range(frames):
        replicas.advance(round(apart / own.time_step))
        state = replicas.state
        kinetic = 0.5 * (own.masses * state.velocities**2).sum((1, 2))
        found.append((state.energies.clone(), kinetic, state.positions.clone()))
    assert not replicas.lost.any()
    return [torch.stack(q, 1).double().numpy() for q in zip(*found, strict=True)]


def simulation_data(model, temperature, potential, kinetic):
    units = made.UnitData(
        kb=thermal_energy(1.0),
        energy_str="kJ/mol",
        energy_conversion=1.0,
        length_str="nm",
        length_conversion=1.0,
        volume_str="nm^3",
        volume_conversion=1.0,
        temperature_str="K",
        temperature_conversion=1.0,
        pressure_str="bar",
        pressure_conversion=1.0,
        time_str="ps",
        time_conversion=1.0,
    )
    masses = model.bind("ALDP").system.masses
    system = made.SystemData(natoms=len(masses), nconstraints=0, ndof_reduction_tra=0, ndof_reduction_rot=0, mass=masses)
    ensemble = made.EnsembleData("NVT", natoms=len(masses), volume=1.0, temperature=temperature)
    observables = made.ObservableData(
        potential_energy=potential.ravel(), kinetic_energy=kinetic.ravel(), total_energy=(potential + kinetic).ravel(), volume=None
    )
    return made.SimulationData(units=units, ensemble=ensemble, system=system, observables=observables, dt=APART)


@pytest.fixture(scope="module")
def cold(model):
    return run(model)


def test_kinetic_energy_has_the_distribution_of_maxwell_and_boltzmann(model, cold):
    """Its mean and width as temperatures, within three standard errors of 300 K, and the Kolmogorov–Smirnov test."""
    potential, kinetic, _ = cold
    data = simulation_data(model, 300.0, potential, kinetic)
    mean, width = physical_validation.kinetic_energy.distribution(data, strict=False, verbosity=0, bootstrap_seed=1, bs_repetitions=100)
    assert abs(mean) < 3
    assert abs(width) < 3
    assert physical_validation.kinetic_energy.distribution(data, strict=True, verbosity=0) > 0.001
    hot = simulation_data(model, 315.0, potential, kinetic)
    assert physical_validation.kinetic_energy.distribution(hot, strict=True, verbosity=0) < 0.001


def test_potential_energies_at_two_temperatures_have_the_ratio_of_boltzmann(model, cold):
    """The slope of ln p1/p2 against energy, in standard errors from that of the temperatures."""
    hot = run(model, 400.0, seed=1)  # far enough apart for the slope to be known, near enough to overlap
    data = [simulation_data(model, t, q[0], q[1]) for t, q in ((300.0, cold), (400.0, hot))]
    (deviation,) = physical_validation.ensemble.check(*data, total_energy=False, verbosity=0, bootstrap_seed=1)
    assert abs(deviation) < 3
    wrong = [simulation_data(model, t, q[0], q[1]) for t, q in ((300.0, cold), (450.0, hot))]
    (deviation,) = physical_validation.ensemble.check(*wrong, total_energy=False, verbosity=0, bootstrap_seed=1)
    assert abs(deviation) > 4


def by_replica(values):
    """Mean over frames with its interval over replicas."""
    return average(values.ravel(), np.repeat(np.arange(len(values)), values.shape[1]))


@pytest.mark.parametrize(("folder", "name"), SHIPPED)
def test_configurational_averages_do_not_depend_on_the_time_step(folder, name):
    """Mean energy at 2, 3 and 4 fs is that at 1 fs within the intervals and 2 % of the thermal energy, the variance of bonds within 4 %."""
    model = ForceField.load(folder)
    bonds, temperature = np.array(model.bind(name).system.bonds), model.description.temperature

    def averages(q):
        lengths = np.linalg.norm(q[2][:, :, bonds[:, 0]] - q[2][:, :, bonds[:, 1]], axis=-1)
        variances = ((lengths - lengths.mean((0, 1))) ** 2).mean(-1)
        return by_replica(q[0]), by_replica(variances)

    thermal = thermal_energy(temperature) * float(model.bind(name).space.degrees_of_freedom) / 2
    short_energy, short_variance = averages(run(model, temperature, time_step=1.0, seed=3, name=name))
    for step in (2.0, 3.0, 4.0):
        energy, variance = averages(run(model, temperature, time_step=step, seed=2, name=name))
        noise = np.hypot(energy.high - energy.low, short_energy.high - short_energy.low) / 2
        assert abs(energy.value - short_energy.value) < 0.02 * thermal + 1.5 * noise, step
        assert variance.value == pytest.approx(short_variance.value, rel=0.04), step


def crossings(angle):
    """How often an angle (replica, frame), crosses the middle and the end of its range, as a share of the intervals between frames."""
    return by_replica(np.diff((angle > 0).astype(int), axis=1) != 0)


def test_rates_of_crossings_do_not_depend_on_the_time_step(model):
    """Barriers are crossed as often at 1 fs as at 2 fs: rates are those of the dynamics, not of its discretisation."""
    system, found = model.bind("ALDP").system, []
    for step in (1.0, 2.0):
        _, _, x = run(model, time_step=step, seed=4, frames=160, apart=0.1)
        angles = phi_psi(mdtraj.Trajectory(x.reshape(-1, *x.shape[2:]), system.topology()), system).reshape(*x.shape[:2], 2)
        found.append([crossings(angles[..., k]) for k in range(2)])
    for one, other in zip(*found, strict=True):
        assert min(one.value, other.value) > 0
        assert abs(one.value - other.value) < 0.75 * np.hypot(one.high - one.low, other.high - other.low)


@pytest.mark.parametrize(("folder", "name"), SHIPPED)
def test_ten_million_replica_steps_lose_none(folder, name):
    """A thousand replicas of ten thousand steps, 20 ps."""
    simulation = ForceField.load(folder).simulate(name, ns=0.02, replicas=1000, seed=0)
    assert simulation.lost == ()
    assert len(simulation.replica) == 1000 * 20
