import hashlib
import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
import torch
import yaml
from openmm import app, unit

from scoremd.bound_model import program_of
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.openmm import ModelForce, add_force, load, save
from scoremd.units import thermal_energy
from tests.models import alanine_dipeptide

PHI, PSI = (0, 1, 2, 3), (1, 2, 3, 4)
#: Which particle of `crowd` each bead is: not in order.
BEADS = [6, 1, 4, 2, 7]


@pytest.fixture(scope="module")
def model():
    return ForceField.load("alanine-dipeptide")


@pytest.fixture(scope="module")
def frames(model):
    return model.bind("ALDP").system.reference_ensemble().positions[::12001].astype(float)


@pytest.fixture
def alone(model):
    return model.create_openmm("ALDP", temperature=300)[0]


def crowd(masses):
    """A System of 8 particles, all in a trap; those of BEADS have the masses of beads, the others of 20 Da."""
    system = openmm.System()
    for k in range(8):
        system.addParticle(masses[BEADS.index(k)] if k in BEADS else 20.0)
    trap = openmm.CustomExternalForce("5*(x^2+y^2+z^2)")
    for k in range(8):
        trap.addParticle(k)
    system.addForce(trap)
    return system


@pytest.fixture
def crowded(model):
    system = crowd(model.bind("ALDP").system.masses)
    add_force(system, model, "ALDP", BEADS, temperature=300 * unit.kelvin, force_group=3)
    return system


def among_others(x):
    positions = np.random.default_rng(0).normal(size=(8, 3))
    positions[BEADS] = x
    return positions


