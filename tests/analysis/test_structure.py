from pathlib import Path

import mdtraj
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from scoremd.analysis.structure import Limits, compare_bond, distant_pairs, mirror_images, pair_distances, superposed, wasserstein
from scoremd.data import read_ensemble

PEPTIDE = Path(__file__).parents[1] / "data" / "KS-small.h5"


def test_pairs_more_than_two_bonds_apart():
    assert distant_pairs(5, [(0, 1), (1, 2), (2, 3), (3, 4)]) == [(0, 3), (0, 4), (1, 4)]
    assert distant_pairs(3, []) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("sizes", [(100, 100), (100, 37)])
def test_wasserstein_is_scipys(sizes):
    a, b = (np.random.default_rng(n).normal(k, 1 + k, n) for k, n in enumerate(sizes))
    assert wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b))


def test_broken_bonds_and_clashes_are_found(system, frames):
    traj = frames(100, 0)
    limits = Limits.of(traj, system.bonds)
    assert not limits.broken(traj).any()
    assert not limits.clashes(traj).any()
    broken = mdtraj.Trajectory(traj.xyz.copy(), traj.topology)
    broken.xyz[7, 4] += 0.06 * (broken.xyz[7, 4] - broken.xyz[7, 3]) / 0.15
    broken.xyz[8, 4] += 0.03 * (broken.xyz[8, 4] - broken.xyz[8, 3]) / 0.15
    assert np.flatnonzero(limits.broken(broken)).tolist() == [7]
    clashing = mdtraj.Trajectory(traj.xyz.copy(), traj.topology)
    clashing.xyz[3, 4] = clashing.xyz[3, 0] + 0.05
    assert np.flatnonzero(limits.clashes(clashing)).tolist() == [3]


def test_natural_peptides_are_no_mirror_images_and_their_reflections_are():
    traj = read_ensemble(PEPTIDE).to_mdtraj()
    assert not mirror_images(traj).any()
    assert mirror_images(mdtraj.Trajectory(traj.xyz * [1, 1, -1], traj.topology)).all()


def test_without_side_chains_mirror_images_cannot_be_seen(frames):
    assert mirror_images(frames(3, 0)) is None


def test_every_frame_is_superposed_without_reflection():
    traj = read_ensemble(PEPTIDE).to_mdtraj()
    one = superposed(traj, traj[5])
    moved = np.sqrt(((one.xyz - traj.xyz[5]) ** 2).sum(-1).mean(-1))
    np.testing.assert_allclose(moved, mdtraj.rmsd(traj, traj[5]), atol=1e-4)
    assert moved[5] < 1e-6 < moved.max()
    pairs = distant_pairs(traj.n_atoms, [])
    np.testing.assert_allclose(pair_distances(one, pairs), pair_distances(traj, pairs), atol=1e-5)
    mirrored = superposed(mdtraj.Trajectory(-traj.xyz, traj.topology), traj[5])
    assert mirror_images(mirrored).all()


def test_bonds_of_equal_and_of_stretched_ensembles(system, frames):
    a, same = (pair_distances(frames(n, n), system.bonds)[:, 0] for n in (4000, 20_000))
    groups = np.arange(20_000) % 16
    equal = compare_bond("C-N", a, same, groups_a=None, groups_b=groups, reference=None, seed=0)
    assert equal.distance.frames == 4000
    assert abs(equal.distance.excess) < 0.06
    assert equal.mean.low < 0 < equal.mean.high
    assert equal.sd_ratio.low < 1 < equal.sd_ratio.high
    moved = 0.001 + a.mean() + 1.2 * (a - a.mean())
    other = compare_bond("C-N", moved, same, groups_a=None, groups_b=groups, reference=a, seed=0)
    assert other.distance.frames == 2000
    assert other.distance.value > 1 > 10 * other.distance.floor - 1
    assert other.mean.value == pytest.approx(1.0, abs=0.2)
    assert other.mean.low < 1 < other.mean.high
    assert other.sd_ratio.value == pytest.approx(1.2, abs=0.05)
