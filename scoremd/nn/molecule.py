"""What a network is told about molecules: small integer tensors, one row a molecule."""

from typing import NamedTuple

import torch
from torch import Tensor


class MoleculeBatch(NamedTuple):
    """Bead, residue and pair types of a batch of molecules; a leading size of one stands for the whole batch.

    Attributes
    ----------
    bead : (batch or 1, bead) long, index into the model's bead names, 0 where there is no bead (padding)
    residue : (batch or 1, bead) long, index into the model's residue names, 0 is padding
    pair : (batch or 1, offset, bead) long, index into the model's table of pair statistics, 0 where a bead is missing;
        entry (k, i) is the pair of beads i and i + k + 1 (modulo the number of beads)
    """

    bead: Tensor
    residue: Tensor
    pair: Tensor

    def mask(self, dtype: torch.dtype) -> Tensor:
        """One for a bead, zero for padding, shape (batch or 1, bead)."""
        return (self.bead > 0).to(dtype)


def remove_centre(x: Tensor, mask: Tensor) -> Tensor:
    """Subtract the centre of geometry of the beads that exist and set the others to zero.

    Parameters
    ----------
    x : (batch, bead, 3)
    mask : (batch or 1, bead)
    """
    m = mask[..., None]
    return (x - (x * m).sum(1, keepdim=True) / m.sum(1, keepdim=True)) * m
