"""What is measured on one ensemble alone: torsions, bonds, populations, and whether its molecules are whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mdtraj
import numpy as np

from scoremd.analysis.fold import CONTACT, NativeStructure
from scoremd.analysis.histograms import Histogram, histogram
from scoremd.analysis.intervals import Estimate, average, check_groups, fraction
from scoremd.analysis.plane import Plane
from scoremd.analysis.structure import Limits, mirror_images, pair_distances, superposed

if TYPE_CHECKING:
    from scoremd.systems import System

#: Frames of each ensemble that are looked at.
SHOWN = 12
#: What the population of frames near the native structure is called.
FOLDED_STATE = "the folded state (at least half of the native contacts)"


@dataclass(frozen=True)
class Observed:
    """One ensemble, measured.

    Attributes
    ----------
    variables
        (frame, 2) collective variables of the plane; angles in radians.
    lengths
        (frame, bond) bonded distances, nm.
    groups
        (frame,) trajectory of each frame; None if every frame was drawn independently.
    counted
        Frames in the cells of the plane's grid.
    basins
        Population of each named basin, and of the folded state where the system has a native structure.
    broken, clashing
        Fractions of frames with a broken bond and with a clash.
    mirrored
        Fraction of frames with a mirror image, of a residue or of the native structure; None where the beads do not show it.
    contacts
        (pair,) fraction of frames in which beads more than two bonds apart are in contact.
    rmsd
        (frame,) root mean square deviation from the native structure, nm; None if the system has none.
    shown
        `SHOWN` frames, evenly chosen, to look at: superposed on the limits' frame.
    """

    variables: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray | None
    counted: Histogram
    basins: dict[str, Estimate]
    broken: Estimate
    clashing: Estimate
    mirrored: Estimate | None
    contacts: np.ndarray
    rmsd: np.ndarray | None
    shown: mdtraj.Trajectory

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.variables)

    @property
    def n_groups(self) -> int | None:
        """Number of trajectories; None if every frame was drawn independently."""
        return None if self.groups is None else len(np.unique(self.groups))

    @property
    def mean_rmsd(self) -> Estimate | None:
        """Mean deviation from the native structure, nm; None if the system has none."""
        return None if self.rmsd is None else average(self.rmsd, self.groups)

    def map(self) -> np.ndarray:
        """(first bin, second bin) number of frames in the plane."""
        cells = self.counted.counts[:-1]
        return cells.reshape(2 * [round(len(cells) ** 0.5)])


def observe(
    traj: mdtraj.Trajectory,
    system: System,
    *,
    groups: np.ndarray | None,
    limits: Limits,
    plane: Plane,
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
    plane
        Collective variables, and regions of them to count.
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
    variables = plane.project(traj)
    beads = mdtraj.Trajectory(traj.xyz, system.topology())
    wrong, native = mirror_images(beads), NativeStructure.of(system)
    basins = {basin: inside(variables) for basin, inside in plane.basins.items()}
    if native is not None:
        basins[FOLDED_STATE], mirrored = native.folded(beads), native.mirrored(beads)
        wrong = mirrored if wrong is None else wrong | mirrored
    return Observed(
        variables=variables,
        lengths=pair_distances(traj, system.bonds),
        groups=groups,
        counted=histogram(variables, range=plane.range, bins=plane.bins, groups=groups, name=name),
        basins={basin: fraction(inside, groups) for basin, inside in basins.items()},
        broken=fraction(limits.broken(traj), groups),
        clashing=fraction(limits.clashes(traj), groups),
        mirrored=None if wrong is None else fraction(wrong, groups),
        contacts=(pair_distances(traj, limits.pairs) < CONTACT).mean(0),
        rmsd=None if native is None else native.rmsd(beads),
        shown=superposed(beads[np.linspace(0, len(beads) - 1, SHOWN).astype(int)], limits.frame),
    )
