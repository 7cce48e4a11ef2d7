"""An all-atom topology and made-up frames of a short peptide, which tests of one's own trajectories share."""

from importlib.util import find_spec

import mdtraj
import numpy as np
import pytest

needs_builder = pytest.mark.skipif(find_spec("PeptideBuilder") is None, reason="PeptideBuilder is not installed")

_ALANINE = [("N", "N"), ("H", "H"), ("CA", "C"), ("HA", "H"), ("CB", "C"), ("HB1", "H"), ("HB2", "H"), ("HB3", "H"), ("C", "C"), ("O", "O")]


def topology(n=5, *, bonds=True):
    """Of n alanines."""
    found = mdtraj.Topology()
    chain = found.add_chain()
    for k in range(n):
        residue = found.add_residue("ALA", chain, resSeq=k + 1)
        for name, element in _ALANINE:
            found.add_atom(name, mdtraj.element.get_by_symbol(element), residue)
    if bonds:
        found.create_standard_bonds()
    return found


def small(name, atoms, bonds):
    """One residue of some (name, element) atoms."""
    found = mdtraj.Topology()
    residue = found.add_residue(name, found.add_chain())
    for atom, element in atoms:
        found.add_atom(atom, mdtraj.element.get_by_symbol(element), residue)
    for a, b in bonds:
        found.add_bond(found.atom(a), found.atom(b))
    return found


def trajectory(n_frames=30, n=5, seed=0, box=None):
    """A stretched chain with noise of 3 pm, turned and moved at random in each frame, nm."""
    rng = np.random.default_rng(seed)
    shape = np.array([[0, 0, 0], [-0.05, 0.08, 0], [0.12, 0.08, 0], [0.12, 0.15, 0.08], [0.12, 0.1, -0.15], [0.2, 0.12, -0.2]])
    shape = np.concatenate([shape, [[0.05, 0.1, -0.22], [0.12, 0.0, -0.2], [0.24, 0.0, 0.03], [0.22, -0.12, 0.03]]])
    x = np.concatenate([shape * [1, (-1) ** k, (-1) ** k] + [0.36 * k, 0.02 * k, 0.05 * (k % 3)] for k in range(n)])
    x = x + 0.003 * rng.standard_normal((n_frames, *x.shape))
    turn = np.linalg.qr(rng.standard_normal((n_frames, 3, 3)))[0]
    turn[:, :, 0] *= np.linalg.det(turn)[:, None]
    x = np.einsum("fij,fnj->fni", turn, x - x.mean(1, keepdims=True)) + rng.uniform(0, 3, (n_frames, 1, 3))
    found = mdtraj.Trajectory(x.astype(np.float32), topology(n))
    if box is not None:
        found.unitcell_vectors = np.tile(box * np.eye(3), (n_frames, 1, 1))
        found.xyz = found.xyz % np.float32(box)
    return found
