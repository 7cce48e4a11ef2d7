"""Unordered pairs of beads: all of them, without index tables, or those that are near, with one.

Pair (k, i) joins beads i and i + k (modulo N), k = 1 ... N // 2. For odd N each unordered pair occurs once. For even N those of the last
offset occur twice and are counted half. Going from beads to pairs is then a set of permutations, one for each offset, and so is the way
back: both are gathers, and each is the adjoint of the other, so that energies, forces and their derivatives need no scatter at all. Pairs
that are near are fewer, but other ones in each conformation: `NearPairs` pays scatters for doing less.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoremd.nn.radius_graph import radius_graph


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

    def here(self, q: Tensor) -> Tensor:
        """Bead quantity (batch, bead, ...) at the first bead of each pair: (batch, 1, bead, ...)."""
        return q[:, None]

    def there(self, q: Tensor) -> Tensor:
        """Bead quantity (batch, bead, ...) at the partner of each pair: (batch, offset, bead, ...)."""
        return partners(q, self)

    def total(self, here: Tensor, there: Tensor) -> Tensor:
        """Sum at the beads (batch, bead, ...) of quantities of pairs, one for their first beads and one for their partners."""
        return here.sum(1) + collect(there, self)


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


class NearPairs(NamedTuple):
    """Those pairs of a batch of conformations whose beads are near each other, with the methods of `PairTable`.

    A pair that `PairTable` has twice is here twice as well, so that its weights serve both.

    Attributes
    ----------
    first, partner : (pair,) the beads, counted through the batch
    conformation, entry : (pair,) which of the batch, and which of the flattened (offset, bead)
    shape : (batch, bead)
    """

    first: Tensor
    partner: Tensor
    conformation: Tensor
    entry: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, x: Tensor, radius: float) -> "NearPairs":
        """Those within `radius` of each other in `x`, (batch, bead, 3)."""
        n = x.shape[1]
        partner, first = radius_graph(x.detach(), radius)
        offset = (partner - first) % n
        kept = offset <= n // 2
        first, partner, offset = first[kept], partner[kept], offset[kept]
        return cls(first, partner, first // n, (offset - 1) * n + first % n, (len(x), n))

    def chosen(self, q: Tensor) -> Tensor:
        """Of a quantity of all pairs (batch or 1, offset, bead, ...) what these have: (pair, ...)."""
        rows = self.entry if len(q) == 1 else self.conformation * (q.shape[1] * q.shape[2]) + self.entry
        return torch.index_select(q.flatten(0, 2), 0, rows)

    def here(self, q: Tensor) -> Tensor:
        """Bead quantity (batch, bead, ...) at the first bead of each pair: (pair, ...)."""
        return torch.index_select(q.flatten(0, 1), 0, self.first)

    def there(self, q: Tensor) -> Tensor:
        """Bead quantity (batch, bead, ...) at the partner of each pair: (pair, ...)."""
        return torch.index_select(q.flatten(0, 1), 0, self.partner)

    def total(self, here: Tensor, there: Tensor) -> Tensor:
        """Sum at the beads (batch, bead, ...) of quantities of pairs (pair, ...), as `PairTable.total`."""
        zeros = here.new_zeros(self.shape[0] * self.shape[1], *here.shape[1:])
        return zeros.index_add(0, self.first, here).index_add(0, self.partner, there).unflatten(0, self.shape)
