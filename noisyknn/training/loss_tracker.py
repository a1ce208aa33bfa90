"""Per-sample losses, recorded as training computes them."""

import torch
from torch import Tensor


class LossTracker:
    """Cumulative normalised loss of N samples, as O2U-Net (Huang et al. 2019) defines it.

    The per-sample training loss minus the epoch's mean, summed over the epochs. It costs no extra pass and no
    synchronisation with the device.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.cumulative = torch.zeros(samples, device=device)
        """(N,) float32; 0 is average, low is probably clean; exactly 0 for a sample never trained on."""
        self._losses = torch.zeros(samples, device=device)

    def record(self, rows: Tensor, losses: Tensor) -> None:
        """Record the losses (B,) of one batch's rows (B,)."""
        self._losses[rows] = losses.detach()

    def end_epoch(self, rows: Tensor) -> Tensor:
        """Add the epoch's losses of the trained rows (R,), minus their mean; return that mean (0-dim)."""
        losses = self._losses[rows]
        mean = losses.mean()
        self.cumulative[rows] += losses - mean
        return mean
