"""Images that belong to no class: those far from everything that was learnt. Symbols: N samples.

Distances to the nearest neighbours in the space of normalised features tell images of another kind from those of the
data (Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors). How far is far, the data say
themselves: by the spread of the middle half of all samples, as in Tukey's fences (1977). What belongs to no class has
a label at random: one that the image explains speaks against it (Bayes' rule). And it is like no class: the surer that
the image is of one, the less it may be of none. How many there are, the data say too: where hardly any lies far out,
those at the rim are the oddest of their class (empirical Bayes, by expectation maximisation).
"""

import math

import torch
from torch import Tensor

FENCE = 2.2
"""Interquartile ranges above the upper quartile of the log-distances at which a sample is as likely foreign as not, if
one class has half of it and USUAL of all are foreign."""
USUAL, USUAL_ROWS = 0.01, 1000
"""Share of foreign images that is taken for usual, and how many rows of such data count beside those at hand."""
ROUNDS = 50
"""Steps of expectation maximisation."""
STEEPNESS = 4.0
"""How fast, per interquartile range, the log-odds of being foreign rise there."""
SAME = 1e-3
"""Distance below which a sample has copies; they do not say how far is far."""
QUANTILE_ROWS = 1 << 20
"""Most samples that quartiles are taken of, evenly spread; torch sorts no more than some millions for them."""


def foreign(distances: Tensor, surprise: Tensor, sureness: Tensor) -> Tensor:
    """Probability (N,) that each sample belongs to no class, from its mean distance (N,) to its neighbours.

    `surprise` (N,) is how many times likelier its given label is at random than by its image, 1 where it has none;
    `sureness` (N,) the probability of the likeliest class by the image alone.
    """
    logs = distances.float().clamp_min(SAME).log()
    singular = logs[distances > SAME]
    if len(singular) == 0:
        return torch.zeros_like(logs)
    some = singular[:: len(singular) // QUANTILE_ROWS + 1]
    lower, upper = torch.quantile(some, torch.tensor([0.25, 0.75], device=logs.device))
    spread = (upper - lower).clamp_min(1e-6)
    unlike = -sureness.clamp(1e-6, 1 - 1e-6).logit()
    odds = STEEPNESS * ((logs - upper) / spread - FENCE) + surprise.log() + unlike
    odds = torch.where(logs > upper, odds, -torch.inf)
    share = logs.new_tensor(USUAL)
    for _ in range(ROUNDS):
        probability = torch.sigmoid(odds + share.logit() - math.log(USUAL / (1 - USUAL)))
        share = (probability.sum() + USUAL * USUAL_ROWS) / (len(odds) + USUAL_ROWS)
    return probability
