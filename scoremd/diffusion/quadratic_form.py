"""What losses are made of: sums of energies, scores and squares of scores, with known coefficients."""

from typing import NamedTuple

import torch
from torch import Tensor


class QuadraticForm(NamedTuple):
    """For each group of points: constant + sum over its points of a E + u . s + w |s|^2 / 2.

    The gradient by the weights of a network is the same sum of gradients whatever E and s are, so that they and it can be computed at once.

    Attributes
    ----------
    constant : (group,)
    energy : a, (group, point)
    score : u, (group, point, bead, dimension)
    square : w, (group, point)
    """

    constant: Tensor
    energy: Tensor
    score: Tensor
    square: Tensor

    def __call__(self, energies: Tensor, scores: Tensor) -> Tensor:
        """Its values, (group,), from energies (group, point) and scores (group, point, bead, dimension).

        Added up in double precision: finite differences are among the sums.
        """
        constant, a, u, w, e, s = (q.double() for q in (*self, energies, scores))
        value = constant + (a * e).sum(1) + (u * s).sum((1, 2, 3)) + 0.5 * (w * (s * s).sum((2, 3))).sum(1)
        return value.to(energies.dtype)


def half_square_error(target: Tensor, importance: Tensor) -> QuadraticForm:
    """Half of the sum of importance (point,) times the squared distance of scores from `target` (point, bead, dimension); one group."""
    constant = 0.5 * (importance * (target**2).sum((1, 2))).sum()
    return QuadraticForm(constant[None], torch.zeros_like(importance)[None], (-importance[:, None, None] * target)[None], importance[None])
