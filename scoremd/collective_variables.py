"""Collective variables of a trajectory, as plain arrays: torsions, and the (phi, psi) pair that a system names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mdtraj
import numpy as np

from scoremd.errors import ScoreMDError
from scoremd.molecules import require_molecule

if TYPE_CHECKING:
    from scoremd.systems import System


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
    return np.asarray(mdtraj.compute_dihedrals(traj, indices, periodic=False), np.float64)


def has_phi_psi(system: System) -> bool:
    """Whether a system names the collective variables phi and psi."""
    return {"phi", "psi"} <= set(system.collective_variables)


def require_phi_psi(system: System) -> None:
    """Refuse a system without the collective variables phi and psi, by a ScoreMDError."""
    if not has_phi_psi(system):
        there = sorted(system.collective_variables) or "none"
        raise ScoreMDError(f"{system.title} has no collective variables phi and psi; it has {there}")


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
    require_phi_psi(system)
    variables = system.collective_variables
    require_molecule(traj, system.topology(), system.title)
    return dihedrals(traj, [variables["phi"], variables["psi"]])
