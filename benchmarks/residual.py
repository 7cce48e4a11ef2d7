"""How far a network is from obeying the Fokker–Planck equation."""

import numpy as np
import torch
from numpy.typing import NDArray

from scoremd.bound_model import BoundModel
from scoremd.diffusion.fokker_planck import exact_residual
from scoremd.diffusion.losses import add_noise

LEVELS = np.arange(-1.0, 6.01, 0.5)


def residual_rms(model: BoundModel, positions: NDArray[np.float32], frames: int, seed: int) -> tuple[float, float]:
    """Of the network that gives the forces: root mean square over `LEVELS` of the residual among noised `frames` of `positions`, and the
    same about its mean at each level.
    """
    generator, basis = torch.Generator().manual_seed(seed), model.space.basis()
    drawn = torch.from_numpy(positions[np.random.default_rng(seed).integers(0, len(positions), frames)])
    clean = model.space.project(model.to_slots(drawn) * model.description.length_scale)
    squares, variances = [], []
    for level in LEVELS:
        log_snr = torch.full((frames,), float(level))
        x = add_noise(clean, model.space.noise(frames, generator), log_snr)
        left = exact_residual(lambda a, b: model.experts[0](a, b, model.molecule), x, log_snr, basis)
        squares.append(float((left**2).mean()))
        variances.append(float(left.var()))
    return float(np.sqrt(np.mean(squares))), float(np.sqrt(np.mean(variances)))
