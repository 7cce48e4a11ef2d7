"""Aggregation of forces: against cases whose answer is known, and against statistical mechanics."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scoremd.data import read_ensemble
from scoremd.errors import ScoreMDError
from scoremd.forces import aggregate_forces
from scoremd.units import thermal_energy

ALDP = Path(__file__).parent / "data" / "ALDP-small.h5"
BACKBONE = [1, 3, 4, 5, 8]


@pytest.fixture(scope="module")
def forces():
    return read_ensemble(ALDP).forces


def test_removes_noise_that_the_left_out_atoms_share():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(5000, 3, 3))
    signal -= signal.mean(axis=1, keepdims=True)
    noise = 20 * rng.normal(size=(5000, 2, 3))
    mixing = np.array([[1.0, 0.5], [-2.0, 0.3], [0.7, 4.0]])
    atoms = np.concatenate([signal + np.einsum("bk,fki->fbi", mixing, noise), noise], axis=1)
    # What is left of the noise is the chance correlation of 15,000 rows, 1/sqrt(15000) for each of the two columns.
    assert np.abs(aggregate_forces(atoms, [0, 1, 2]) - signal).max() < 0.2


def test_mean_square_is_least(forces):
    aggregated = aggregate_forces(forces, BACKBONE)
    left_out = np.delete(forces, BACKBONE, axis=1).astype(np.float64)
    # At the minimum no combination of the left-out forces correlates with what was aggregated.
    overlap = np.einsum("fbi,fki->bk", aggregated, left_out)
    scale = np.sqrt((aggregated**2).sum((0, 2))[:, None] * (left_out**2).sum((0, 2))[None])
    assert np.abs(overlap / scale).max() < 1e-6
    assert (aggregated**2).mean() < 0.65 * (forces[:, BACKBONE] ** 2).mean()


def test_sums_to_zero(forces):
    aggregated = aggregate_forces(forces, BACKBONE)
    assert np.abs(aggregated.sum(axis=1)).max() < 1e-3 * np.abs(aggregated).max()


def test_turns_with_the_molecule(forces):
    turn = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix().T
    np.testing.assert_allclose(aggregate_forces(forces @ turn, BACKBONE), aggregate_forces(forces, BACKBONE) @ turn, atol=0.05)


def test_order_of_the_beads_is_kept(forces):
    shuffled = [5, 1, 8, 4, 3]
    places = [BACKBONE.index(i) for i in shuffled]
    np.testing.assert_allclose(aggregate_forces(forces, shuffled), aggregate_forces(forces, BACKBONE)[:, places], rtol=1e-4, atol=0.05)


def test_all_atoms_as_beads_only_lose_their_sum():
    forces = np.random.default_rng(1).normal(size=(7, 4, 3))
    expected = forces - forces.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(aggregate_forces(forces, range(4)), expected, atol=1e-6)


def test_left_out_forces_without_independent_directions():
    forces = np.random.default_rng(2).normal(size=(100, 4, 3))
    forces[:, 3] = -2 * forces[:, 2]
    single = aggregate_forces(forces[:, :3], [0, 1])
    np.testing.assert_allclose(aggregate_forces(forces, [0, 1]), single, atol=1e-5)
    forces[:, 2:] = 0
    assert np.isfinite(aggregate_forces(forces, [0, 1])).all()


@pytest.mark.parametrize("atoms", [list(range(10)), BACKBONE])
def test_virial_theorem(atoms):
    """⟨x · F⟩ = -kT times the number of internal coordinates, for mean forces at any resolution."""
    ensemble = read_ensemble(ALDP).beads(atoms)
    centred = ensemble.positions - ensemble.positions.mean(axis=1, keepdims=True)
    virial = (centred * ensemble.forces).sum(axis=(1, 2)) / thermal_energy(ensemble.temperature)
    error = virial.std() / np.sqrt(len(virial))
    assert error < 4
    assert abs(virial.mean() + 3 * (len(atoms) - 1)) < 3 * error


@pytest.mark.parametrize(
    ("shape", "beads", "message"),
    [
        ((5, 4), [0], "shape"),
        ((5, 4, 2), [0], "shape"),
        ((5, 4, 3), [0, 4], "from 0 to 3"),
        ((5, 4, 3), [-1], "from 0 to 3"),
        ((5, 4, 3), [1, 1], "repeated"),
        ((5, 4, 3), [], "at least one"),
    ],
)
def test_bad_input(shape, beads, message):
    with pytest.raises(ScoreMDError, match=message):
        aggregate_forces(np.zeros(shape), beads)
