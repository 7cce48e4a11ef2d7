"""The space that noise lives in: all coordinates, or those with the centre of geometry at the origin."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scoremd.nn.molecule import remove_centre


@dataclass(frozen=True)
class Space:
    """Coordinates (batch, bead, dimension), some beads perhaps missing, the centre of geometry perhaps fixed.

    Attributes
    ----------
    mask : (batch or 1, bead), one for a bead, zero for padding
    dimension : of each bead's coordinates
    centred : whether the centre of geometry is fixed at the origin (molecules)
    """

    mask: Tensor
    dimension: int = 3
    centred: bool = True

    @property
    def degrees_of_freedom(self) -> Tensor:
        """D, shape (batch or 1,)."""
        return self.dimension * (self.mask.sum(-1) - float(self.centred))

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the space, shape of x."""
        return remove_centre(x, self.mask) if self.centred else x * self.mask[..., None]

    def noise(self, batch: int, generator: torch.Generator | None) -> Tensor:
        """Standard normal vectors of the space, (batch, bead, dimension)."""
        shape = (batch, self.mask.shape[-1], self.dimension)
        return self.project(torch.randn(shape, generator=generator, dtype=self.mask.dtype, device=self.mask.device))

    def probe(self, batch: int, generator: torch.Generator | None) -> Tensor:
        """Random vectors v of the space with <v v^T> = identity and |v|^2 = D exactly, (batch, bead, dimension).

        Signs along an orthonormal basis: v^T J v is then the trace of J without any noise if J is a multiple of the identity, as
        it is at high noise.
        """
        if not self.centred:
            signs = torch.randint(0, 2, (batch, self.mask.shape[-1], self.dimension), generator=generator, device=self.mask.device)
            return (2 * signs - 1).to(self.mask) * self.mask[..., None]
        basis = self._basis()
        signs = torch.randint(0, 2, (batch, basis.shape[-1], self.dimension), generator=generator, device=basis.device)
        return basis @ (2 * signs - 1).to(self.mask)

    def _basis(self) -> Tensor:
        """Helmert's vectors on the beads that exist: (batch or 1, bead, bead), orthonormal columns with zero sum; the column of the
        first bead (so always the first column), and those of padding, are zero.
        """
        m = self.mask
        rank = m.cumsum(-1)  # 1, 2, ... over the beads that exist
        before = torch.triu(torch.ones(m.shape[-1], m.shape[-1], dtype=m.dtype, device=m.device), 1)
        column = (before * m[:, :, None] - torch.diag_embed(rank - 1)) * m[:, None]
        return column / (rank * (rank - 1)).clamp(min=1).sqrt()[:, None]

    def directions(self, batch: int, generator: torch.Generator | None) -> Tensor:
        """Orthonormal basis of the space with random signs, one for each of the batch, (K, batch, bead, dimension).

        K is D of a molecule without missing beads, whatever the batch holds, so that all batches have one shape; molecules with fewer
        beads have zero vectors in between.
        """
        columns = self._basis()[..., 1:] if self.centred else torch.diag_embed(self.mask)
        axes = torch.eye(self.dimension, dtype=columns.dtype, device=columns.device)
        vectors = torch.einsum("mbk,cd->kcmbd", columns, axes).flatten(0, 1)
        signs = torch.randint(0, 2, (len(vectors), batch, 1, 1), generator=generator, device=vectors.device)
        return vectors * (2 * signs - 1).to(vectors)

    def basis(self) -> Tensor:
        """Orthonormal basis of the space of one molecule, (D, bead, dimension)."""
        columns = self._basis()[0] if self.centred else torch.diag_embed(self.mask)[0]
        columns = columns[:, columns.abs().sum(0) > 0]
        axes = torch.eye(self.dimension, dtype=columns.dtype, device=columns.device)
        return torch.einsum("bk,cd->kcbd", columns, axes).flatten(0, 1)
