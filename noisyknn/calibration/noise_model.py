"""The noise model: which true class becomes which given label, and how often.

Symbols: N samples, C classes, y true class, ỹ given label, T transition matrix (rows: true class, columns: given).

A class matrix alone, P(ỹ | y) = T[y, ỹ], describes noise that does not depend on the image. But people err on
ambiguous images, so the noise rate grows with ambiguity, and they confuse classes that look alike:

    rate(x, y) = sigmoid(logit(1 - T[y, y]) + s · max(u(x) - CLEAR, 0)),   u(x) = log-odds against the likeliest class
    P(ỹ | x, y) = 1 - rate(x, y) for ỹ = y, else rate(x, y) · T[y, ỹ] · p(ỹ | x)^s, normalised over all ỹ ≠ y

The single number s is the `growth` of the model; 0 means the same noise on all images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CLEAR = -4.0
"""Log-odds against the likeliest class below which an image counts as clear: that class has 98 % or more."""
LEAST = 1e-9
"""Lower bound of probabilities, so that logarithms and quotients stay finite."""
HALF = 0.5
"""Pseudo-counts of wrong and of right labels (Jeffreys' prior)."""


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """Noise of labels over C classes."""

    transition: Tensor
    """T (C, C): probability of each given label for each true class, on clear images."""
    growth: float
    """s ≥ 0: how much ambiguity raises the noise rate and draws wrong labels to classes that look alike."""

    def likelihood(self, prior: Tensor, given: Tensor) -> Tensor:
        """P(ỹ | x, y) for every true class y (N, C) of samples with p(y | x) = `prior` (N, C), labels `given` (N,)."""
        if self.growth == 0:
            return self.transition.T[given]
        flips = self.transition.clone().fill_diagonal_(0).clamp_min(LEAST).fill_diagonal_(0)
        rate = self.rate(prior)
        alike = prior.clamp_min(LEAST) ** self.growth
        flip = flips[:, given].T * alike.gather(1, given[:, None]) / (alike @ flips.T)
        is_given = torch.nn.functional.one_hot(given, len(flips)).bool()
        return torch.where(is_given, 1 - rate, rate * flip)

    def shifted(self, shift: Tensor) -> "NoiseModel":
        """The noise with its rate shifted in every class and the same pattern of flips.

        `shift` (0-dim) is added to the log-odds of each class's rate, as a share of its maximum. At the maximum, the
        class's own label is just the commonest: 1 - 1 / C if flips go to all classes equally, 1/2 if they go to one.
        """
        rates = 1 - self.transition.diagonal()
        wrong = self.transition - torch.diag(1 - rates)
        pattern = wrong / rates.clamp_min(LEAST)[:, None]
        most = 1 / (1 + pattern.amax(1))
        shifted = most * torch.sigmoid((rates / most).clamp(LEAST, 1 - 1e-6).logit() + shift)
        return NoiseModel(transition=pattern * shifted[:, None] + torch.diag(1 - shifted), growth=self.growth)

    def rate(self, prior: Tensor) -> Tensor:
        """Probability (N, C) that each sample's label is wrong, for each possible true class."""
        top = prior.amax(1).clamp(1e-6, 1 - 1e-6)
        ambiguity = (((1 - top) / top).log() - CLEAR).clamp_min(0)
        base = (1 - self.transition.diagonal()).clamp(LEAST, 1 - 1e-6).logit()
        return torch.sigmoid(base + self.growth * ambiguity[:, None])


def posterior(prior: Tensor, likelihood: Tensor) -> Tensor:
    """P(y | x, ỹ) (N, C), by Bayes' rule from p(y | x) and P(ỹ | x, y), both (N, C)."""
    joint = (prior * likelihood).clamp_min(LEAST**2)
    return joint / joint.sum(1, keepdim=True)


def of_copies(posteriors: Tensor, images: Tensor, given: Tensor) -> Tensor:
    """P(y | x, ỹ) (N, C), pooled over copies of an image: rows with equal `images` (N,).

    Copies share the geometric mean of those that have a label (`given` (N,) is -1 for none): a label copied with its
    image counts once, and if labels contradict each other, the image decides.
    """
    _, kind, sizes = torch.unique(images, return_inverse=True, return_counts=True)
    rows = torch.nonzero(sizes[kind] > 1)[:, 0]
    kinds, kind = torch.unique(images[rows], return_inverse=True)
    logs, labelled = posteriors[rows].clamp_min(LEAST).log(), (given[rows] >= 0).to(posteriors)[:, None]
    sums = posteriors.new_zeros(len(kinds), posteriors.shape[1]).index_add_(0, kind, logs * labelled)
    counts = posteriors.new_zeros(len(kinds), 1).index_add_(0, kind, labelled)
    joint = torch.where(counts[kind] > 0, (sums / counts.clamp_min(1))[kind], logs).softmax(1)
    return posteriors.index_copy(0, rows, joint)


def expected_counts(posterior: Tensor, given: Tensor) -> Tensor:
    """Expected numbers of samples (C, C) by true class (rows) and given label (columns), from P(y | x, ỹ) (N, C)."""
    classes = posterior.shape[1]
    return posterior.new_zeros(classes, classes).index_add_(1, given, posterior.T)


def reestimated(posterior: Tensor, given: Tensor, strength: float) -> Tensor:
    """Estimate the transition matrix (C, C) from labels `given` (N,) and P(y | x, ỹ) (N, C): the M step of EM.

    A class with few rows leans on the noise of all: a Dirichlet prior that counts for `strength` rows, with the average
    noise rate and with wrong labels spread as they are on average. The right label stays the commonest of each class
    (diagonal dominance): otherwise a class that the network made up could take another's name.
    """
    classes = posterior.shape[1]
    right = torch.eye(classes, device=given.device)
    counts = expected_counts(posterior, given)
    wrong = counts * (1 - right)
    share = (wrong.sum() + HALF) / (counts.sum() + 2 * HALF)
    named = (wrong.sum(0) + 1).expand(classes, classes) * (1 - right)
    counts = counts + strength * (share * named / named.sum(1, keepdim=True) + (1 - share) * right)
    counts = torch.minimum(counts, counts.diagonal()[:, None])
    return counts / counts.sum(1, keepdim=True)


def symmetric(classes: int, rate: float) -> Tensor:
    """The transition matrix (C, C) of symmetric noise: a share `rate` is wrong, spread evenly over other classes."""
    right = torch.eye(classes)
    return (1 - rate) * right + rate / (classes - 1) * (1 - right)
