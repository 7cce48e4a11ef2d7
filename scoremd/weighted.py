"""Conformations with their likelihood and energy, and samples with weights."""

from dataclasses import dataclass

import mdtraj
import numpy as np
from numpy.typing import NDArray

from scoremd.units import thermal_energy


@dataclass(frozen=True)
class Likelihoods:
    """Conformations, their likelihood under the probability flow of a model, and their energy, which its forces are the gradient of.

    Attributes
    ----------
    trajectory : the conformations
    log_likelihood : (frame,) ln of their density in nm^-D, D = 3 (beads - 1): the centre is fixed
    energy : (frame,) potential of mean force, up to a constant, in kJ/mol
    temperature : K
    """

    trajectory: mdtraj.Trajectory
    log_likelihood: NDArray[np.float64]
    energy: NDArray[np.float64]
    temperature: float

    @property
    def log_ratio(self) -> NDArray[np.float64]:
        """ln of the density of the forces' ensemble by that of the flow, -E/kT - ln p, up to a constant: its largest value is 0."""
        found = -self.energy / thermal_energy(self.temperature) - self.log_likelihood
        return np.asarray(found - found.max())


@dataclass(frozen=True)
class WeightedSamples(Likelihoods):
    """Independent samples of the probability flow, and what they weigh in the ensemble that the forces of the same model simulate.

    Importance sampling turns averages over the samples into averages over the Boltzmann distribution of the forces' energy, as far as the
    samples reach (Noé et al., Science 365, eaaw1147, 2019, eq. 1, with a flow of arXiv 2011.13456 for their invertible network).
    """

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights (frame,), whose sum is 1."""
        w = np.exp(self.log_ratio)
        return np.asarray(w / w.sum())

    @property
    def effective_sample_size(self) -> float:
        """How many samples of the forces' ensemble the weighted ones are worth (Kish): 1 to their number, which perfect agreement gives.

        Of more than 64 beads fewer, since the likelihood then has noise (`scoremd.diffusion.likelihood`).
        """
        return float(1 / np.sum(self.weights**2))
