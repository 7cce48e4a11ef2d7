"""alpha and sigma as networks see the noise: by the half log signal-to-noise ratio alone."""

import torch
from torch import Tensor


def signal_and_noise(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of the variance-preserving process at half log signal-to-noise ratio `log_snr` (any shape)."""
    return torch.sigmoid(2 * log_snr).sqrt(), torch.sigmoid(-2 * log_snr).sqrt()
