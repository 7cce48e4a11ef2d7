"""Named regions of the Ramachandran plot; together alpha-R, beta/PII and phi > 0 cover it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Basins = dict[str, Callable[[np.ndarray], np.ndarray]]


def _alpha(psi: np.ndarray) -> np.ndarray:
    return (psi > -2 * np.pi / 3) & (psi < np.pi / 3)


#: Name of a basin -> which of (frame, 2) angles (phi, psi) in radians lie in it.
RAMACHANDRAN: Basins = {
    "phi > 0": lambda angles: angles[:, 0] > 0,
    "alpha-R (phi < 0, -120° < psi < 60°)": lambda angles: (angles[:, 0] <= 0) & _alpha(angles[:, 1]),
    "beta/PII (the rest of phi < 0)": lambda angles: (angles[:, 0] <= 0) & ~_alpha(angles[:, 1]),
}
