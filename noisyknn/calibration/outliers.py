"""Outliers: images that belong to no class, far from the training data. Symbols: N samples.

Distances to the nearest neighbours in the space of normalised features detect outliers (Sun et al. 2022,
Out-of-Distribution Detection with Deep Nearest Neighbors). The interquartile range of all samples sets the scale, as in
Tukey's fences (1977). By Bayes' rule, two facts speak against an outlier: its image explains its label, since outliers
have random labels; and the prediction is confident, since outliers resemble no class. Empirical Bayes (expectation
maximisation) estimates the share of outliers: if hardly any sample lies far out, the farthest ones are merely unusual.
"""

import math

import torch
from torch import Tensor

FENCE = 2.2
"""Interquartile ranges above the upper quartile of the log-distances at which a sample is an outlier with probability
1/2, if its likeliest class has probability 1/2 and a share USUAL of all samples are outliers."""
USUAL, USUAL_ROWS = 0.01, 1000
"""Prior share of outliers, and the number of rows that this prior counts for."""
ROUNDS = 50
"""Steps of expectation maximisation."""
STEEPNESS = 4.0
"""Rise of the log-odds of being an outlier per interquartile range."""
SAME = 1e-3
"""Distance below which a sample has copies; the quartiles exclude these."""
QUANTILE_ROWS = 1 << 20
"""Most samples for the quartiles, evenly spaced; torch.quantile takes only some millions."""


def foreign(distances: Tensor, surprise: Tensor, sureness: Tensor) -> Tensor:
    """Probability (N,) that each sample belongs to no class, from its mean distance (N,) to its neighbours.

    `surprise` (N,) says how many times likelier its given label is at random than by its image, 1 where it has none;
    `sureness` (N,) is the probability of the likeliest class by the image alone.
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
