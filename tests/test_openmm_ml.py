"""The potential as openmm-ml finds it, by the entry point of the installed package."""

import numpy as np
import openmm
import pytest
from openmm import app, unit

from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.systems import load_system
from tests.models import alanine_dipeptide

MLPotential = pytest.importorskip("openmmml").MLPotential


@pytest.fixture
def topology():
    return load_system("ALDP").topology().to_openmm()


@pytest.fixture
def x():
    return load_system("ALDP").reference_ensemble().positions[0].astype(float)


def energy_and_forces(system, x):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(x)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)


def test_it_is_the_force_of_the_model(topology, x):
    system = MLPotential("scoremd").createSystem(topology, temperature=300 * unit.kelvin)
    expected, _ = ForceField.load("alanine-dipeptide").create_openmm("ALDP", temperature=300)
    assert [type(f) for f in system.getForces()] == [openmm.PythonForce, openmm.CMMotionRemover]
    for found, wanted in zip(energy_and_forces(system, x), energy_and_forces(expected, x), strict=True):
        assert np.array_equal(found, wanted)


def test_a_dipeptide_is_known_by_its_residues():
    ks = load_system("KS")
    system = MLPotential("scoremd", model="dipeptides").createSystem(ks.topology().to_openmm(), removeCMMotion=False)
    assert system.getForce(0).getName() == "ScoreMD dipeptides"
    assert system.getNumParticles() == 10


def test_a_model_of_ones_own(topology, x, tmp_path):
    alanine_dipeptide().save(tmp_path / "mine")
    mine = MLPotential("scoremd", model=str(tmp_path / "mine")).createSystem(topology)
    shipped = MLPotential("scoremd").createSystem(topology)
    assert energy_and_forces(mine, x)[0] != energy_and_forces(shipped, x)[0]
    with pytest.raises(ScoreMDError, match="no model 'none-such'"):
        MLPotential("scoremd", model="none-such")


@pytest.fixture
def mixed(topology):
    """A topology of the beads and an argon beside them, and its System with a force field for the beads."""
    system = openmm.System()
    argon = app.Element.getBySymbol("Ar")
    topology.addAtom("Ar", argon, topology.addResidue("AR", topology.addChain()))
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.1, 1000.0)
    system.addForce(bonds)
    return topology, system


def test_beads_among_other_particles(mixed, topology, x):
    """openmm-ml replaces the conventional forces of the beads by the model's."""
    system = MLPotential("scoremd").createMixedSystem(*mixed, list(range(5)), forceGroup=2)
    force = next(f for f in system.getForces() if isinstance(f, openmm.PythonForce))
    assert list(force.getParticles()) == [0, 1, 2, 3, 4]
    assert force.getForceGroup() == 2
    energy, forces = energy_and_forces(system, np.concatenate([x, [[3.0, 0, 0]]]))
    assert energy == pytest.approx(alone(x), abs=1e-3)
    assert np.array_equal(forces[5], np.zeros(3))


def alone(x):
    return energy_and_forces(MLPotential("scoremd").createSystem(load_system("ALDP").topology().to_openmm()), x)[0]


def test_interpolation_goes_from_one_to_the_other(mixed, x):
    topology, system = mixed
    positions = np.concatenate([x, [[3.0, 0, 0]]])
    between = MLPotential("scoremd").createMixedSystem(topology, system, list(range(5)), interpolate=True)
    context = openmm.Context(between, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    found = []
    for share in (0.0, 0.25, 1.0):
        context.setParameter("lambda_interpolate", share)
        found.append(context.getState(energy=True).getPotentialEnergy()._value)
    conventional, _ = energy_and_forces(system, positions)
    assert found == pytest.approx([conventional, 0.75 * conventional + 0.25 * alone(x), alone(x)], abs=1e-3)


def test_what_is_no_molecule_of_ours_is_refused(topology):
    potential = MLPotential("scoremd")
    with pytest.raises(ScoreMDError, match=r"at 300 K, not at 310 K"):
        potential.createSystem(topology, temperature=310)
    with pytest.raises(ScoreMDError, match=r"numbers from 0 to \d of the topology, not \[0, 1, 2, 3, 99"):
        potential.createMixedSystem(topology, potential.createSystem(topology), [0, 1, 2, 3, 99])
    with pytest.raises(ScoreMDError, match="model dipeptides does not cover alanine-dipeptide, only dipeptides"):
        MLPotential("scoremd", model="dipeptides").createSystem(topology)
    next(iter(topology.atoms())).name = "CX"
    with pytest.raises(ScoreMDError, match=r"topology: is of another molecule: its beads are ACE:CX"):
        potential.createSystem(topology)
    next(iter(topology.residues())).name = "XYZ"
    with pytest.raises(ScoreMDError, match="no system has the residues XYZ-ALA-NME"):
        potential.createSystem(topology)
    with pytest.raises(ScoreMDError, match="no system has the residues"):
        potential.createSystem(app.Topology())
    topology.setPeriodicBoxVectors(3 * np.eye(3))
    with pytest.raises(ScoreMDError, match="periodic box"):
        potential.createSystem(topology)
