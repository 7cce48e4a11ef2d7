"""Is the molecule whole: bonded distances, broken bonds, clashes and mirror images.

- A bond is **broken** where its length is more than `BROKEN` = 0.05 nm from the reference's mean: over ten standard
  deviations of a covalent bond at 300 K.
- Two beads more than two bonds apart **clash** where they are nearer than `CLASH` = 0.7 of the distance that 99.9 % of
  the reference's frames exceed. A quantile, because the smallest of all distances depends on the number of frames.
- A residue is a **mirror image** where (N - CA) x (C - CA) . (CB - CA) < 0: a D-amino acid. It can be seen only where
  these four are beads; glycine has no CB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mdtraj
import numpy as np

from scoremd.analysis.intervals import Estimate, blocks, difference, grouped, transform
from scoremd.analysis.metrics import REPEATS, Divergence

#: Nanometres from the reference's mean at which a bond is broken.
BROKEN = 0.05
#: Share of the reference's contact distance below which two beads clash.
CLASH = 0.7
PICOMETRES = 1000.0


def pair_distances(traj: mdtraj.Trajectory, pairs: Sequence[Sequence[int]]) -> np.ndarray:
    """Distances between beads, without periodic images.

    Parameters
    ----------
    traj
        Trajectory.
    pairs
        (n, 2) bead indices.

    Returns
    -------
    np.ndarray
        (frame, n) nm, float64.
    """
    columns = [np.linalg.norm(traj.xyz[:, i] - traj.xyz[:, j], axis=-1) for i, j in pairs]
    return np.stack(columns, axis=-1).astype(np.float64) if columns else np.zeros((traj.n_frames, 0))


def distant_pairs(n_beads: int, bonds: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Pairs of beads more than two bonds apart."""
    adjacent = np.eye(n_beads, dtype=int)
    for i, j in bonds:
        adjacent[i, j] = adjacent[j, i] = 1
    near = adjacent @ adjacent > 0
    return [(i, j) for i in range(n_beads) for j in range(i + 1, n_beads) if not near[i, j]]


@dataclass(frozen=True)
class Limits:
    """What counts as whole, from a reference trajectory.

    Attributes
    ----------
    bonds
        (n, 2) bead indices of the bonds.
    lengths
        (n,) mean lengths, nm.
    pairs
        Pairs of beads more than two bonds apart.
    contacts
        Distance of each pair below which it clashes, nm.
    frame
        The first frame, for others to be superposed on.
    """

    bonds: Sequence[Sequence[int]]
    lengths: np.ndarray
    pairs: list[tuple[int, int]]
    contacts: np.ndarray
    frame: mdtraj.Trajectory

    @classmethod
    def of(cls, reference: mdtraj.Trajectory, bonds: Sequence[Sequence[int]]) -> Limits:
        """The limits that a reference sets."""
        pairs = distant_pairs(reference.n_atoms, bonds)
        contacts = [CLASH * np.quantile(pair_distances(reference, [pair]), 0.001) for pair in pairs]
        return cls(bonds, pair_distances(reference, bonds).mean(0), pairs, np.array(contacts), reference[0])

    def broken(self, traj: mdtraj.Trajectory) -> np.ndarray:
        """(frame,) whether any bond of a frame is broken."""
        return np.asarray((np.abs(pair_distances(traj, self.bonds) - self.lengths) > BROKEN).any(1))

    def clashes(self, traj: mdtraj.Trajectory) -> np.ndarray:
        """(frame,) whether any two beads of a frame clash."""
        hit = np.zeros(traj.n_frames, dtype=bool)
        for pair, contact in zip(self.pairs, self.contacts, strict=True):
            hit |= pair_distances(traj, [pair])[:, 0] < contact
        return hit


def mean_difference(contacts: np.ndarray) -> float:
    """Mean absolute difference of two contact maps, from that of each pair, (pair,); 0 where there are no pairs."""
    return float(np.abs(contacts).mean()) if len(contacts) else 0.0


def largest_difference(contacts: np.ndarray) -> float:
    """Largest absolute difference of two contact maps, as `mean_difference`."""
    return float(np.abs(contacts).max()) if len(contacts) else 0.0


