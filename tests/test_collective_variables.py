import mdtraj
import numpy as np
import pytest

from scoremd.collective_variables import dihedrals, phi_psi
from scoremd.errors import ScoreMDError


def test_torsions_are_those_the_chain_was_built_with(system, chain):
    rng = np.random.default_rng(0)
    phi, psi = rng.uniform(-np.pi, np.pi, (2, 50))
    traj = mdtraj.Trajectory(chain(phi, psi, rng), system.topology())
    np.testing.assert_allclose(phi_psi(traj, system), np.stack([phi, psi], 1), atol=1e-4)
    np.testing.assert_allclose(dihedrals(traj, [[4, 3, 2, 1]])[:, 0], psi, atol=1e-4)


def test_a_mirror_image_turns_the_sign(system, frames):
    traj = frames(20, 0)
    mirror = mdtraj.Trajectory(traj.xyz * [1, 1, -1], traj.topology)
    np.testing.assert_allclose(phi_psi(mirror, system), -phi_psi(traj, system), atol=1e-4)


def test_another_molecule_is_refused(system, frames):
    with pytest.raises(ScoreMDError, match="4 beads where the system has 5"):
        phi_psi(frames(5, 0).atom_slice([0, 1, 2, 3]), system)
    other = frames(5, 0)
    next(iter(other.topology.atoms)).name = "CX"
    with pytest.raises(ScoreMDError, match="its beads are ACE:CX"):
        phi_psi(other, system)


def test_a_system_without_phi_is_refused(system, frames):
    bare = system.model_copy(update={"collective_variables": {}})
    with pytest.raises(ScoreMDError, match="no collective variables phi and psi"):
        phi_psi(frames(5, 0), bare)


@pytest.mark.parametrize("quadruples", [[[0, 1, 2]], [0, 1, 2, 3], [[0.0, 1.0, 2.0, 3.0]], [[0, 1, 2, 5]], [[-1, 1, 2, 3]]])
def test_what_are_not_quadruples_of_beads_is_refused(frames, quadruples):
    with pytest.raises(ScoreMDError, match="torsions"):
        dihedrals(frames(5, 0), quadruples)


def test_nan_is_refused_with_the_frame(system, frames):
    traj = frames(5, 0)
    traj.xyz[3, 1, 2] = np.nan
    with pytest.raises(ScoreMDError, match=r"1 of 5 frames .* frame 3"):
        phi_psi(traj, system)
