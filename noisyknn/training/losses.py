"""Per-sample losses, computed in float32 for logits of any precision."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class LossFn(Protocol):
    """A per-sample loss: logits (B, C) and class indices (B,) or (B, L) to losses of the labels' shape."""

    def __call__(self, logits: Tensor, labels: Tensor, /) -> Tensor:
        """The losses; L labels of one sample share one softmax."""


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy (CE), a `LossFn`; spreads a share `label_smoothing` of each label over all C classes."""
    return _cross_entropy(*_log_probabilities(logits, labels), label_smoothing).reshape(labels.shape)


def symmetric_cross_entropy(
    logits: Tensor, labels: Tensor, alpha: float, beta: float, log_zero: float, label_smoothing: float = 0.0
) -> Tensor:
    """alpha · CE + beta · RCE of Wang et al. (2019), a `LossFn`; `log_zero` is their A, a negative number.

    RCE = -Σ_c p_c · log(clip(onehot_c, e^A, 1)): the given class adds 0 and every other class -A · p_c, so RCE is
    -A · (1 - p_label). Label smoothing applies to CE only.
    """
    every, picked = _log_probabilities(logits, labels)
    reverse = -log_zero * (1 - picked.exp())
    return (alpha * _cross_entropy(every, picked, label_smoothing) + beta * reverse).reshape(labels.shape)


def mixed_loss(
    logits: Tensor, labels: Tensor, given_labels: Tensor, gamma: float | Tensor, loss: LossFn
) -> tuple[Tensor, Tensor]:
    """The paper's Eq. 7 for each sample: (1 - gamma) · J(labels) + gamma · J(given_labels).

    Takes logits (B, C) and both labels as class indices (B,); returns this loss (B,) and J(labels) alone (B,).
    """
    current, given = loss(logits, torch.stack((labels, given_labels), dim=1)).unbind(1)
    return (1 - gamma) * current + gamma * given, current


def expected_loss(logits: Tensor, targets: Tensor, loss: LossFn) -> Tensor:
    """The expected loss (B,) under uncertain labels: Σ_c targets_c · J(c), from logits (B, C).

    `targets` (B, C) are class probabilities. For cross-entropy, this is the usual loss on soft labels.
    """
    every_class = torch.arange(logits.shape[1], device=logits.device).expand_as(targets)
    return (targets * loss(logits, every_class)).sum(1)


def _log_probabilities(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all classes (B, C) and of the labels (B, L); L is 1 for labels (B,)."""
    every = F.log_softmax(logits.float(), dim=1)
    return every, every.gather(1, labels.unsqueeze(1) if labels.dim() == 1 else labels)


def _cross_entropy(every: Tensor, picked: Tensor, label_smoothing: float) -> Tensor:
    return (label_smoothing - 1) * picked - label_smoothing * every.mean(1, keepdim=True)