def langevin(seed=1):
    integrator = openmm.LangevinMiddleIntegrator(300, 1 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    return integrator


def context(system, x, integrator=None, platform="Reference"):
    made = openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    made.setPositions(x)
    return made


def simulation(model, system, x, integrator=None):
    topology = model.bind("ALDP").system.topology().to_openmm()
    made = app.Simulation(topology, system, integrator or langevin(), openmm.Platform.getPlatformByName("Reference"))
    made.context.setPositions(x)
    made.context.setVelocitiesToTemperature(300, 1)
    return made


def evaluate(ctx, groups=-1):
    state = ctx.getState(getEnergy=True, getForces=True, groups=groups)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


def positions(ctx):
    return ctx.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def torsion(model, x, quadruple):
    traj = mdtraj.Trajectory(np.asarray(x)[None], model.bind("ALDP").system.topology())
    return float(mdtraj.compute_dihedrals(traj, [quadruple])[0, 0])


def stretch(x, start):
    """Largest change of a bond, nm."""
    return np.abs(np.linalg.norm(np.diff(x, axis=0), axis=1) - np.linalg.norm(np.diff(start, axis=0), axis=1)).max()


# the force


@pytest.mark.parametrize("platform", ["Reference", pytest.param("CPU", marks=pytest.mark.compiled), "OpenCL", "CUDA"])
def test_energy_and_forces_are_the_engines_on_each_platform(model, alone, frames, platform):
    if platform not in [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]:
        pytest.skip(f"this OpenMM has no platform {platform}")
    energies, forces = model.bind("ALDP").forces()(torch.from_numpy(frames.astype(np.float32)))
    ctx = context(alone, frames[0], platform=platform)
    for x, e, f in zip(frames, energies, forces, strict=True):
        # far from the origin, too, where positions are in double precision
        ctx.setPositions(x if platform in ("CUDA", "OpenCL") else x + 7.0)
        energy, force = evaluate(ctx)
        # float32: seven digits of energies and of positions under the forces of stiff bonds
        assert energy == pytest.approx(float(e), rel=1e-6, abs=1e-3)
        np.testing.assert_allclose(force, f.numpy(), atol=1e-4 * float(f.abs().max()))


def test_energy_is_kt_at_the_models_temperature_times_the_networks(model, alone, frames):
    bound, description = model.bind("ALDP"), model.description
    t = torch.tensor([description.simulation_time], dtype=torch.float64)
    scale = description.length_scale / float(bound.schedule.norm(t))
    x = torch.from_numpy((frames - frames.mean(1, keepdims=True)).astype(np.float32))
    expected, _ = bound.energy_and_score(x * scale, bound.schedule.log_snr(t).float())
    found = [evaluate(context(alone, frame))[0] for frame in frames]
    np.testing.assert_allclose(found, thermal_energy(300) * expected.numpy(), rtol=1e-5, atol=1e-3)


def test_forces_are_minus_the_gradient_of_the_energy(crowded, frames):
    x, h = among_others(frames[0]), 5e-4
    ctx = context(crowded, x)
    forces = evaluate(ctx)[1]
    for k in range(8):
        for axis in range(3):
            step = np.zeros((8, 3))
            step[k, axis] = h
            ends = []
            for sign in (1, -1):
                ctx.setPositions(x + sign * step)
                ends.append(evaluate(ctx)[0])
            # float32 energies: 1e-5 kJ/mol / h
            assert -(ends[0] - ends[1]) / (2 * h) == pytest.approx(forces[k, axis], abs=0.005 * np.abs(forces).max())


def test_acts_on_the_chosen_particles_only(model, crowded, frames):
    x = among_others(frames[0])
    ctx = context(crowded, x)
    energy, forces = evaluate(ctx, groups={3})
    own_energy, own = evaluate(context(model.create_openmm("ALDP")[0], frames[0]))
    assert energy == pytest.approx(own_energy, rel=1e-6)
    np.testing.assert_allclose(forces[BEADS], own, atol=1e-5 * np.abs(own).max())
    assert not forces[[0, 3, 5]].any()
    np.testing.assert_allclose(evaluate(ctx)[1], forces - 10 * x, rtol=1e-6)
    np.testing.assert_allclose(evaluate(ctx, groups={0})[1], -10 * x, rtol=1e-6)


def test_particles_that_are_added_later_feel_nothing(model, alone, frames):
    alone.addParticle(12.0)
    forces = evaluate(context(alone, np.vstack([frames[0], np.ones(3)])))[1]
    assert forces[:5].any()
    assert not forces[5].any()


def test_names_itself_and_gives_its_index(model):
    system = crowd(model.bind("ALDP").system.masses)
    assert add_force(system, model, "ALDP", BEADS, temperature=None) == 1
    assert system.getForce(1).getName() == "ScoreMD alanine-dipeptide"
    assert [a.name for a in model.create_openmm("ALDP")[1].atoms()] == ["C", "N", "CA", "C", "N"]


# what OpenMM does with forces


def custom():
    integrator = openmm.CustomIntegrator(0.002)
    for variable, expression in (("v", "v+0.5*dt*f/m"), ("x", "x+dt*v"), ("v", "v+0.5*dt*f/m")):
        integrator.addComputePerDof(variable, expression)
    return integrator


def compound():
    integrator = openmm.CompoundIntegrator()
    integrator.addIntegrator(openmm.VerletIntegrator(0.002))
    return integrator


def quantum():
    integrator = openmm.QTBIntegrator(300, 1, 0.002)
    integrator.setSegmentLength(0.02)
    return integrator


INTEGRATORS = {
    "Verlet": lambda: openmm.VerletIntegrator(0.002),
    "VariableVerlet": lambda: openmm.VariableVerletIntegrator(3e-4),
    "Langevin": lambda: openmm.LangevinIntegrator(300, 1, 0.002),
    "LangevinMiddle": lambda: openmm.LangevinMiddleIntegrator(300, 1, 0.002),
    "VariableLangevin": lambda: openmm.VariableLangevinIntegrator(300, 1, 3e-4),
    "Brownian": lambda: openmm.BrownianIntegrator(300, 80, 0.002),
    "NoseHoover": lambda: openmm.NoseHooverIntegrator(300, 1, 0.002),
    "QTB": quantum,
    "Custom": custom,
    "Compound": compound,
    "MTS": lambda: openmm.MTSIntegrator(0.002, [(0, 1)]),
    "MTSLangevin": lambda: openmm.MTSLangevinIntegrator(300, 1, 0.002, [(0, 1)]),
    "AMD": lambda: openmm.AMDIntegrator(0.002, 10, 0),
    "AMDForceGroup": lambda: openmm.AMDForceGroupIntegrator(0.002, 0, 10, 0),
    "DualAMD": lambda: openmm.DualAMDIntegrator(0.002, 0, 10, 0, 10, 0),
    "DPD": lambda: openmm.DPDIntegrator(300, 1, 1.0, 0.002),
}


@pytest.mark.parametrize("name", INTEGRATORS)
def test_integrators_keep_the_molecule_whole(alone, frames, name):
    integrator = INTEGRATORS[name]()
    if hasattr(integrator, "setRandomNumberSeed"):
        integrator.setRandomNumberSeed(1)
    ctx = context(alone, frames[0], integrator)
    ctx.setVelocitiesToTemperature(300, 1)
    if name.startswith("Variable"):
        integrator.stepTo(0.12)
    else:
        integrator.step(60)
    x = positions(ctx)
    assert np.abs(x - frames[0]).max() > 1e-3
    assert stretch(x, frames[0]) < 0.02  # five standard deviations; without forces, it is twice that


def test_ring_polymers(alone, frames):
    ctx = context(alone, frames[0], openmm.RPMDIntegrator(2, 300, 1, 0.002))
    integrator = ctx.getIntegrator()
    integrator.setRandomNumberSeed(1)
    for copy in range(2):
        integrator.setPositions(copy, frames[0])
        integrator.setVelocities(copy, np.random.default_rng(copy).normal(scale=0.45, size=(5, 3)))
    integrator.step(60)
    for copy in range(2):
        x = integrator.getState(copy, getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        assert np.abs(x - frames[0]).max() > 1e-3
        assert stretch(x, frames[0]) < 0.02


def test_minimizer_and_reporters(model, alone, frames, tmp_path):
    run = simulation(model, alone, frames[0])
    before = evaluate(run.context)[0]
    openmm.LocalEnergyMinimizer.minimize(run.context, maxIterations=20)
    assert evaluate(run.context)[0] < before - 2
    run.reporters = [
        app.DCDReporter(str(tmp_path / "run.dcd"), 5),
        app.XTCReporter(str(tmp_path / "run.xtc"), 5),
        app.StateDataReporter(str(tmp_path / "run.csv"), 5, step=True, potentialEnergy=True, temperature=True),
    ]
    run.step(20)
    last = positions(run.context)
    for name in ("run.dcd", "run.xtc"):
        traj = mdtraj.load(tmp_path / name, top=model.bind("ALDP").system.topology())
        assert traj.n_frames == 4
        np.testing.assert_allclose(traj.xyz[-1], last, atol=1e-3)
    table = np.loadtxt(tmp_path / "run.csv", delimiter=",", comments="#", skiprows=1)
    assert table[-1, 1] == pytest.approx(evaluate(run.context)[0], rel=1e-6)


def test_a_run_goes_on_from_its_checkpoint_as_if_uninterrupted(model, alone, frames, tmp_path):
    run = simulation(model, alone, frames[0])
    run.reporters.append(app.CheckpointReporter(str(tmp_path / "run.chk"), 10))
    run.step(10)
    run.reporters.clear()
    run.step(10)
    again = simulation(model, alone, frames[0])
    again.loadCheckpoint(str(tmp_path / "run.chk"))
    again.step(10)
    np.testing.assert_array_equal(positions(again.context), positions(run.context))


def test_xml_holds_all_that_the_force_needs(frames):
    model = alanine_dipeptide()  # in no file
    system = crowd(model.bind("ALDP").system.masses)
    add_force(system, model, "ALDP", BEADS, temperature=300, force_group=3)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    a, b = (evaluate(context(s, among_others(frames[0])), groups={3}) for s in (system, again))
    assert a[0] == b[0]
    np.testing.assert_array_equal(a[1], b[1])


def restrained(system, quadruple, centre, strength=200.0):
    umbrella = openmm.CustomTorsionForce("0.5*strength*min(d,2*pi-d)^2; d=abs(theta-centre); pi=3.14159265358979")
    umbrella.addGlobalParameter("strength", strength)
    umbrella.addGlobalParameter("centre", centre)
    umbrella.addTorsion(*quadruple, [])
    system.addForce(umbrella)


def test_an_umbrella_holds_phi(model, alone, frames):
    centre = torsion(model, frames[0], PHI) - 0.7
    restrained(alone, PHI, centre, 500.0)
    run = simulation(model, alone, frames[0])
    run.step(150)
    seen = []
    for _ in range(10):
        run.step(5)
        seen.append(torsion(model, positions(run.context), PHI))
    assert np.mean(seen) == pytest.approx(centre, abs=0.3)
    assert stretch(positions(run.context), frames[0]) < 0.03


def test_metadynamics_fills_phi_and_psi(model, alone, frames):
    variables = []
    for quadruple in (PHI, PSI):
        force = openmm.CustomTorsionForce("theta")
        force.addTorsion(*quadruple, [])
        variables.append(app.BiasVariable(force, -np.pi, np.pi, 0.35, periodic=True))
    meta = app.Metadynamics(alone, variables, 300, 8, 1.0, 10)
    run = simulation(model, alone, frames[0])
    meta.step(run, 100)
    free = meta.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole)
    psi, phi = (round((torsion(model, positions(run.context), q) + np.pi) / (2 * np.pi) * (len(free) - 1)) for q in (PSI, PHI))
    assert free[psi, phi] < -2  # ten hills of 1 kJ/mol, which shrink, where it was
    assert stretch(positions(run.context), frames[0]) < 0.03


@pytest.mark.skipif(not hasattr(app, "ReplicaExchangeSampler"), reason="this OpenMM has no ReplicaExchangeSampler")
def test_replicas_under_different_restraints_exchange(model, alone, frames):
    centre = torsion(model, frames[0], PHI)
    restrained(alone, PHI, centre)
    run = simulation(model, alone, frames[0])
    states = [{"strength": s} for s in (0.0, 5.0, 10.0)]
    sampler = app.ReplicaExchangeSampler(states, run, 10)
    order = []
    sampler.reporters.append(lambda s: order.append(tuple(s.replicaStateIndex)))
    sampler.simulate(8)
    assert len(order) == 8
    assert len(set(order)) > 1
    for conformation in sampler.replicaConformation:
        assert stretch(conformation.getPositions(asNumpy=True).value_in_unit(unit.nanometer), frames[0]) < 0.03


# what is refused


@pytest.mark.parametrize(
    ("particles", "message"),
    [
        (None, "alanine-dipeptide has 5 beads, but the force is to act on 8 particles"),
        (BEADS[:4], "act on 4 particles"),
        ([6, 1, 4, 2, 8], "different numbers from 0 to 7"),
        ([6, 1, 4, 2, -1], "different numbers from 0 to 7"),
        ([6, 1, 4, 6, 7], "different numbers from 0 to 7"),
        ("abcde", "must be a list of numbers"),
        ([0.0, 1.0, 2.0, 3.0, 4.0], "must be a list of numbers"),
        ([1, 6, 4, 2, 7], "particle 1 has a mass of 14.007 Da, where bead C of alanine-dipeptide has 12.011 Da.*C N CA C N"),
        ([6, 1, 4, 2, 0], "particle 0 has a mass of 20 Da"),
    ],
)
def test_wrong_particles(model, particles, message):
    system = crowd(model.bind("ALDP").system.masses)
    with pytest.raises(ScoreMDError, match=message):
        add_force(system, model, "ALDP", particles, temperature=300)
    assert system.getNumForces() == 1


def test_a_periodic_system(model):
    system = crowd(model.bind("ALDP").system.masses)
    force = openmm.CustomNonbondedForce("r")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    system.addForce(force)
    with pytest.raises(ScoreMDError, match="periodic"):
        add_force(system, model, "ALDP", BEADS, temperature=300)


@pytest.mark.parametrize("temperature", [310, 310 * unit.kelvin, float("nan")])
def test_another_temperature_than_the_models(model, temperature):
    with pytest.raises(ScoreMDError, match=r"at 300 K, not at .*temperature=None"):
        model.create_openmm("ALDP", temperature=temperature)


@pytest.mark.parametrize("temperature", ["warm", 300 * unit.nanometer, [300, 310]])
def test_what_is_no_temperature(model, temperature):
    with pytest.raises(ScoreMDError, match="must be a number of kelvin"):
        model.create_openmm("ALDP", temperature=temperature)


@pytest.mark.parametrize("group", [-1, 32, 1.5, "a", None])
def test_groups_of_forces_that_there_are_not(model, group):
    system = crowd(model.bind("ALDP").system.masses)
    with pytest.raises(ScoreMDError, match="from 0 to 31"):
        add_force(system, model, "ALDP", BEADS, temperature=300, force_group=group)


@pytest.mark.parametrize("temperature", [300, 300.0 * unit.kelvin, None])
def test_the_models_temperature_or_none(model, temperature):
    assert model.create_openmm("ALDP", temperature=temperature)[0].getNumForces() == 1


@pytest.mark.parametrize("platform", ["Reference", pytest.param("CPU", marks=pytest.mark.compiled)])
@pytest.mark.parametrize("bead", range(5))
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_nan_positions(alone, frames, platform, bead, number):
    x = frames[0].copy()
    x[bead, 1] = number
    ctx = context(alone, x, platform=platform)
    with pytest.raises(openmm.OpenMMException, match="NaN"):
        ctx.getIntegrator().step(1)


@pytest.mark.compiled
def test_contexts_of_one_system_in_several_threads(monkeypatch, alone, frames):
    def run(x):
        running = context(alone, x)  # without noise, whose generator all Contexts of the platform share
        running.getIntegrator().step(200)
        return running.getState(getPositions=True).getPositions(asNumpy=True)._value

    unpacked, unpack = [], ModelForce.unpack
    monkeypatch.setattr(ModelForce, "unpack", lambda force: unpacked.append(force) or unpack(force))
    program_of.cache_clear()  # a network is traced by one thread at a time
    with ThreadPoolExecutor(len(frames)) as pool:
        at_the_same_time = list(pool.map(run, frames))
    assert len(unpacked) == 1
    np.testing.assert_array_equal(at_the_same_time, [run(x) for x in frames])


@pytest.mark.compiled
def test_programs_that_are_bound_in_several_threads_at_the_same_time(model):
    program_of.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        energies = list(pool.map(lambda _: float(model.bind("ALDP").forces()(torch.zeros(1, 5, 3) + torch.eye(5, 3))[0]), range(4)))
    assert len(set(energies)) == 1


def test_particles_of_the_force_that_were_changed(alone, frames):
    alone.getForce(0).setParticles([0, 1])
    with pytest.raises(openmm.OpenMMException, match="given 2 particles; its molecule has 5 beads"):
        evaluate(context(alone, frames[0]))


def test_xml_whose_weights_were_damaged(alone, frames):
    xml = openmm.XmlSerializer.serialize(alone)
    middle = len(xml) // 2
    digit = "0" if xml[middle] != "0" else "1"
    system = openmm.XmlSerializer.deserialize(xml[:middle] + digit + xml[middle + 1 :])
    with pytest.raises(openmm.OpenMMException, match="damaged"):
        evaluate(context(system, frames[0]))


def test_xml_of_another_version(model):
    force = ModelForce(model, model.bind("ALDP").system)
    header, weights = force.__getstate__()[32:].split(b"\n", 1)
    fields = json.loads(header)
    fields["description"]["not yet thought of"] = 1
    content = json.dumps(fields).encode() + b"\n" + weights
    force.__setstate__(hashlib.sha256(content).digest() + content)
    with pytest.raises(ScoreMDError, match="another version"):
        force.unpack()


@pytest.mark.parametrize("content", [b"", b"no JSON\n", b"{}\n", b"[]\n", "whole header\n and no weights"])
def test_contents_that_are_none_of_ours(model, content):
    force = ModelForce(model, model.bind("ALDP").system)
    if isinstance(content, str):
        content = force.__getstate__()[32:].split(b"\n", 1)[0] + b"\nweights"
    force.__setstate__(hashlib.sha256(content).digest() + content)
    with pytest.raises(ScoreMDError, match="another version"):
        force.unpack()


@pytest.mark.parametrize("state", [b"", b"foreign"])
def test_foreign_payloads_do_not_raise_before_they_are_used(model, state):
    force = ModelForce(model, model.bind("ALDP").system)
    force.__setstate__(state)
    with pytest.raises(ScoreMDError, match="damaged"):
        force.unpack()


# files that travel


def test_saved_and_loaded(model, crowded, frames, tmp_path):
    save(crowded, tmp_path / "saved")
    again = load(tmp_path / "saved", temperature=300)
    x = among_others(frames[0])
    for groups in ({3}, {0}):
        a, b = (evaluate(context(s, x), groups) for s in (crowded, again))
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1], b[1])
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]
    assert "PythonForce" not in (tmp_path / "saved/system.xml").read_text()
    assert ForceField.load(tmp_path / "saved").hash == model.hash
    save(again, tmp_path / "again")
    for path in (tmp_path / "saved").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_forces_and_functions_inside_a_force_are_saved_and_loaded(alone, frames, tmp_path):
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 4, 0.1, 100)
    outer = openmm.CustomCVForce("f(b)")
    outer.addCollectiveVariable("b", bond)
    outer.addTabulatedFunction("f", openmm.Continuous1DFunction([0, 1, 4, 9], 0, 30))
    alone.addForce(outer)
    shifted = openmm.ATMForce(0.5, 0.5, 0, 0, 0, 0, 0, 0, 1)
    for _ in range(5):
        shifted.addParticle()
    shifted.addForce(openmm.XmlSerializer.clone(bond))
    alone.addForce(shifted)
    save(alone, tmp_path / "saved")
    again = load(tmp_path / "saved", temperature=300)
    assert evaluate(context(again, frames[0]))[0] == evaluate(context(alone, frames[0]))[0]


