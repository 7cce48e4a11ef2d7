"""Local term: a small perceptron on the torsions in reach, a learned, transferable CMAP."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scoremd.nn.noise_level import signal_and_noise

FOURIER_ORDER = 3


class TorsionContext(NamedTuple):
    """What the local term depends on besides the coordinates.

    Attributes
    ----------
    present : (batch or 1, group, torsion) zero where a bead is missing
    any_present : (batch or 1, group) zero where all torsions of the group lack a bead
    hidden : (batch or 1, group, width) what residues and time add to the first layer
    softness : (batch or 1, 1, 1) keeps torsions of collinear bonds finite
    factors : of the features of each hidden layer, (batch or 1, group, width of the layer)
    """

    present: Tensor
    any_present: Tensor
    hidden: Tensor
    softness: Tensor
    factors: tuple[Tensor, ...] = ()


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
    biased : add an energy that is linear in the series of each torsion, for umbrella sampling (`scoremd.flattening`)
    """

    beads: Tensor
    bonds: Tensor
    bias: Tensor | None

    def __init__(
        self, torsions: Tensor, n_beads: int, n_residue_types: int, time_width: int, width: int, *, achiral: bool, biased: bool = False
    ) -> None:
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
        self.n_series = n_torsions * 2 * FOURIER_ORDER
        inputs = self.n_series + n_torsions * 16 + time_width
        #: of the hidden layers
        self.widths = (width, width, width // 2)
        layers: list[nn.Module] = []
        for a, b in zip((inputs, *self.widths), self.widths, strict=False):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(width // 2, 1, bias=False))
        #: coefficients of `series`, (group, series), or none; a buffer, for it is not trained
        self.register_buffer("bias", torch.zeros(n_groups, self.n_series) if biased else None)

    @property
    def _first_layer(self) -> nn.Linear:
        layer = self.mlp[0]
        assert isinstance(layer, nn.Linear)  # as made above
        return layer

    def context(self, residue: Tensor, mask: Tensor, log_snr: Tensor, time: Tensor) -> TorsionContext:
        """Of residue types and mask (batch or 1, bead), noise levels (batch or 1,) and time (batch or 1, time width)."""
        first, sigma = self._first_layer, signal_and_noise(log_snr)[1]
        present = mask[:, self.beads.flatten()].unflatten(1, self.beads.shape).prod(-1)
        residues = self.residue(residue[:, self.beads[..., 1].flatten()]).unflatten(1, self.shape).flatten(2)
        n = max(len(residues), len(time))
        known = torch.cat([residues.expand(n, -1, -1), time[:, None].expand(n, self.shape[0], -1)], -1)
        return TorsionContext(
            present=present,
            any_present=present.amax(-1),
            hidden=nn.functional.linear(known, first.weight[:, self.n_series :], first.bias),
            softness=(0.01 + sigma**4)[:, None, None],
        )

    def cosine_sine(self, x: Tensor, softness: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each torsion (batch, group, torsion), shrunk to zero where its bonds are collinear or lost in noise."""
        b = (x.transpose(1, 2) @ self.bonds).unflatten(2, (3, *self.shape))
        b1, b2, b3 = b.unbind(2)
        n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
        norm = torch.rsqrt(((n1 * n1).sum(1) + softness) * ((n2 * n2).sum(1) + softness))
        cosine = (n1 * n2).sum(1) * norm
        sine = (torch.linalg.cross(n1, n2, dim=1) * b2).sum(1) * norm * torch.rsqrt((b2 * b2).sum(1) + softness)
        return cosine, sine

    def forward(self, x: Tensor, context: TorsionContext) -> Tensor:
        """Energy (batch,) of beads `x` (batch, bead, 3)."""
        cosine, sine = self.cosine_sine(x, context.softness)
        energy = self._of_groups(cosine, sine, context)
        if self.achiral:
            energy = 0.5 * (energy + self._of_groups(cosine, -sine, context))
        return energy.sum(1)

    def series(self, cosine: Tensor, sine: Tensor, context: TorsionContext) -> Tensor:
        """Cosines and sines of the multiples of each torsion, one torsion after the other: (batch, group, series)."""
        c, s, present, series = cosine, sine, context.present, []
        for order in range(FOURIER_ORDER):
            if order:
                c, s = c * cosine - s * sine, s * cosine + c * sine
            series += [c * present, s * present]
        return torch.stack(series, -1).flatten(2)

    def _of_groups(self, cosine: Tensor, sine: Tensor, context: TorsionContext) -> Tensor:
        series = self.series(cosine, sine, context)
        hidden = nn.functional.linear(series, self._first_layer.weight[:, : self.n_series]) + context.hidden
        for k in range(len(self.widths)):
            hidden = nn.functional.silu(hidden)
            hidden = self.mlp[2 * k + 2](hidden * context.factors[k] if context.factors else hidden)
        energy = hidden[..., 0] * context.any_present
        return energy if self.bias is None else energy + (series * self.bias).sum(-1)
