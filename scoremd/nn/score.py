"""Score = -gradient of the energy: the one place where it is taken."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: x (batch, bead, dimension), log_snr (batch,) or (1,) -> energy in kT (batch,)
EnergyFunction = Callable[[Tensor, Tensor], Tensor]
#: positions (replica, bead, dimension) nm -> potential energy (replica,) kJ/mol and forces kJ/mol/nm
ForceFunction = Callable[[Tensor], tuple[Tensor, Tensor]]
#: the same of one replica, of positions in double precision
SingleForceFunction = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float32]]]


def energy_and_score(energy: EnergyFunction, x: Tensor, log_snr: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Energy (batch,) and score -dE/dx, shape of x; `create_graph` keeps both differentiable for training."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        e = energy(x, log_snr)
        (gradient,) = torch.autograd.grad(e.sum(), x, create_graph=create_graph)
    return (e, -gradient) if create_graph else (e.detach(), -gradient)