def test_loading_checks_the_temperature(alone, tmp_path):
    save(alone, tmp_path / "saved")
    with pytest.raises(ScoreMDError, match="300 K, not at 310 K"):
        load(tmp_path / "saved", temperature=310)


def other(state):
    return 0.0, np.zeros((8, 3))


def test_saving_what_is_not_the_force_of_a_model(model, crowded, tmp_path):
    bare = crowd(model.bind("ALDP").system.masses)
    with pytest.raises(ScoreMDError, match="has 0"):
        save(bare, tmp_path / "a")
    bare.addForce(openmm.PythonForce(other))
    with pytest.raises(ScoreMDError, match="PythonForce is another one"):
        save(bare, tmp_path / "a")
    inner = openmm.CustomCVForce("a")
    inner.addCollectiveVariable("a", openmm.PythonForce(other))
    crowded.addForce(inner)
    with pytest.raises(ScoreMDError, match="has 2"):
        save(crowded, tmp_path / "a")
    hidden = crowd(model.bind("ALDP").system.masses)
    hidden.addForce(openmm.XmlSerializer.clone(inner))
    with pytest.raises(ScoreMDError, match="not inside another force"):
        save(hidden, tmp_path / "a")
    bare.addForce(openmm.PythonForce(lambda _: None))
    with pytest.raises(ScoreMDError, match=r"cannot be saved.*pickled"):
        save(bare, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_saving_where_something_is(alone, tmp_path):
    (tmp_path / "here").mkdir()
    with pytest.raises(ScoreMDError, match="exists already"):
        save(alone, tmp_path / "here")


def test_loading_what_is_not_there(tmp_path, model):
    with pytest.raises(ScoreMDError, match=r"not a folder that scoremd.openmm.save wrote"):
        load(tmp_path / "nowhere", temperature=None)
    model.save(tmp_path / "model")
    with pytest.raises(ScoreMDError, match=r"not a folder that scoremd.openmm.save wrote.*force.yaml"):
        load(tmp_path / "model", temperature=None)


@pytest.mark.parametrize("name", ["system.xml", "model.safetensors", "config.yaml", "force.yaml"])
def test_loading_damaged_files(alone, tmp_path, name):
    save(alone, tmp_path / "saved")
    path = tmp_path / "saved" / name
    content = path.read_bytes()
    for damaged in (content.replace(b"force_group", b"force_grupp") if name == "force.yaml" else content[:-1] + b"?", b"\xff", b"3", b""):
        path.write_bytes(damaged)
        with pytest.raises(ScoreMDError, match=re.escape(name)):
            load(tmp_path / "saved", temperature=300)
    path.unlink()
    with pytest.raises(ScoreMDError, match=re.escape(name)):
        load(tmp_path / "saved", temperature=300)


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


TRAP = (
    '<Force type="{type}" function="{pickle}" forceGroup="0" name="x" usesPeriodic="0" version="2"><GlobalParameters/><Particles/></Force>'
)


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda xml, trap: xml.replace("<Forces>", "<Forces>" + trap.format(type="PythonForce")), "without a PythonForce"),
        (lambda xml, trap: xml.replace("<Forces>", "<Forces>" + trap.format(type="Python&#70;orce")), "without a PythonForce"),
        (lambda xml, trap: xml.replace("<PerParticleParameters />", trap.format(type="PythonForce")), "without a PythonForce"),
        (lambda xml, trap: xml.replace('type="System"', 'type="LangevinIntegrator"'), "must hold a System"),
        (lambda xml, trap: xml.replace("<Forces>", '<Forces><Force type="VerletIntegrator" />'), "OpenMM's own forces"),
        (lambda xml, trap: xml.replace("<Forces>", '<Forces><Force type="Continuous1DFunction" />'), "OpenMM's own forces"),
        (lambda xml, trap: xml.replace("<PerParticleParameters />", '<Any type="System" />'), "OpenMM's own forces"),
        (lambda xml, trap: xml.replace("mass=", "mess="), "not a System in XML"),
        (lambda xml, trap: xml.replace("<Forces>", 2000 * "<a>" + 2000 * "</a>" + "<Forces>"), "not a System in XML"),
        (lambda xml, trap: xml.replace("<System", "<"), "not a System in XML"),
    ],
)
def test_forged_files_are_refused_and_not_unpickled(crowded, tmp_path, forge, message):
    save(crowded, tmp_path / "saved")
    note, system = tmp_path / "saved/force.yaml", tmp_path / "saved/system.xml"
    xml, trap = system.read_text(), TRAP.replace("{pickle}", pickle.dumps(Trap(tmp_path / "sprung")).hex())
    forged = forge(xml, trap)
    system.write_text(forged)
    content = yaml.safe_load(note.read_text())
    content["sha256"]["system.xml"] = hashlib.sha256(forged.encode()).hexdigest()
    note.write_text(yaml.safe_dump(content))
    with pytest.raises(ScoreMDError, match=message):
        load(tmp_path / "saved", temperature=300)
    assert not (tmp_path / "sprung").exists()
