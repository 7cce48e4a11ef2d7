"""Samples with weights: from the density that they were drawn from to that of the forces' energy."""

from dataclasses import dataclass

import mdtraj
import numpy as np
from numpy.typing import NDArray

from scoremd.units import thermal_energy


@dataclass(frozen=True)
class WeightedSamples:
    """Independent samples of the probability flow, and what they weigh in the ensemble that the forces of the same model simulate.

    Their density is known, and so is the energy of each: importance sampling turns averages over the samples into averages over the
    Boltzmann distribution of the forces, which a simulation reaches when it has been long enough (Noé et al., Science 365, eaaw1147, 2019,
    eq. 1, with a flow of arXiv 2011.13456 for their invertible network).

    Attributes
    ----------
    trajectory : the samples, which have no order
    log_likelihood : (frame,) ln of their density in nm^-D, D = 3 (beads - 1): the centre is fixed
    energy : (frame,) potential of mean force, up to a constant, in kJ/mol
    temperature : K
    """

    trajectory: mdtraj.Trajectory
    log_likelihood: NDArray[np.float64]
    energy: NDArray[np.float64]
    temperature: float

    @property
    def log_weights(self) -> NDArray[np.float64]:
        """ln of the weights (frame,), the largest of which is 1: -E/kT - ln p, up to a constant."""
        found = -self.energy / thermal_energy(self.temperature) - self.log_likelihood
        return found - found.max()

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights (frame,), whose sum is 1."""
        w = np.exp(self.log_weights)
        return w / w.sum()

    @property
    def effective_sample_size(self) -> float:
        """How many samples of the forces' ensemble the weighted ones are worth (Kish): 1 to their number, which perfect agreement gives."""
        return float(1 / np.sum(self.weights**2))
