"""Decides on each label from the class probabilities. Symbols: N samples, C classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from noisyknn.config import PolicyName

LIKELY = 0.5
"""Probability below which a label is more likely wrong than right."""

DOUBTFUL = 0.05
"""Probability that labels are unrelated to the images above which ``careful`` corrects none: the likeliest class is
then the commonest one, whatever the image."""

CARE = 1.5
"""A careful correction must be this many times as likely as the given label: breaking a right label is worse than
keeping a wrong one. Of rules that break equally many labels, this fixes more than a minimum confidence alone."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Corrected labels and their probabilities."""

    labels: Tensor
    """(N,) corrected labels, class indices."""
    confidence: Tensor
    """(N,) float32: probability that the corrected label is right."""
    label_score: Tensor
    """(N,) float32: probability that the given label is right; 0 where none was given."""


def decide(posterior: Tensor, given: Tensor, voted: Tensor, policy: PolicyName, min_confidence: float) -> Verdict:
    """Decide on every label from P(y | x, ỹ) (N, C), given labels (N,), -1 for none, and the method's vote (N,).

    A sample's probabilities may sum to less than 1: the rest is the probability that it belongs to no class.

    ``careful`` replaces a label by the likeliest class if that class has at least probability `min_confidence` and is
    CARE times as likely as the label; otherwise it keeps the label. ``paper`` applies the method's vote, as Algorithm 3
    does. Samples without a label get one in any case.
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
