"""Mixture over time: several networks, each for its own range of noise (arXiv 2506.17139, section 4.2).

Only the network of the least noise must be an energy and pay for the Fokker–Planck term; the others may give the score directly. Each
is trained on times of its own range, with the ordinary losses; in sampling the noise level, one for the whole batch, picks the network.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from scoremd.diffusion.samplers import ScoreFunction
from scoremd.errors import ScoreMDError

#: Borders in t of the experts of ScoreMD: [1, 0.6], [0.6, 0.1], [0.1, 0].
TIME_BORDERS = (0.6, 0.1)


@dataclass(frozen=True)
class TimeMixture:
    """A `ScoreFunction` that asks the expert of the noise level.

    Attributes
    ----------
    experts : score functions, of the most noise first
    borders : rising log_snr at which the next expert takes over, one fewer than experts
    """

    experts: Sequence[ScoreFunction]
    borders: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.borders) != len(self.experts) - 1 or sorted(self.borders) != list(self.borders):
            raise ScoreMDError(f"{len(self.experts)} experts need {len(self.experts) - 1} rising borders, not {self.borders}")

    def __call__(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Score at x (batch, bead, dimension) and one noise level (1,), shape of x."""
        return self.experts[bisect.bisect_right(self.borders, float(log_snr))](x, log_snr)
