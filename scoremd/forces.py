"""Forces of atoms gathered onto beads with the least noise that a fixed linear map can reach."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scoremd.errors import ScoreMDError

#: Directions of the left-out forces weaker than this (of the strongest, squared) carry no usable signal.
_RANK_TOLERANCE = 1e-10


def aggregate_forces(forces: NDArray[np.floating], beads: Sequence[int]) -> NDArray[np.float32]:
    """Forces on beads from forces on atoms: unbiased for the mean force, of least mean square.

    A bead sits on an atom. Its force is that atom's own (weight 1), nothing of the other beads' atoms (weight 0), and
    any fixed combination of the atoms that are left out, f_b + Σ_k W_kb f_k. Where no bond is constrained (a constraint
    asks for equal weights of the atoms that it joins), every such combination has the same mean at given bead
    positions, so the W of least mean square is the one with the least noise. The mean force of a free molecule sums to
    zero; what the sum still holds is noise and is taken away in equal parts.

    Parameters
    ----------
    forces
        (frame, atom, 3), kJ/mol/nm, from a simulation without constraints. The weights are fitted to these frames: give
        many more frames than atoms.
    beads
        The atom index of each bead, without repeats.

    Returns
    -------
    (frame, bead, 3), kJ/mol/nm.

    Raises
    ------
    ScoreMDError
        If the array has another shape, or an index is repeated or out of range.

    References
    ----------
    Krämer, Durumeric, Charron, Chen, Clementi, Noé, J. Phys. Chem. Lett. 14, 3970 (2023).
    """
    forces = np.asarray(forces)
    if forces.ndim != 3 or forces.shape[2] != 3:
        raise ScoreMDError(f"forces have shape {forces.shape}; (frame, atom, 3) is needed")
    kept = check_bead_indices(beads, forces.shape[1])
    left_out = np.setdiff1d(np.arange(forces.shape[1]), kept)
    # A row per frame and direction: x, y and z share their weights, or the map would not turn with the molecule.
    rows = forces.transpose(0, 2, 1).reshape(-1, forces.shape[1]).astype(np.float64)
    own, free = rows[:, kept], rows[:, left_out]
    if len(left_out):
        weights = np.linalg.lstsq(free.T @ free, -free.T @ own, rcond=_RANK_TOLERANCE)[0]
        own = own + free @ weights
    own -= own.mean(axis=1, keepdims=True)
    return own.reshape(len(forces), 3, len(kept)).transpose(0, 2, 1).astype(np.float32)


def check_bead_indices(beads: Sequence[int], n_atoms: int) -> NDArray[np.int64]:
    """The bead indices as an array, or a ScoreMDError if one is repeated, out of range, or none is given."""
    kept = np.asarray(beads, dtype=np.int64)
    if kept.ndim != 1 or len(kept) == 0:
        raise ScoreMDError("the beads must be a list of at least one atom index")
    if len(np.unique(kept)) != len(kept):
        raise ScoreMDError(f"each bead needs an atom of its own, but atoms are repeated in {kept.tolist()}")
    if kept.min() < 0 or kept.max() >= n_atoms:
        raise ScoreMDError(f"bead indices must be from 0 to {n_atoms - 1}, not {kept.tolist()}")
    return kept
