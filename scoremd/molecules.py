"""Whether beads are those of the molecule that is wanted."""

from collections.abc import Sequence
from itertools import zip_longest

import mdtraj
import numpy as np

from scoremd.errors import ScoreMDError


def bead_names(topology: mdtraj.Topology) -> list[tuple[str, str]]:
    """(atom, residue) names of all beads."""
    return [(atom.name, atom.residue.name) for atom in topology.atoms]


def first_difference(wanted: Sequence[str], found: Sequence[str]) -> tuple[str, str] | None:
    """The first two that differ, "nothing" beyond the end of a sequence; None where all are the same."""
    return next(((a, b) for a, b in zip_longest(wanted, found, fillvalue="nothing") if a != b), None)


def require_beads(found: list[tuple[str, str]], topology: mdtraj.Topology, name: str) -> None:
    """Refuse beads with other `bead_names` than those of `topology`; `name` is what the message calls them.

    Raises
    ------
    ScoreMDError
        With what is wrong and what is allowed.
    """
    wanted = bead_names(topology)
    if found != wanted:
        raise ScoreMDError(f"{name}: is of another molecule: its beads are {_shown(found)}, where {_shown(wanted)} are needed")


def _shown(names: list[tuple[str, str]]) -> str:
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
    require_beads(bead_names(traj.topology), topology, name)
    bad = np.flatnonzero(~np.isfinite(traj.xyz).all(axis=(1, 2)))
    if len(bad):
        raise ScoreMDError(
            f"{name}: {len(bad)} of {traj.n_frames} frames have coordinates that are not finite (first: "
            f"frame {bad[0]}); leave lost replicas out and pass their number"
        )
