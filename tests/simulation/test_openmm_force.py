import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from scoremd.simulation.openmm_force import ModelForce
from tests.models import alanine_dipeptide


@pytest.fixture(scope="module")
def model():
    return alanine_dipeptide()


@pytest.fixture(scope="module")
def frames(model):
    return model.bind("ALDP").system.reference_ensemble().positions[::12001]


def context(system, integrator=None):
    integrator = integrator or openmm.VerletIntegrator(0.001)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))


def evaluate(ctx, x):
    ctx.setPositions(x.astype(float))
    state = ctx.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


def test_energy_and_forces_equal_the_engines(model, frames):
    system, topology = model.create_openmm("ALDP")
    assert [a.name for a in topology.atoms()] == ["C", "N", "CA", "C", "N"]
    energies, forces = model.bind("ALDP").forces()(torch.from_numpy(frames))
    ctx = context(system)
    for x, e, f in zip(frames, energies, forces, strict=True):
        energy, force = evaluate(ctx, x.astype(float) + 7.0)  # far from the origin, too
        # float32: seven digits of energies and forces of stiff bonds
        assert energy == pytest.approx(float(e), rel=1e-6, abs=1e-4)
        np.testing.assert_allclose(force, f.numpy(), rtol=1e-5, atol=1e-5 * float(f.abs().max()))


def test_serialised_system_gives_the_same_forces(model, frames):
    system, _ = model.create_openmm("ALDP")
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    a, b = (evaluate(context(s), frames[0]) for s in (system, again))
    assert a[0] == b[0]
    np.testing.assert_array_equal(a[1], b[1])


def test_nan_positions_are_refused(model):
    class State:
        def getPositions(self, asNumpy):  # noqa: N802
            return np.full((5, 3), np.nan) * unit.nanometer

    with pytest.raises(ValueError, match="NaN"):
        ModelForce(model, model.bind("ALDP").system)(State())
