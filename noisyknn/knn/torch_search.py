"""Neighbour candidates by torch: tiled matrix products, on any device, in bounded memory."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

REFERENCES_PER_TILE = 65_536
CPU_ELEMENTS = 1 << 22
"""Most distances of one tile on a CPU: 16 MiB, to fit into caches."""
GPU_ELEMENTS = 1 << 27
GROUP = 16
"""References per group; the first pass looks only at the nearest of each group."""


class TorchSearch:
    """Finds the `count` references (R, D) nearest to queries by L2, in float32.

    |q - r|² = |q|² - 2 q·r + |r|², and |q|² does not change the order.
    """

    def __init__(self, references: Tensor, count: int) -> None:
        self._references, self._count = references, count
        self._norms = references.square().sum(1)

    def __call__(self, queries: Tensor) -> Tensor:
        """Indices (Q, count) of the references nearest to each query (Q, D)."""
        elements = GPU_ELEMENTS if queries.is_cuda else CPU_ELEMENTS
        tile_rows = max(1, elements // min(len(self._references), REFERENCES_PER_TILE))
        with _in_float32():
            return torch.cat([self._search(tile) for tile in torch.split(queries, tile_rows)])

    def _search(self, queries: Tensor) -> Tensor:
        """The same for a tile of queries (Q, D): closeness 2 q·r - |r|² is high where |q - r|² is small."""
        best = queries.new_empty(len(queries), 0)
        indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        for start in range(0, len(self._references), REFERENCES_PER_TILE):
            part = self._references[start : start + REFERENCES_PER_TILE]  # (R', D)
            closeness = torch.addmm(-self._norms[start : start + len(part)], queries, part.T, alpha=2)  # (Q, R')
            values, places = largest(closeness, min(self._count, len(part)))
            best, indices = torch.cat([best, values], 1), torch.cat([indices, places + start], 1)
            if best.shape[1] > self._count:
                best, kept = best.topk(self._count, sorted=False)
                indices = indices.gather(1, kept)
        return indices


@contextlib.contextmanager
def _in_float32() -> Iterator[None]:
    """Keep a GPU's float32 products exact even if the program allows TF32, which would lose near neighbours."""
    matmul = torch.backends.cuda.matmul
    # since torch 2.9, setting one of the two makes reading the other an error
    name, exact = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    before = getattr(matmul, name)
    setattr(matmul, name, exact)
    try:
        yield
    finally:
        setattr(matmul, name, before)


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of `values` (Q, R) and their places, both (Q, count), in any order.

    They lie in the `count` groups with the largest maxima, which one quick pass over the values finds.
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
