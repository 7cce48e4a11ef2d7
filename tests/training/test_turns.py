import mdtraj
import numpy as np
import torch

from scoremd.collective_variables import dihedrals
from scoremd.systems import load_system
from scoremd.training.turns import Rotor, rotors, turn, turn_at_random

SYSTEM = load_system("ALDP")
ROTORS = rotors(SYSTEM.bonds, SYSTEM.torsions)


def frames(n):
    return torch.from_numpy(SYSTEM.reference_ensemble().positions[:: 120_000 // n][:n].copy())


def torsions(x):
    return dihedrals(mdtraj.Trajectory(x.numpy(), SYSTEM.topology()), SYSTEM.torsions)


def wrapped(angle):
    return np.angle(np.exp(1j * angle))


def test_what_turns_is_beyond_the_bond():
    assert [Rotor(1, 2, (3, 4)), Rotor(2, 3, (4,))] == ROTORS


def test_each_bond_turns_once_and_rings_do_not():
    chain = [(0, 1), (1, 2), (2, 3), (2, 4)]
    assert rotors(chain, [(0, 1, 2, 3), (0, 1, 2, 4), (3, 2, 1, 0)]) == [Rotor(1, 2, (3, 4))]
    assert rotors([(0, 1), (1, 2), (2, 3), (3, 0)], [(0, 1, 2, 3)]) == []


def test_a_turn_changes_its_torsion_by_the_angle_and_no_bond_or_bend():
    x, angle = frames(50), torch.linspace(-3, 3, 50)
    for k, rotor in enumerate(ROTORS):
        y = turn(x, rotor, angle)
        change = torsions(y) - torsions(x)
        np.testing.assert_allclose(wrapped(change[:, k] - angle.numpy()), 0, atol=1e-3)
        np.testing.assert_allclose(wrapped(change[:, 1 - k]), 0, atol=1e-3)
        for span in (1, 2):
            before, after = (torch.linalg.vector_norm(q[:, span:] - q[:, :-span], dim=-1) for q in (x, y))
            torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_random_turns_are_symmetric_and_of_all_widths():
    x = frames(20_000)
    change = wrapped(torsions(turn_at_random(x, ROTORS, torch.Generator().manual_seed(0))) - torsions(x))
    for k in range(2):
        assert abs(change[:, k].mean()) < 5 * change[:, k].std() / np.sqrt(len(x))
        assert 0.1 < np.mean(np.abs(change[:, k]) < 0.1) < 0.4
        assert np.mean(np.abs(change[:, k]) > 2) > 0.05
