"""Collective variables of a trajectory, as plain arrays: torsions, and the (phi, psi) pair that a system names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mdtraj
import numpy as np

from scoremd.errors import ScoreMDError

if TYPE_CHECKING:
    from scoremd.systems import System


def bead_names(topology: mdtraj.Topology) -> list[tuple[str, str]]:
    """(atom, residue) names of all beads."""
    return [(atom.name, atom.residue.name) for atom in topology.atoms]


def shown(names: Sequence[tuple[str, str]]) -> str:
    """The first of `bead_names`, for a message."""
    return " ".join(f"{residue}:{atom}" for atom, residue in names[:6]) + (" …" if len(names) > 6 else "")


def require_molecule(traj: mdtraj.Trajectory, topology: mdtraj.Topology, name: str) -> None:
    """Refuse a trajectory of another molecule, without frames, or with coordinates that are not finite.

    Parameters
    ----------
    traj
        Trajectory to check.
    topology
        The system's beads.
    name
        What the message calls the trajectory.

    Raises
    ------
    ScoreMDError
        With what is wrong and what is allowed.
    """
    if traj.n_frames == 0:
        raise ScoreMDError(f"{name}: the trajectory has no frames; at least one is needed")
    if traj.n_atoms != topology.n_atoms:
        raise ScoreMDError(f"{name}: the trajectory has {traj.n_atoms} beads where the system has {topology.n_atoms}")
    found, wanted = bead_names(traj.topology), bead_names(topology)
    if found != wanted:
        raise ScoreMDError(f"{name}: is of another molecule: its beads are {shown(found)}, where {shown(wanted)} are needed")
    bad = np.flatnonzero(~np.isfinite(traj.xyz).all(axis=(1, 2)))
    if len(bad):
        raise ScoreMDError(
            f"{name}: {len(bad)} of {traj.n_frames} frames have coordinates that are not finite (first: "
            f"frame {bad[0]}); leave lost replicas out and pass their number"
        )


def dihedrals(traj: mdtraj.Trajectory, quadruples: Sequence[Sequence[int]]) -> np.ndarray:
    """Torsion angles, by the IUPAC sign convention (mdtraj's).

    Periodic boxes are ignored: ScoreMD's molecules are whole.

    Parameters
    ----------
    traj
        Trajectory with at least one frame.
    quadruples
        (n, 4) bead indices.

    Returns
    -------
    np.ndarray
        (frame, n) angles in radians, [-pi, pi], float64.

    Raises
    ------
    ScoreMDError
        If the indices are not quadruples of beads of the trajectory, or the coordinates are not finite.
    """
    indices = np.asarray(quadruples)
    if indices.ndim != 2 or indices.shape[1] != 4 or not np.issubdtype(indices.dtype, np.integer):
        raise ScoreMDError(f"torsions are given by quadruples of bead indices, (n, 4) integers, not {indices.shape}")
    if indices.size and (indices.min() < 0 or indices.max() >= traj.n_atoms):
        raise ScoreMDError(f"torsions name bead {indices.max()}; the trajectory has beads 0 to {traj.n_atoms - 1}")
    require_molecule(traj, traj.topology, "torsions")
    return mdtraj.compute_dihedrals(traj, indices, periodic=False).astype(np.float64)


def phi_psi(traj: mdtraj.Trajectory, system: System) -> np.ndarray:
    """The backbone torsions (phi, psi) that the system names as its collective variables.

    Parameters
    ----------
    traj
        Trajectory of the system's beads.
    system
        Molecule whose ``collective_variables`` hold ``phi`` and ``psi``, four bead indices each.

    Returns
    -------
    np.ndarray
        (frame, 2) angles in radians, [-pi, pi], float64.

    Raises
    ------
    ScoreMDError
        If the system has no phi and psi, or the trajectory is of another molecule.
    """
    variables = system.collective_variables
    if not {"phi", "psi"} <= set(variables):
        raise ScoreMDError(f"{system.title} has no collective variables phi and psi; it has {sorted(variables)}")
    require_molecule(traj, system.topology(), system.title)
    return dihedrals(traj, [variables["phi"], variables["psi"]])
