"""Forces of atoms gathered onto beads with the least noise that a fixed linear map can reach."""

import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scoremd.errors import ScoreMDError

_log = logging.getLogger("scoremd")

#: Directions of the left-out forces weaker than this (of the strongest, squared) carry no usable signal.
_RANK_TOLERANCE = 1e-10
#: Components of forces that there must be for each weight: with fewer the fit follows the forces themselves, and takes them away.
_COMPONENTS_PER_WEIGHT = 20
#: So many for each weight make what is fitted away, of signal and noise alike, one part in so many.
_ENOUGH_PER_WEIGHT = 100


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
        If the array has another shape, an index is repeated or out of range, or there are too few frames.

    References
    ----------
    Krämer, Durumeric, Charron, Chen, Clementi, Noé, J. Phys. Chem. Lett. 14, 3970 (2023).
    """
    forces = np.asarray(forces)
    if forces.ndim != 3 or forces.shape[2] != 3:
        raise ScoreMDError(f"forces have shape {forces.shape}; (frame, atom, 3) is needed")
    return force_map(forces.shape[1], beads, [forces])(forces)


def force_map(
    n_atoms: int, beads: Sequence[int], forces: Iterable[NDArray[np.floating]], rigid: Sequence[tuple[int, int]] = ()
) -> Callable[[NDArray[np.floating]], NDArray[np.float32]]:
    """The map of `aggregate_forces`, fitted to forces that come in parts.

    Parameters
    ----------
    n_atoms
        Of the molecule.
    beads
        The atom index of each bead, without repeats.
    forces
        Parts of the frames, each (frame, atom, 3), which are gone through once.
    rigid
        Pairs of atoms that a constraint joins: they get equal weights, in that of their forces the constraint's cancel. Two beads cannot be
        joined.

    Returns
    -------
    a function of (frame, atom, 3), kJ/mol/nm, that gives (frame, bead, 3)

    Raises
    ------
    ScoreMDError
        If an index is repeated or out of range, a constraint joins two beads, or there are too few frames to fit the weights.
    """
    kept = check_bead_indices(beads, n_atoms)
    group = _rigid_groups(n_atoms, rigid)
    own_group, counts = np.unique(group[kept], return_counts=True)
    if counts.max() > 1:
        i, j = kept[group[kept] == own_group[counts.argmax()]][:2]
        raise ScoreMDError(f"atoms {i} and {j} are beads that constraints join: their forces are not known, so do without forces")
    left_out = np.setdiff1d(np.unique(group), own_group)

    def rows_of(part: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # A row per frame and direction: x, y and z share their weights, or the map would not turn with the molecule.
        rows: NDArray[np.float64] = np.asarray(part, np.float64).transpose(0, 2, 1).reshape(-1, n_atoms)
        if len(rigid):
            joined = np.zeros(rows.shape)
            np.add.at(joined.T, group, rows.T)
            rows = joined
        return rows[:, group[kept]], rows[:, left_out]

    weights: NDArray[np.floating] = np.zeros((len(left_out), len(kept)))
    if len(left_out):
        square, product = np.zeros((len(left_out), len(left_out))), np.zeros((len(left_out), len(kept)))
        components = 0
        for part in forces:
            own, free = rows_of(part)
            components += len(own)
            square += free.T @ free
            product += free.T @ own
        if components < _COMPONENTS_PER_WEIGHT * len(left_out):
            needed = -(-_COMPONENTS_PER_WEIGHT * len(left_out) // 3)
            raise ScoreMDError(
                f"forces of {components // 3} frames are too few to gather those of {len(left_out)} atoms onto beads: {needed} are needed; "
                "or do without forces"
            )
        if components < _ENOUGH_PER_WEIGHT * len(left_out):
            _log.warning(
                "forces of %d frames are few to gather those of %d atoms onto beads: about %.0f %% of the forces themselves are fitted "
                "away; %d frames make it %.0f %%",
                *(components // 3, len(left_out), 100 * len(left_out) / components),
                *(-(-_ENOUGH_PER_WEIGHT * len(left_out) // 3), 100 / _ENOUGH_PER_WEIGHT),
            )
        weights = np.linalg.lstsq(square, -product, rcond=_RANK_TOLERANCE)[0]

    def gathered(part: NDArray[np.floating]) -> NDArray[np.float32]:
        own, free = rows_of(part)
        whole = own + free @ weights
        whole -= whole.mean(axis=1, keepdims=True)
        return whole.reshape(len(part), 3, len(kept)).transpose(0, 2, 1).astype(np.float32)

    return gathered


def _rigid_groups(n_atoms: int, rigid: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The lowest atom of the group of each atom, groups being what constraints join."""
    group = np.arange(n_atoms)
    for a, b in rigid:
        low, high = sorted((group[a], group[b]))
        group[group == high] = low
    return group


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
