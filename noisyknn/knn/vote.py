"""The vote of the neighbours (Eq. 4). Shapes: N samples, Q samples of one tile, k neighbours, C classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from noisyknn.knn.search import Search, angular_distances, nearest, rows_of_tile

PSEUDO_VOTE = 0.5
"""Votes that every class starts with (Jeffreys' prior), so that none is impossible."""


@dataclass(frozen=True, kw_only=True)
class Votes:
    """How each of N samples' neighbours voted."""

    winner: Tensor
    """(N,) class that most neighbours have, int64."""
    log_shares: Tensor
    """(N, C) log of each class's share of the votes, float16; see `log_shares`."""
    distances: Tensor
    """(N,) mean distance to the neighbours, at most as many as its class has members; see `angular_distances`."""


def poll(features: Tensor, references: Tensor, labels: Tensor, k: int, search: Search, classes: int) -> Votes:
    """Let the k nearest references (R,) of every sample vote with their labels.

    `features` is (N, D); `labels` (N,) are class indices, never -1 for a reference.
    """
    winners, shares, distances = [], [], []
    norms = features.float().norm(dim=1)
    sizes = torch.bincount(labels[references], minlength=classes)
    for near in nearest(features, references, k, search):
        voices = labels[near.rows]  # (Q, k)
        counts = _count(voices, classes)
        winner = majority(voices, near.distances, classes)
        own = labels[near.samples]
        winners.append(winner)
        shares.append(log_shares(counts.float(), voices.shape[1]))
        distances.append(angular_distances(norms, near, sizes[torch.where(own < 0, winner, own)].clamp_min(1)))
    return Votes(winner=torch.cat(winners), log_shares=torch.cat(shares), distances=torch.cat(distances))


def majority(voices: Tensor, distances: Tensor, classes: int) -> Tensor:
    """The class (Q,) that most of the k neighbours have, from their labels and L2 distances, both (Q, k).

    Ties go to the class with the smaller sum of distances, then to the lower class index.
    """
    counts = _count(voices, classes)
    sums = torch.zeros(len(voices), classes, dtype=torch.float64, device=voices.device)
    sums.scatter_add_(1, voices, distances.double())
    sums[counts < counts.amax(1, keepdim=True)] = torch.inf
    return sums.argmin(1)


def poll_uncertain(
    features: Tensor, references: Tensor, clear: Tensor, beliefs: Tensor, k: int, search: Search, samples: Tensor
) -> Votes:
    """Let the k nearest references (R,) of `samples` (S,) vote, each with its class probabilities.

    `features` is (N, D), `beliefs` (N, C). The votes are those of the S samples, in their order. Their distances are
    measured to the `clear` references (R',), at least two.
    """
    shares = [
        log_shares(soft_votes(beliefs, near.rows), near.rows.shape[1])
        for near in nearest(features, references, k, search, samples)
    ]
    distances = []
    norms = features.float().norm(dim=1)
    sizes = beliefs[clear].sum(0, dtype=torch.float32)
    for near in nearest(features, clear, k, search, samples):
        own = beliefs[near.samples].argmax(1)
        distances.append(angular_distances(norms, near, sizes[own].clamp_min(1)))
    log_share = torch.cat(shares)
    return Votes(winner=log_share.argmax(1), log_shares=log_share, distances=torch.cat(distances))


def soft_votes(beliefs: Tensor, rows: Tensor) -> Tensor:
    """Votes (Q, C) float32 of uncertain neighbours: the sums of their beliefs.

    `beliefs` (N, C) are every sample's class probabilities, `rows` (Q, k) the neighbours.
    """
    tile_rows = rows_of_tile(rows.shape[1] * beliefs.shape[1], beliefs.device)
    return torch.cat([beliefs[near].float().sum(1) for near in torch.split(rows, tile_rows)])


def log_shares(votes: Tensor, k: int) -> Tensor:
    """Log of each class's share (Q, C) of k votes (Q, C), as float16; PSEUDO_VOTE keeps every share above 0."""
    return ((votes + PSEUDO_VOTE) / (k + PSEUDO_VOTE * votes.shape[1])).log().half()


def _count(voices: Tensor, classes: int) -> Tensor:
    counts = torch.zeros(len(voices), classes, dtype=torch.int64, device=voices.device)
    return counts.scatter_add_(1, voices, torch.ones_like(voices))
