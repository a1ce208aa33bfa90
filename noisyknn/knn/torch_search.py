"""Neighbour candidates by torch: tiled matrix products, on any device, in bounded memory."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

REFERENCES_PER_TILE = 65_536
CPU_ELEMENTS = 1 << 22
"""Most distances of one tile on a CPU: 16 MiB, which caches like."""
GPU_ELEMENTS = 1 << 27
GROUP = 16
"""References of a group, of which only the nearest is looked at first."""
DROPPED_BITS = 13
"""Bits of a float32's mantissa that TF32 has no room for."""


class TorchSearch:
    """Finds the `count` references (R, D) nearest to queries by L2, in float32.

    |q - r|² = |q|² - 2 q·r + |r|², and |q|² does not change the order.
    """

    def __init__(self, references: Tensor, count: int) -> None:
        self._references, self._count = references, count
        self._norms = references.square().sum(1)

    def __call__(self, queries: Tensor) -> Tensor:
        """Indices (Q, count) of the references nearest to each query (Q, D)."""
        return _search(self._references, self._norms, queries, self._count)[1]


class Tf32Search:
    """The same by TF32 on tensor cores, up to twice as many, so that none is lost but by float32's rounding.

    Both sides are rounded to TF32 first, so that what the products lose is known: |q·r - q̂·r̂| is at most
    |q - q̂| |r| + |q̂| |r - r̂|. Where the last candidate is farther than the count-th by more than both may have lost,
    all of the nearest are found; the other queries are searched again in float32.
    """

    def __init__(self, references: Tensor, count: int) -> None:
        self._references, self._count = references, count
        self._candidates = min(2 * count, len(references))
        self._norms = references.square().sum(1)
        self._pool = _rounded(references)
        self._longest, self._most_lost = self._norms.max().sqrt(), (references - self._pool).norm(dim=1).max()

    def __call__(self, queries: Tensor) -> Tensor:
        """Indices (Q, up to 2 · count) of the references nearest to each query (Q, D)."""
        asked = _rounded(queries)
        with _products(tf32=True):
            closeness, indices = _search(self._pool, self._norms, asked, self._candidates)
        lost = 2 * ((queries - asked).norm(dim=1) * self._longest + asked.norm(dim=1) * self._most_lost)
        nearest_lost = closeness.topk(self._count).values[:, -1] - 2 * lost  # the count-th may seem as far as this
        again = torch.nonzero((closeness.amin(1) >= nearest_lost) & (self._candidates < len(self._references)))[:, 0]
        with _products(tf32=False):
            closeness[again], indices[again] = _search(self._references, self._norms, queries[again], self._candidates)
        nearest_lost[again] = closeness[again].topk(self._count).values[:, -1]
        near_enough = (closeness >= nearest_lost[:, None]).sum(1).tolist()
        return indices.gather(1, closeness.topk(max([self._count, *near_enough]), sorted=False).indices)


def _rounded(values: Tensor) -> Tensor:
    """float32 rounded to the mantissa of TF32."""
    bits = values.contiguous().view(torch.int32) + (1 << (DROPPED_BITS - 1))
    return (bits & -(1 << DROPPED_BITS)).view(torch.float32)


@contextlib.contextmanager
def _products(*, tf32: bool) -> Iterator[None]:
    """Let products of float32 on the GPU be done in TF32, or not, whatever else the program has asked for."""
    matmul = torch.backends.cuda.matmul
    # since torch 2.9, to set one of the two makes reading the other an error
    newer = hasattr(matmul, "fp32_precision")
    name, values = ("fp32_precision", ("ieee", "tf32")) if newer else ("allow_tf32", (False, True))
    before = getattr(matmul, name)
    setattr(matmul, name, values[tf32])
    try:
        yield
    finally:
        setattr(matmul, name, before)


def _search(references: Tensor, norms: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Closeness 2 q·r - |r|², high is near, and indices of the nearest, both (Q, count), in any order."""
    elements = GPU_ELEMENTS if references.is_cuda else CPU_ELEMENTS
    tile_rows = max(1, elements // min(len(references), REFERENCES_PER_TILE))
    tiles = [_search_tile(references, norms, tile, count) for tile in torch.split(queries, tile_rows)]
    closeness, indices = zip(*tiles, strict=True)
    return torch.cat(closeness), torch.cat(indices)


def _search_tile(references: Tensor, norms: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    best = queries.new_empty(len(queries), 0)
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(references), REFERENCES_PER_TILE):
        part = references[start : start + REFERENCES_PER_TILE]  # (R', D)
        closeness = torch.addmm(-norms[start : start + len(part)], queries, part.T, alpha=2)  # (Q, R')
        values, places = largest(closeness, min(count, len(part)))
        best, indices = torch.cat([best, values], 1), torch.cat([indices, places + start], 1)
        if best.shape[1] > count:
            best, kept = best.topk(count, sorted=False)
            indices = indices.gather(1, kept)
    return best, indices


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
