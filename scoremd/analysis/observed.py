"""What is measured on one ensemble alone: torsions, bonds, populations, and whether its molecules are whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mdtraj
import numpy as np

from scoremd.analysis.basins import Basins
from scoremd.analysis.histograms import Histogram, histogram
from scoremd.analysis.intervals import Estimate, check_groups, fraction
from scoremd.analysis.structure import Limits, mirror_images, pair_distances
from scoremd.collective_variables import phi_psi

if TYPE_CHECKING:
    from scoremd.systems import System

#: The grid of the Ramachandran plot.
RANGE = [[-np.pi, np.pi], [-np.pi, np.pi]]
BINS = 64


@dataclass(frozen=True)
class Observed:
    """One ensemble, measured.

    Attributes
    ----------
    angles
        (frame, 2) phi and psi, radians.
    lengths
        (frame, bond) bonded distances, nm.
    groups
        (frame,) trajectory of each frame; None if every frame was drawn independently.
    ramachandran
        Frames in the cells of the (phi, psi) grid.
    basins
        Population of each named basin.
    broken, clashing
        Fractions of frames with a broken bond and with a clash.
    mirrored
        Fraction of frames with a mirror image; None where the beads do not show it.
    """

    angles: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray | None
    ramachandran: Histogram
    basins: dict[str, Estimate]
    broken: Estimate
    clashing: Estimate
    mirrored: Estimate | None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.angles)

    @property
    def n_groups(self) -> int | None:
        """Number of trajectories; None if every frame was drawn independently."""
        return None if self.groups is None else len(np.unique(self.groups))

    def map(self) -> np.ndarray:
        """(phi bin, psi bin) number of frames."""
        return self.ramachandran.counts[:-1].reshape(BINS, BINS)


def observe(
    traj: mdtraj.Trajectory,
    system: System,
    *,
    groups: np.ndarray | None,
    limits: Limits,
    basins: Basins,
    name: str,
) -> Observed:
    """Measure an ensemble.

    Parameters
    ----------
    traj
        Frames of the system's beads.
    system
        The molecule; its topology, not the trajectory's, names the beads.
    groups
        (frame,) trajectory of each frame; None if every frame was drawn independently.
    limits
        What counts as whole.
    basins
        Regions of (phi, psi) to count.
    name
        What messages call the ensemble.

    Returns
    -------
    Observed
        The measurements.

    Raises
    ------
    ScoreMDError
        If the trajectory is of another molecule or has fewer than two frames, or the groups do not fit it.
    """
    groups = check_groups(groups, traj.n_frames)
    angles = phi_psi(traj, system)
    wrong = mirror_images(mdtraj.Trajectory(traj.xyz, system.topology()))
    return Observed(
        angles=angles,
        lengths=pair_distances(traj, system.bonds),
        groups=groups,
        ramachandran=histogram(angles, range=RANGE, bins=BINS, groups=groups, name=name),
        basins={basin: fraction(inside(angles), groups) for basin, inside in basins.items()},
        broken=fraction(limits.broken(traj), groups),
        clashing=fraction(limits.clashes(traj), groups),
        mirrored=None if wrong is None else fraction(wrong, groups),
    )
