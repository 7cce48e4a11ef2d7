"""Contrast: is a molecule of the data, or one that was turned about its bonds, the more likely?

Denoising knows the energy where data are. Barriers that no frame has crossed are extrapolated, and a simulation finds those that came out
too low. Conditional noise-contrastive estimation (Ceylan and Gutmann, ICML 2018, eq. 9) tells the energies of x, drawn from the data, and
of x', made from x by a symmetric move, apart:

    loss = 2 < ln(1 + exp(E(x) - E(x'))) >

It is least for the right energy up to a constant, whatever the move; moves of the torsions teach soft modes and leave stiff ones alone.
"""

import torch
from torch import Tensor


def contrastive_loss(energy: Tensor, turned: Tensor) -> Tensor:
    """Mean loss of energies (n,) in kT of molecules of the data, and of the same after the move."""
    return 2 * torch.nn.functional.softplus(energy - turned).mean()
