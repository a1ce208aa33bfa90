"""Made samples whose truth and noise are known."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Made:
    """N samples: log-probabilities that are right as they stand (N, C), true and given labels (N,)."""

    logs: Tensor
    truth: Tensor
    given: Tensor


def make(
    samples: int, classes: int, transition: Tensor, seed: int = 0, spread: float = 4.0, offsets: Tensor | None = None
) -> Made:
    """Truth drawn from the probabilities that a network gives, given labels drawn by `transition` (C, C)."""
    generator = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(samples, classes, generator=generator)
    logs = (scores if offsets is None else scores + offsets).log_softmax(1)
    truth = torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]
    given = torch.multinomial(transition[truth], 1, generator=generator)[:, 0]
    return Made(logs, truth, given)
