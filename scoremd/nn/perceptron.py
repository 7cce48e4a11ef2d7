"""Perceptrons for toy particles: an energy, and a score for the noisy experts of a mixture over time.

Scaled data have mean zero and variance one along each axis, so the standard normal is their limit at high noise and a fair first guess
at every noise level: the perceptron learns what differs, and its share is faded out with the signal, exactly zero without any.
"""

from torch import Tensor, nn

from scoremd.nn.noise_level import signal_and_noise
from scoremd.nn.radial import TimeEmbedding


class _Perceptron(nn.Module):
    """What energy and score have in common: the data's scale, and hidden layers that each see the time."""

    mean: Tensor
    length: Tensor

    def __init__(self, mean: Tensor, length: Tensor, outputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("length", length)
        self.time = TimeEmbedding(width, None)
        self.hidden = nn.ModuleList(nn.Linear(len(mean) if k == 0 else width, width) for k in range(layers))
        self.time_maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.read_out = nn.Linear(width, outputs, bias=False)

    def scale(self, positions: Tensor) -> Tensor:
        """Scaled coordinates (position - mean) / length, shape of `positions` (..., dimension)."""
        return (positions - self.mean) / self.length

    def positions(self, scaled: Tensor) -> Tensor:
        """The inverse of `scale`."""
        return self.mean + self.length * scaled

    def _outputs(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """(batch, 1, dimension), (batch or 1,) -> (batch, outputs)."""
        features, time = x[:, 0], self.time(log_snr)
        for layer, time_map in zip(self.hidden, self.time_maps, strict=True):
            features = nn.functional.silu(layer(features) + time_map(time))
        return self.read_out(features)


class PerceptronEnergy(_Perceptron):
    """E(x, lambda) = |x|^2 / 2 + alpha^2 perceptron(x, lambda), in kT and up to a constant; an `EnergyFunction`.

    The share alpha^2 is that of the first moments in which noised data of mean zero and variance one differ from the normal.

    Parameters
    ----------
    mean, length : (dimension,) mean and standard deviation of the data along each axis
    width, layers : of the perceptron
    """

    def __init__(self, mean: Tensor, length: Tensor, width: int = 64, layers: int = 3) -> None:
        super().__init__(mean, length, 1, width, layers)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """x (batch, 1, dimension) scaled and variance-preserving, log_snr (batch or 1,) -> (batch,)."""
        alpha = signal_and_noise(log_snr)[0]
        return 0.5 * (x**2).sum((1, 2)) + alpha**2 * self._outputs(x, log_snr)[:, 0]


class PerceptronScore(_Perceptron):
    """s(x, lambda) = -x + alpha^2 perceptron(x, lambda), not a gradient: for the noisy experts of a mixture over time.

    Parameters
    ----------
    mean, length, width, layers : as of `PerceptronEnergy`
    """

    def __init__(self, mean: Tensor, length: Tensor, width: int = 64, layers: int = 3) -> None:
        super().__init__(mean, length, len(mean), width, layers)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """x (batch, 1, dimension) scaled and variance-preserving, log_snr (batch or 1,) -> shape of x."""
        alpha = signal_and_noise(log_snr)[0]
        return -x + alpha[:, None, None] ** 2 * self._outputs(x, log_snr)[:, None]
