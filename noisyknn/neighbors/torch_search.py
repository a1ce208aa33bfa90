"""Neighbour candidates by torch: tiled matrix products, on any device, in bounded memory."""

import torch
from torch import Tensor

REFERENCES_PER_TILE = 65_536
CPU_ELEMENTS = 1 << 22
"""Most distances of one tile on a CPU: 16 MiB, which caches like."""
GPU_ELEMENTS = 1 << 27
GROUP = 16


def search(references: Tensor, queries: Tensor, count: int) -> Tensor:
    """Indices (Q, count) of the references (R, D) nearest to each query (Q, D) by L2.

    |q - r|² = |q|² - 2 q·r + |r|², and |q|² does not change the order.
    """
    elements = GPU_ELEMENTS if references.is_cuda else CPU_ELEMENTS
    tile_rows = max(1, elements // min(len(references), REFERENCES_PER_TILE))
    return torch.cat([_search_tile(references, tile, count) for tile in torch.split(queries, tile_rows)])


def _search_tile(references: Tensor, queries: Tensor, count: int) -> Tensor:
    best = queries.new_empty(len(queries), 0)  # (Q, up to count) closeness 2 q·r - |r|², high is near
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(references), REFERENCES_PER_TILE):
        part = references[start : start + REFERENCES_PER_TILE]  # (R', D)
        closeness = torch.addmm(-part.square().sum(1), queries, part.T, alpha=2)  # (Q, R')
        values, places = largest(closeness, min(count, len(part)))
        best, indices = torch.cat([best, values], 1), torch.cat([indices, places + start], 1)
        if best.shape[1] > count:
            best, kept = best.topk(count, sorted=False)
            indices = indices.gather(1, kept)
    return indices


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of `values` (Q, R) and their places, both (Q, count), in any order.

    They lie in the `count` groups of the largest maxima, which takes one quick look at each value.
    """
    groups = values.shape[1] // GROUP
    if groups < 2 * count:
        return values.topk(count, sorted=False)
    grouped = groups * GROUP
    maxima = values[:, :grouped].view(-1, GROUP, groups).amax(1)
    firsts = torch.arange(0, grouped, groups, device=values.device)
    chosen = maxima.topk(count, sorted=False).indices[:, None] + firsts[:, None]
    rest = torch.arange(grouped, values.shape[1], device=values.device).expand(len(values), -1)
    places = torch.cat([chosen.flatten(1), rest], 1)
    found, kept = values.gather(1, places).topk(count, sorted=False)
    return found, places.gather(1, kept)
