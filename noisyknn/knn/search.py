"""Exact k nearest neighbours by L2 distance; a sample is never its own neighbour.

Shapes: N samples, R references, Q queries of one tile, D features, k neighbours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from noisyknn.errors import UsageError
from noisyknn.knn import faiss_search
from noisyknn.knn.faiss_search import FaissSearch
from noisyknn.knn.torch_search import TorchSearch

SPARE = 8
"""Candidates requested beyond k + 1, so that rounding in a search cannot lose a true neighbour."""
QUERIES = 4096
"""Most samples of one tile."""
TILE_ELEMENTS, GPU_TILE_ELEMENTS = 1 << 20, 1 << 26
"""Elements of the largest temporary tensor, float32: 4 MiB on a CPU, to fit into caches; 256 MiB on a GPU, to keep it
busy."""


Search = Callable[[Tensor, int], Callable[[Tensor], Tensor]]
"""Takes references (R, D) and a count <= R; returns a function from queries (Q, D) to the indices (Q, count) of their
nearest references, int64 and in any order. References and queries are float32 and on one device.

Searches may compute |q|² - 2 q·r + |r|², which loses significant digits far from the origin. So the references have
zero mean, and queries are shifted by the same vector.
"""


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """The k nearest references of each sample of a tile, nearest first; ties are in row order."""

    samples: Tensor
    """(Q,) rows of the samples, int64."""
    rows: Tensor
    """(Q, k) rows of the neighbours among all samples, int64."""
    distances: Tensor
    """(Q, k) their L2 distances, float32."""


def find_search(name: Literal["auto", "torch", "faiss"], device: torch.device) -> Search:
    """The search with this name; ``auto`` is `fastest_search`.

    Raises UsageError if faiss is not installed, MachineError if it cannot be loaded.
    """
    if name == "faiss" and not faiss_search.is_installed():
        raise UsageError("`search` faiss needs faiss: pip install 'noisyknn[cpu]' or 'noisyknn[gpu]'")
    if name == "faiss" or (name == "auto" and fastest_search(device) == "faiss"):
        faiss_search.check_loads()
        return FaissSearch
    return TorchSearch


def fastest_search(device: torch.device) -> Literal["torch", "faiss"]:
    """``faiss`` on a CPU where it is installed, else ``torch``."""
    return "faiss" if device.type == "cpu" and faiss_search.is_installed() else "torch"


def nearest(
    features: Tensor, references: Tensor, k: int, search: Search, samples: Tensor | None = None
) -> Iterator[Neighbors]:
    """The k nearest of the reference rows (R,) for every row of features (N, D), or only for the rows `samples` (S,).

    Yields tiles in the order of the samples.

    A search only proposes candidates. Their distances are computed again, directly, so that all searches agree, unless
    more than SPARE references tie with the k-th. References tie if float32 cannot tell their squared distances apart at
    the scale of those from the mean; all members of a cluster that is a thousand times smaller tie. With R <= k there
    are R - 1 neighbours: all but the sample itself, or all but the farthest. Needs at least two references.
    """
    count, k = min(k + 1 + SPARE, len(references)), min(k, len(references) - 1)
    features = features.float().contiguous()
    pool = features[references]
    centre = pool.mean(0)
    pool -= centre
    tile_rows = min(QUERIES, rows_of_tile(count, features.device))
    everyone = torch.arange(len(features), device=features.device) if samples is None else samples
    find = search(pool, count)
    for tile in torch.split(everyone, tile_rows):
        rows = references[find(features[tile] - centre)]  # (Q, count)
        squared = _squared_distances(features, tile, rows)
        squared[rows == tile[:, None]] = torch.inf
        # the bits of non-negative floats, read as integers, keep their order, and rows break ties
        keys = _smallest((squared.view(torch.int32).long() << 32) | rows, k)
        distances = (keys >> 32).int().view(torch.float32).sqrt()
        yield Neighbors(samples=tile, rows=keys & 0xFFFFFFFF, distances=distances)


def _smallest(keys: Tensor, count: int) -> Tensor:
    """The `count` smallest of each row of `keys` (Q, R), in order."""
    if keys.is_cuda:
        return keys.topk(count, largest=False).values
    # numpy sorts integers several times faster than torch
    found = np.partition(keys.numpy(), count - 1, axis=1)[:, :count]
    found.sort(axis=1)
    return torch.from_numpy(found)


def rows_of_tile(elements: int, device: torch.device) -> int:
    """Rows per tile if each takes `elements` elements."""
    return max(1, (GPU_TILE_ELEMENTS if device.type == "cuda" else TILE_ELEMENTS) // elements)


def angular_distances(norms: Tensor, near: Neighbors, counts: Tensor) -> Tensor:
    """Mean L2 distance (Q,), from 0 to 2, of each sample of a tile to its nearest, with features scaled to norm 1.

    `norms` (N,) are the norms of all features; `counts` (Q,), at least 1, is the number of neighbours to average for
    each sample. A feature vector of zeros has no direction: its distance to all others is 1.
    """
    own, theirs = norms[near.samples, None], norms[near.rows]
    product = own * theirs
    # |a/|a| - b/|b||² = (|a - b|² - (|a| - |b|)²) / (|a| |b|): needs no features
    squared = ((near.distances.square() - (own - theirs).square()) / product).clamp(0, 4)
    distances = torch.where(product > 0, squared.sqrt(), near.distances.sign())
    counted = torch.arange(near.rows.shape[1], device=norms.device) < counts[:, None]
    return (distances * counted).sum(1) / counted.sum(1)


def _squared_distances(features: Tensor, samples: Tensor, rows: Tensor) -> Tensor:
    """Squared L2 distances (Q, count) from each of samples (Q,) to its rows (Q, count)."""
    width = features.shape[1]
    tile_rows = rows_of_tile(rows.shape[1] * width, features.device)
    squared = torch.empty(rows.shape, device=features.device)
    for each, near, result in zip(*(torch.split(part, tile_rows) for part in (samples, rows, squared)), strict=True):
        # index_select copies whole rows, several times faster than indexing by a matrix
        there = features.index_select(0, near.flatten()).view(*near.shape, width)
        here = features[each, None]
        if features.is_cuda:  # a single, memory-bound kernel; on a CPU it takes several times as long
            result.copy_(torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist")[:, 0].square_())
        else:
            torch.sum(there.sub_(here).square_(), 2, out=result)
    return squared
