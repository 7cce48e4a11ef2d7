import numpy as np
import pytest
import torch

from scoremd import bound_model
from scoremd.force_field import ForceField


@pytest.mark.parametrize("name", ["KS", "KG"])
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=pytest.mark.compiled), False])
def test_the_force_of_one_is_that_of_many(monkeypatch, name, compiled):
    if not compiled:
        monkeypatch.setattr(bound_model, "program_of", lambda structure: None)
    bound = ForceField.load("dipeptides").bind(name)
    positions = bound.system.reference_ensemble().positions[::2000].astype(float)
    energies, forces = bound.forces()(torch.from_numpy(positions.astype(np.float32)))
    force = bound.force_of_one()
    found = [force(x + 7.0) for x in positions]  # where single precision would have lost two digits
    np.testing.assert_allclose([e for e, _ in found], energies, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose([f for _, f in found], forces, atol=1e-4 * float(forces.abs().max()))
    assert len(positions) > 3
    assert found[0][1].shape == positions[0].shape
