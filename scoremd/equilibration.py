"""The beginning of simulations, which still knows where it began, and is dropped."""

import mdtraj
import numpy as np
from numpy.typing import NDArray

#: Share of a simulation's frames that is dropped before it is compared.
EQUILIBRATION = 0.1


def equilibrated(
    trajectory: mdtraj.Trajectory, replicas: NDArray[np.int64] | None, share: float = EQUILIBRATION
) -> tuple[mdtraj.Trajectory, NDArray[np.int64] | None]:
    """Drop the beginning of each replica.

    Parameters
    ----------
    trajectory : one replica after the other
    replicas : replica of each frame; None for a single one
    share : of the time that is dropped
    """
    n = trajectory.n_frames
    if replicas is None:
        return trajectory[int(share * n) :], None
    first = np.flatnonzero(np.r_[True, np.diff(replicas) != 0])
    lengths = np.diff(np.r_[first, n])
    position = np.arange(n) - np.repeat(first, lengths)
    # the same stretch of time of every replica, also of one that was lost
    kept = position >= int(share * lengths.max())
    return trajectory[kept], replicas[kept]
