"""Statistics of reference ensembles that the network's prior and inputs need."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremd.nn.pairs import pair_table

#: A pair counts as bonded (gets a spring in the prior) if the standard deviation of its scaled distance is below this: bonds, the ends
#: of angles, and pairs in planar groups. It is about the noise below which networks are frozen: what fluctuates more needs no spring. A
#: fraction of the mean would not do: long distances across a torsion fluctuate by little of their length, but are no springs.
BONDED_FLUCTUATION = 0.06


def pair_types(n_beads: int) -> Tensor:
    """Type of each pair of slots in the layout of `scoremd.nn.pairs`, from 1, (offset, bead) long; equal for the two halves of an
    even number's last offset.
    """
    partner = pair_table(n_beads).partner.view(-1, n_beads)
    bead = torch.arange(n_beads).expand_as(partner)
    low, high = torch.minimum(bead, partner), torch.maximum(bead, partner)
    return 1 + high * (high - 1) // 2 + low


def pair_statistics(ensembles: list[tuple[NDArray[np.float32], list[int]]], n_slots: int) -> Tensor:
    """Mean and standard deviation of the distance of each pair of slots, and whether it is bonded.

    Parameters
    ----------
    ensembles : (scaled positions (frame, bead, 3), slot of each bead); every ensemble has the same weight
    n_slots : bead slots of the model

    Returns
    -------
    (pair type, 3) in scaled units; row 0 is the padding; pairs that never occur have mean and deviation one
    """
    n_types = 1 + n_slots * (n_slots - 1) // 2
    moments = np.zeros((n_types, 3))
    for positions, slots in ensembles:
        for b, high in enumerate(slots):
            for a, low in enumerate(slots[:b]):
                d = np.linalg.norm(positions[:, a].astype(float) - positions[:, b], axis=-1)
                s, t = min(low, high), max(low, high)
                moments[1 + t * (t - 1) // 2 + s] += 1, d.mean(), (d**2).mean()
    seen = moments[:, 0] > 0
    mean, deviation = np.ones(n_types), np.ones(n_types)
    mean[seen] = moments[seen, 1] / moments[seen, 0]
    deviation[seen] = np.sqrt(np.maximum(moments[seen, 2] / moments[seen, 0] - mean[seen] ** 2, 1e-12))
    bonded = seen & (deviation < BONDED_FLUCTUATION)
    return torch.tensor(np.stack([mean, deviation, bonded], 1), dtype=torch.float32)
