"""The two collective variables that ensembles are compared on: (phi, psi) of molecules that have them, slow ones of others.

The slow ones are the first two time-lagged independent components (TICA: Pérez-Hernández et al., J. Chem. Phys. 139, 015102, 2013) of the
distances of all beads more than two bonds apart, by deeptime. They are learned from the reference, or without one from the simulation, and
their range holds its 0.1 to 99.9 % quantiles; what lies outside is counted in one cell of its own. Frames of one trajectory are taken
to follow each other in time, as those of a simulation do. Those of a walker of replica exchange (`scoremd reference`) only follow each
other in order: the components are then what such a walker loses last, not the slowest of the dynamics. As variables they serve as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import mdtraj
import numpy as np
from deeptime.decomposition import TICA

from scoremd.analysis.basins import RAMACHANDRAN, Basins
from scoremd.analysis.structure import distant_pairs, pair_distances
from scoremd.collective_variables import has_phi_psi, phi_psi
from scoremd.errors import ScoreMDError

if TYPE_CHECKING:
    from scoremd.systems import System

#: Frames between those whose correlation makes a variable slow.
LAG = 10
#: Distances that the components are made of, at most: of more every so many is taken.
_MOST_PAIRS = 2000
#: Cells along each axis.
_ANGLE_BINS, _COMPONENT_BINS = 64, 100
_OUTSIDE = 0.001


@dataclass(frozen=True)
class Plane:
    """Two collective variables and their grid.

    Attributes
    ----------
    symbols
        What they are called.
    project
        Trajectory of the system's beads -> (frame, 2).
    range
        (2, 2) low and high end of each.
    bins
        Cells along each axis, an even number.
    basins
        Named regions of the plane.
    unit, factor
        For plots: the name of the unit, and what the variables are multiplied by to be in it.
    """

    symbols: tuple[str, str]
    project: Callable[[mdtraj.Trajectory], np.ndarray]
    range: np.ndarray
    bins: int
    basins: Basins = field(default_factory=dict)
    unit: str = ""
    factor: float = 1.0

    @property
    def name(self) -> str:
        """Of both variables."""
        return f"({', '.join(self.symbols)})"


def plane_of(system: System, trajectories: Mapping[str, mdtraj.Trajectory], groups: Mapping[str, np.ndarray | None]) -> Plane:
    """The plane that ensembles of a system are compared on.

    Parameters
    ----------
    system
        The molecule.
    trajectories
        Ensembles by their name: `reference`, `samples`, `simulation`.
    groups
        (frame,) trajectory of each of their frames.

    Raises
    ------
    ScoreMDError
        If the system has no phi and psi, and too few beads, or neither reference nor simulation has a trajectory of more than `LAG` frames.
    """
    if has_phi_psi(system):
        return ramachandran_plane(system)
    lengths = {name: longest(trajectories[name].n_frames, groups[name]) for name in ("reference", "simulation") if name in trajectories}
    require_plane(system, lengths)
    learned_from = next(name for name, length in lengths.items() if length > LAG)
    return slow_plane(system, trajectories[learned_from], groups[learned_from])


def require_plane(system: System, lengths: Mapping[str, int]) -> None:
    """Refuse what `plane_of` would refuse.

    Parameters
    ----------
    system
        The molecule.
    lengths
        Frames of the longest trajectory of the reference and of the simulation, of what there will be.

    Raises
    ------
    ScoreMDError
        As `plane_of`.
    """
    if has_phi_psi(system):
        return
    if len(_pairs(system)) < 2:
        raise ScoreMDError(f"{system.title} has no phi and psi, and too few beads for slow variables: five in a chain are needed")
    if not any(length > LAG for length in lengths.values()):
        there = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "neither is given"
        raise ScoreMDError(
            f"{system.title} has no phi and psi: slow variables need trajectories of more than {LAG} frames in the reference or the "
            f"simulation ({there})"
        )


def longest(n_frames: int, groups: np.ndarray | None) -> int:
    """Frames of the longest trajectory of an ensemble, whose frames are of the trajectories `groups`, (frame,), or of one if None."""
    return n_frames if groups is None else int(np.unique(groups, return_counts=True)[1].max())


def _pairs(system: System) -> list[tuple[int, int]]:
    pairs = distant_pairs(len(system.beads), system.bonds)
    return pairs[:: -(-len(pairs) // _MOST_PAIRS)] if pairs else []


def ramachandran_plane(system: System) -> Plane:
    """(phi, psi), on the whole torus."""
    whole = np.array([[-np.pi, np.pi]] * 2)
    return Plane(("φ", "ψ"), lambda traj: phi_psi(traj, system), whole, _ANGLE_BINS, RAMACHANDRAN, "°", 180 / np.pi)


def slow_plane(system: System, trajectory: mdtraj.Trajectory, groups: np.ndarray | None) -> Plane:
    """The first two time-lagged independent components.

    Parameters
    ----------
    system
        The molecule.
    trajectory
        What they are learned from, in the order of time within each group.
    groups
        (frame,) trajectory of each frame; None if it is a single one.

    Raises
    ------
    ScoreMDError
        As `plane_of`.
    """
    require_plane(system, {"trajectory": longest(trajectory.n_frames, groups)})
    pairs = _pairs(system)
    distances = pair_distances(trajectory, pairs)
    parts = [distances] if groups is None else [distances[groups == group] for group in np.unique(groups)]
    model = TICA(lagtime=LAG, dim=2).fit_fetch([part for part in parts if len(part) > LAG])
    # the sign of a component is arbitrary: make the distance that counts most count upwards
    loadings = model.transform(np.eye(len(pairs)) + distances.mean(0)) - model.transform(distances.mean(0, keepdims=True))
    sign = np.sign(loadings[np.abs(loadings).argmax(0), range(2)])

    def project(traj: mdtraj.Trajectory) -> np.ndarray:
        return np.asarray(model.transform(pair_distances(traj, pairs)) * sign)

    seen = np.asarray(model.transform(distances) * sign)
    ends = np.quantile(seen, [_OUTSIDE, 1 - _OUTSIDE], axis=0).T
    return Plane(("TIC 1", "TIC 2"), project, ends, _COMPONENT_BINS)
