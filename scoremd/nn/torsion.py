"""Local term: a small perceptron on the torsions in reach, a learned, transferable CMAP."""

import torch
from torch import Tensor, nn

from scoremd.nn.noise_level import signal_and_noise

FOURIER_ORDER = 3


class TorsionTerm(nn.Module):
    """Energy of groups of torsions as a function of their sines and cosines, the residues and the time.

    Parameters
    ----------
    torsions : (group, torsion, 4) bead indices; one perceptron serves all groups
    n_beads : number of beads of the model
    n_residue_types : size of the residue vocabulary, padding included
    time_width : width of the time embedding
    width : width of the perceptron
    achiral : make the energy even under reflection
    """

    beads: Tensor
    bonds: Tensor

    def __init__(self, torsions: Tensor, n_beads: int, n_residue_types: int, time_width: int, width: int, *, achiral: bool) -> None:
        super().__init__()
        self.achiral = achiral
        n_groups, n_torsions, _ = torsions.shape
        self.shape = (n_groups, n_torsions)
        self.register_buffer("beads", torsions, persistent=False)
        # the three bond vectors of each torsion as one matrix product: gathers would cost scatters in the gradient
        bonds = torch.zeros(n_beads, 3, n_groups, n_torsions)
        for k in range(3):
            for g in range(n_groups):
                for j in range(n_torsions):
                    bonds[torsions[g, j, k + 1], k, g, j] += 1
                    bonds[torsions[g, j, k], k, g, j] -= 1
        self.register_buffer("bonds", bonds.flatten(1), persistent=False)
        self.residue = nn.Embedding(n_residue_types, 16, padding_idx=0)
        inputs = n_torsions * (2 * FOURIER_ORDER + 16) + time_width
        layers: list[nn.Module] = []
        for a, b in ((inputs, width), (width, width), (width, width // 2)):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(width // 2, 1, bias=False))

    def cosine_sine(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each torsion (batch, group, torsion), shrunk to zero where its bonds are collinear or lost in noise."""
        b = (x.transpose(1, 2) @ self.bonds).unflatten(2, (3, *self.shape))
        b1, b2, b3 = b.unbind(2)
        n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
        _, sigma = signal_and_noise(log_snr)
        soft = (0.01 + sigma**4)[:, None, None]
        norm = torch.rsqrt(((n1 * n1).sum(1) + soft) * ((n2 * n2).sum(1) + soft))
        cosine = (n1 * n2).sum(1) * norm
        sine = (torch.linalg.cross(n1, n2, dim=1) * b2).sum(1) * norm * torch.rsqrt((b2 * b2).sum(1) + soft)
        return cosine, sine

    def forward(self, x: Tensor, log_snr: Tensor, residue: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        """Energy (batch,) of beads `x` (batch, bead, 3); residue types and mask (batch or 1, bead), time (batch or 1, width)."""
        cosine, sine = self.cosine_sine(x, log_snr)
        present = mask[:, self.beads.flatten()].unflatten(1, self.beads.shape).prod(-1)
        residues = self.residue(residue[:, self.beads[..., 1].flatten()]).unflatten(1, self.shape).flatten(2)
        size = (*cosine.shape[:2], -1)
        context = torch.cat([residues.expand(size), time[:, None].expand(size)], -1)
        energy = self._perceptron(cosine, sine, present, context)
        if self.achiral:
            energy = 0.5 * (energy + self._perceptron(cosine, -sine, present, context))
        return energy.sum(1)

    def _perceptron(self, cosine: Tensor, sine: Tensor, present: Tensor, context: Tensor) -> Tensor:
        c, s, series = cosine, sine, []
        for order in range(FOURIER_ORDER):
            if order:
                c, s = c * cosine - s * sine, s * cosine + c * sine
            series += [c * present, s * present]
        return self.mlp(torch.cat([torch.stack(series, -1).flatten(2), context], -1))[..., 0] * present.amax(-1)
