"""Neighbour candidates by torch: tiled matrix products, on any device, in bounded memory."""

import torch
from torch import Tensor

REFERENCES_PER_TILE = 65_536
QUERIES_PER_TILE = 512


def search(references: Tensor, queries: Tensor, count: int) -> Tensor:
    """Indices (Q, count) of the references (R, D) nearest to each query (Q, D) by L2.

    |q - r|² = |q|² - 2 q·r + |r|², and |q|² does not change the order.
    """
    return torch.cat([_search_tile(references, tile, count) for tile in torch.split(queries, QUERIES_PER_TILE)])


def _search_tile(references: Tensor, queries: Tensor, count: int) -> Tensor:
    best = queries.new_empty(len(queries), 0)  # (Q, up to count) closeness 2 q·r - |r|², high is near
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(references), REFERENCES_PER_TILE):
        part = references[start : start + REFERENCES_PER_TILE]  # (R', D)
        closeness = torch.addmm(-part.square().sum(1), queries, part.T, alpha=2)  # (Q, R')
        values, places = closeness.topk(min(count, len(part)), sorted=False)
        best, indices = torch.cat([best, values], 1), torch.cat([indices, places + start], 1)
        if best.shape[1] > count:
            best, kept = best.topk(count, sorted=False)
            indices = indices.gather(1, kept)
    return indices
