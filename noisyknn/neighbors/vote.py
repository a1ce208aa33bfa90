"""The vote of the neighbours (Eq. 4). Shapes: N samples, Q samples of one tile, k neighbours, C classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from noisyknn.neighbors.base import Search, nearest


@dataclass(frozen=True, kw_only=True)
class Votes:
    """How each of N samples' neighbours voted."""

    winner: Tensor
    """(N,) class that most neighbours have, int64."""
    winner_share: Tensor
    """(N,) share of the neighbours that have it, from 0 to 1."""
    current_share: Tensor
    """(N,) share of the neighbours that have the sample's current label."""
    given_share: Tensor
    """(N,) share of the neighbours that have the sample's given label; 0 where none was given."""


def poll(
    features: Tensor, references: Tensor, labels: Tensor, given_labels: Tensor, k: int, search: Search, classes: int
) -> Votes:
    """Let the k nearest references (R,) of every sample vote with their current labels.

    `features` (N, D); `labels` (N,) current and `given_labels` (N,) given class indices, -1 for none.
    """
    parts = []
    for near in nearest(features, references, k, search):
        voices = labels[near.rows]  # (Q, k)
        winner = majority(voices, near.distances, classes)
        shares = [_share(voices, of) for of in (winner, labels[near.samples], given_labels[near.samples])]
        parts.append((winner, *shares))
    winner, winner_share, current_share, given_share = (torch.cat(column) for column in zip(*parts, strict=True))
    return Votes(winner=winner, winner_share=winner_share, current_share=current_share, given_share=given_share)


def majority(voices: Tensor, distances: Tensor, classes: int) -> Tensor:
    """The class (Q,) that most of the k neighbours have, from their labels and L2 distances, both (Q, k).

    Ties go to the class whose neighbours are nearer in sum, then to the lower class index.
    """
    counts = torch.zeros(len(voices), classes, dtype=torch.int64, device=voices.device)
    counts.scatter_add_(1, voices, torch.ones_like(voices))
    sums = torch.zeros(len(voices), classes, dtype=torch.float64, device=voices.device)
    sums.scatter_add_(1, voices, distances.double())
    sums[counts < counts.amax(1, keepdim=True)] = torch.inf
    return sums.argmin(1)


def _share(voices: Tensor, of: Tensor) -> Tensor:
    return (voices == of[:, None]).float().mean(1)
