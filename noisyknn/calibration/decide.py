"""What becomes of each label, given how likely each class is. Symbols: N samples, C classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from noisyknn.config import PolicyName

LIKELY = 0.5
"""Probability below which a label is more likely wrong than right."""

DOUBTFUL = 0.05
"""Probability that labels have nothing to do with the images from which on none is corrected carefully: what is then
likeliest is the commonest class, whatever the image."""

CARE = 1.5
"""How many times as likely as the given label a careful correction must be: to break a right label is worse than to
leave a wrong one. Of two rules that break as many labels this mends more than a minimal confidence alone."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Labels and what they are worth."""

    labels: Tensor
    """(N,) corrected labels, class indices."""
    confidence: Tensor
    """(N,) float32: probability that the corrected label is right."""
    label_score: Tensor
    """(N,) float32: probability that the given label is right; 0 where none was given."""


def decide(posterior: Tensor, given: Tensor, voted: Tensor, policy: PolicyName, min_confidence: float) -> Verdict:
    """Decide on every label from P(y | x, ỹ) (N, C), given labels (N,), -1 for none, and the method's own (N,).

    The probabilities of a sample may sum to less than 1: the rest is that it belongs to none of the classes.

    ``careful`` replaces a label by the likeliest class if that has a probability of `min_confidence` or more and is
    CARE times as likely, and keeps it otherwise; ``paper`` applies what the method voted, as Algorithm 3 does. Samples
    without a label get one anyway.
    """
    top, likeliest = posterior.max(1)
    likely_right = torch.where(given >= 0, _probability(posterior, given.clamp_min(0)), 0.0)
    careful = torch.where(((top >= min_confidence) & (top >= CARE * likely_right)) | (given < 0), likeliest, given)
    labels = voted if policy == "paper" else careful
    return Verdict(
        labels=labels,
        confidence=_probability(posterior, labels),
        label_score=likely_right,
    )


def _probability(posterior: Tensor, labels: Tensor) -> Tensor:
    return posterior.gather(1, labels[:, None])[:, 0]