def mirror_images(traj: mdtraj.Trajectory) -> np.ndarray | None:
    """Frames in which any residue is a D-amino acid.

    Parameters
    ----------
    traj
        Trajectory whose topology names its beads as atoms.

    Returns
    -------
    np.ndarray or None
        (frame,) bool; None if no residue has beads N, CA, C and CB.
    """
    wrong = None
    for residue in traj.topology.residues:
        at = {atom.name: atom.index for atom in residue.atoms}
        if {"N", "CA", "C", "CB"} <= set(at):
            n, c, cb = (traj.xyz[:, at[name]] - traj.xyz[:, at["CA"]] for name in ("N", "C", "CB"))
            mirrored = np.einsum("fi,fi->f", np.cross(n, c), cb) < 0
            wrong = mirrored if wrong is None else wrong | mirrored
    return wrong


def superposed(traj: mdtraj.Trajectory, frame: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Frames moved and turned onto one frame with the least deviation of the beads (Kabsch, Acta Cryst. A 32, 922, 1976).

    mdtraj's own superposition leaves some frames as they are, where its iteration does not converge.
    """
    target = frame.xyz[0].astype(float) - frame.xyz[0].mean(0, dtype=float)
    x = traj.xyz.astype(float) - traj.xyz.mean(1, keepdims=True, dtype=float)
    u, _, v = np.linalg.svd(np.einsum("fbi,bj->fij", x, target))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]
    return mdtraj.Trajectory(x @ (u @ v) + frame.xyz[0].mean(0, dtype=float), traj.topology)


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """First Wasserstein distance of two samples of one number, in their unit: the mean move that turns a into b.

    Parameters
    ----------
    a, b
        (n,) and (m,) values.

    Returns
    -------
    float
        The integral of |F_a - F_b| over the axis.
    """
    a, b = np.sort(a), np.sort(b)
    if len(a) == len(b):
        return float(np.mean(np.abs(a - b)))
    both = np.sort(np.concatenate([a, b]))
    share = [np.searchsorted(x, both[:-1], side="right") / len(x) for x in (a, b)]
    return float(np.sum(np.abs(share[0] - share[1]) * np.diff(both)))


@dataclass(frozen=True)
class BondDifference:
    """How a bonded distance of one ensemble differs from that of another.

    Attributes
    ----------
    name
        The two beads, such as ``CA-C``.
    distance
        First Wasserstein distance in pm with its floor, at as many frames as the other metrics.
    mean
        Difference of the means, pm.
    sd_ratio
        Ratio of the standard deviations.
    """

    name: str
    distance: Divergence
    mean: Estimate
    sd_ratio: Estimate


def _moments(lengths: np.ndarray, groups: np.ndarray | None, centre: float, seed: int) -> tuple[Estimate, Estimate]:
    """Mean length (pm, from `centre`) and logarithm of the standard deviation."""
    x = PICOMETRES * (lengths - centre)
    block = blocks(groups, len(x), np.random.default_rng(seed))
    moments = np.stack([x, x**2], axis=-1)
    mean = grouped(moments, block, lambda m: m[..., 0])
    return mean, grouped(moments, block, lambda m: np.log(np.maximum(m[..., 1] - m[..., 0] ** 2, 1e-12)) / 2)


def compare_bond(
    name: str,
    a: np.ndarray,
    b: np.ndarray,
    *,
    groups_a: np.ndarray | None,
    groups_b: np.ndarray | None,
    reference: np.ndarray | None,
    seed: int,
) -> BondDifference:
    """Compare a bonded distance of two ensembles.

    Parameters
    ----------
    name
        Of the bond.
    a, b
        (frame,) lengths, nm.
    groups_a, groups_b
        (frame,) trajectory of each frame; None if every frame was drawn independently.
    reference
        (frame,) lengths whose disjoint halves give the floor, nm; b if None.
    seed
        Of the random subsamples.

    Returns
    -------
    BondDifference
        a against b.
    """
    rng = np.random.default_rng(seed)
    halved = b if reference is None else reference
    frames = min(len(a), len(b), len(halved) // 2) if reference is not None else min(len(a), len(b) // 2)
    values, floors = np.zeros(REPEATS), np.zeros(REPEATS)
    for k in range(REPEATS):
        mixed = rng.permutation(halved)[: 2 * frames]
        other = mixed[:frames] if reference is None else rng.permutation(b)[:frames]
        values[k] = PICOMETRES * wasserstein(rng.permutation(a)[:frames], other)
        floors[k] = PICOMETRES * wasserstein(mixed[:frames], mixed[frames:])
    distance = Divergence(float(values.mean()), float(floors.mean()), float(np.mean(values - floors)), frames)
    centre = float(np.mean(b))
    mean_a, sd_a = _moments(a, groups_a, centre, seed)
    mean_b, sd_b = _moments(b, groups_b, centre, seed + 1)
    return BondDifference(name, distance, difference(mean_a, mean_b), transform(difference(sd_a, sd_b), np.exp))
