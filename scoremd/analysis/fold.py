"""How near a chain is to its native structure: RMSD, native contacts, and folds to the mirror image.

A pair of beads more than two bonds apart is a **native contact** where they are within `CONTACT` = 0.8 nm in the native structure; a frame
has it where they are within `REACH` = 1.2 times their native distance, as is usual for one bead a residue (Clementi, Nymeyer & Onuchic,
J. Mol. Biol. 298, 937, 2000). Contacts do not tell a fold from its mirror image, the root mean square deviation after superposition (by
proper rotations) does: a frame with at least half of the native contacts is **folded**, or, if the native structure's mirror image is
the nearer one, **folded to the mirror image**.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mdtraj
import numpy as np

from scoremd.analysis.structure import distant_pairs, pair_distances
from scoremd.errors import ScoreMDError

if TYPE_CHECKING:
    from scoremd.systems import System

#: Distance below which two beads are in contact, nm.
CONTACT = 0.8
#: What native distances are multiplied by to be those below which a frame has a native contact.
REACH = 1.2
#: Share of the native contacts that a folded frame has at least.
FOLDED = 0.5


@dataclass(frozen=True)
class NativeStructure:
    """What frames are held against.

    Attributes
    ----------
    structure
        One frame of the system's beads.
    pairs
        Native contacts.
    distances
        (pair,) their native distances, nm.
    """

    structure: mdtraj.Trajectory
    pairs: list[tuple[int, int]]
    distances: np.ndarray

    @classmethod
    def of(cls, system: System) -> NativeStructure | None:
        """That of a system; None if it has none.

        Raises
        ------
        ScoreMDError
            If it has no contacts.
        """
        if not system.native:
            return None
        structure = mdtraj.Trajectory(np.array([system.native], np.float32), system.topology())
        every = distant_pairs(len(system.beads), system.bonds)
        distances = pair_distances(structure, every)[0]
        near = distances < CONTACT
        if not near.any():
            raise ScoreMDError(f"the native structure of {system.name} has no contacts: no beads three bonds apart are within {CONTACT} nm")
        return cls(structure, [pair for pair, is_near in zip(every, near, strict=True) if is_near], distances[near])

    def rmsd(self, traj: mdtraj.Trajectory) -> np.ndarray:
        """(frame,) root mean square deviation of the beads from the native structure after superposition, nm."""
        return np.asarray(mdtraj.rmsd(traj, self.structure), np.float64)

    def contacts(self, traj: mdtraj.Trajectory) -> np.ndarray:
        """(frame,) share of the native contacts that a frame has."""
        return np.asarray((pair_distances(traj, self.pairs) < REACH * self.distances).mean(1))

    def folded(self, traj: mdtraj.Trajectory) -> np.ndarray:
        """(frame,) whether a frame is folded, with the handedness of the native structure."""
        return np.asarray((self.contacts(traj) >= FOLDED) & ~self._nearer_to_mirror_image(traj))

    def mirrored(self, traj: mdtraj.Trajectory) -> np.ndarray:
        """(frame,) whether a frame is folded to the mirror image."""
        return np.asarray((self.contacts(traj) >= FOLDED) & self._nearer_to_mirror_image(traj))

    def _nearer_to_mirror_image(self, traj: mdtraj.Trajectory) -> np.ndarray:
        mirror_image = mdtraj.Trajectory(-self.structure.xyz, self.structure.topology)
        return np.asarray(mdtraj.rmsd(traj, mirror_image) < mdtraj.rmsd(traj, self.structure))
