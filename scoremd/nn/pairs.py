"""Unordered pairs of beads without index tables: pair (k, i) joins beads i and i + k (modulo N), k = 1 ... N // 2.

For odd N each unordered pair occurs once. For even N those of the last offset occur twice and are counted half. Going from beads to
pairs is then a set of permutations, one for each offset, and so is the way back: both are gathers, and each is the adjoint of the
other, so that energies, forces and their derivatives need no scatter at all.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class PairTable(NamedTuple):
    """The permutations for N beads, flattened over (offset, bead).

    Attributes
    ----------
    partner : (offset * bead,) bead i + k of pair (k, i)
    source : (offset * bead,) the pair whose partner, at each offset, is bead i
    weight : (offset, 1) how much each pair counts in a sum over unordered pairs: 1, or 1/2 where it occurs twice
    """

    partner: Tensor
    source: Tensor
    weight: Tensor


def pair_table(n_beads: int) -> PairTable:
    """The table for `n_beads` beads."""
    beads, offsets = torch.arange(n_beads), torch.arange(1, n_beads // 2 + 1)[:, None]
    partner = (beads + offsets) % n_beads
    source = (offsets - 1) * n_beads + (beads - offsets) % n_beads
    weight = torch.ones(len(offsets), 1)
    if n_beads % 2 == 0:
        weight[-1] = 0.5
    return PairTable(partner.flatten(), source.flatten(), weight)


class _Partners(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, partner: Tensor, source: Tensor) -> Tensor:
        ctx.save_for_backward(partner, source)
        return torch.index_select(q, 1, partner).unflatten(1, (-1, q.shape[1]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Collect.apply(grad, *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, partner: Tensor, source: Tensor) -> Tensor:
        ctx.save_for_backward(partner, source)
        return torch.index_select(m.flatten(1, 2), 1, source).unflatten(1, m.shape[1:3]).sum(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Partners.apply(grad, *ctx.saved_tensors), None, None


def partners(q: Tensor, table: PairTable) -> Tensor:
    """Bead quantity at the partner of each pair: (batch, bead, ...) -> (batch, offset, bead, ...)."""
    return _Partners.apply(q, table.partner, table.source)


def collect(m: Tensor, table: PairTable) -> Tensor:
    """Sum of pair quantities at their partners: (batch, offset, bead, ...) -> (batch, bead, ...); the adjoint of `partners`."""
    return _Collect.apply(m, table.partner, table.source)
