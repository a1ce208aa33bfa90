"""Exact k nearest neighbours by L2 distance, a sample never being its own neighbour.

Shapes: N samples, R references, Q queries of one tile, D features, k neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from noisyknn.errors import UsageError

SPARE = 8
"""Candidates asked for beyond k + 1, so that rounding in a search cannot push a true neighbour out."""
TILE_ELEMENTS = 1 << 24
"""Size of the largest temporary tensor, in elements: 64 MiB of float32."""


class Search(Protocol):
    """Finds candidates: the rows of `references` (R, D) nearest to each of `queries` (Q, D), as indices (Q, count)."""

    def __call__(self, references: Tensor, queries: Tensor, count: int) -> Tensor:
        """Indices (Q, count) into `references`, int64, in any order; count <= R; both float32 on one device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """The k nearest references of each sample of a tile, nearest first, equally near ones by row."""

    samples: Tensor
    """(Q,) rows whose neighbours these are, int64."""
    rows: Tensor
    """(Q, k) rows of the neighbours among all samples, int64."""
    distances: Tensor
    """(Q, k) their L2 distances, float32."""


def find_search(name: Literal["auto", "torch", "faiss"], device: torch.device) -> Search:
    """The search of that name; ``auto`` is faiss on the CPU where it is installed, else torch."""
    from noisyknn.neighbors import faiss_search, torch_search  # here, since both modules import this one

    installed = faiss_search.is_installed()
    if name == "faiss" and not installed:
        raise UsageError("--search faiss needs faiss: pip install 'noisyknn[cpu]' or 'noisyknn[gpu]'")
    use_faiss = name == "faiss" or (name == "auto" and installed and device.type == "cpu")
    return faiss_search.search if use_faiss else torch_search.search


def nearest(features: Tensor, references: Tensor, k: int, search: Search) -> Iterator[Neighbors]:
    """The k nearest of the reference rows (R,) for every row of features (N, D), tile by tile in order of rows.

    A search only proposes candidates. Their distances are computed again, directly, so that every search gives the
    same neighbours. With fewer than k + 1 references, all but the sample itself are neighbours.
    """
    count, k = min(k + 1 + SPARE, len(references)), min(k, len(references) - 1)
    features = features.float().contiguous()
    pool = features[references]
    tile_rows = max(1, min(4096, TILE_ELEMENTS // (count * features.shape[1])))
    for samples in torch.split(torch.arange(len(features), device=features.device), tile_rows):
        candidates = search(pool, features[samples], count)
        candidates = candidates.sort(dim=1).values  # by row first, so that the stable sort below settles ties by row
        rows = references[candidates]  # (Q, count)
        squared = (pool[candidates] - features[samples][:, None]).square().sum(2)
        squared[rows == samples[:, None]] = torch.inf
        order = squared.argsort(dim=1, stable=True)[:, :k]
        yield Neighbors(samples=samples, rows=rows.gather(1, order), distances=squared.gather(1, order).sqrt())
