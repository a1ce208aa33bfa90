"""Neighbour candidates by matrix products of bf16, for processors that have instructions for it.

Symbols: R references, Q queries, D features, W columns, m candidates. |q - r|² / 2 = |q|² / 2 - q·r + |r|² / 2 is one
product of W columns. None is negative, so their bits are integers of the same order, and of integers numpy finds the
smallest several times faster than torch of floats.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from noisyknn.knn.torch_search import TorchSearch

REFERENCES_PER_TILE = 1 << 16
"""At most 2¹⁶, which is what two bytes can number."""
QUERIES_PER_TILE = 64
"""So that their products with the references of a tile cache."""
TRIAL = 512
"""First queries, which tell how many pieces are worth a try on the others."""
GROUP = 16
"""References of a group, of which only the nearest is looked at first."""
SPARE = 32
"""Candidates beyond twice as many as are asked for."""
ROUNDING = 2.0**-8
"""Twice the largest relative error of a number rounded to bf16."""
PIECES = 3
"""Numbers of bf16 that a float32 is the sum of."""


class Bf16Search:
    """Finds the `count` references (R, D) nearest to queries by L2, and about twice as many candidates.

    By the first bf16 piece of each number; where that does not prove that all of the nearest are among the candidates,
    by the first two; and where that does not either, as among many references at the same distance, in float32. What
    proves too little for most queries is not tried on later ones.
    """

    def __init__(self, references: Tensor, count: int) -> None:
        self._references, self._count = references, count
        self._candidates = min(2 * count + SPARE, len(references))
        self._columns: dict[int, Columns] = {}
        self._least_pieces = 1

    def __call__(self, queries: Tensor) -> Tensor:
        """Indices (Q, m) of the references nearest to each query (Q, D)."""
        first = self._find(queries[:TRIAL])
        return torch.cat([first, self._find(queries[TRIAL:])]) if len(queries) > TRIAL else first

    def _find(self, queries: Tensor) -> Tensor:
        found = torch.empty(len(queries), self._candidates, dtype=torch.int64)
        unproven = torch.arange(len(queries))
        for pieces in range(self._least_pieces, 3):
            if pieces not in self._columns:
                self._columns[pieces] = Columns(self._references, pieces)
            asked, lost = self._columns[pieces].queries(queries[unproven])
            keys = _nearest(self._columns[pieces].references, asked, self._candidates)
            found[unproven] = keys & 0xFFFFFFFF
            near, far = _halves(_smallest_keys(keys, self._count).amax(1)), _halves(keys.amax(1))
            is_proven = far * (1 - ROUNDING) - near * (1 + ROUNDING) > 2 * lost
            unproven = unproven[~is_proven & (self._candidates < len(self._references))]
            if len(unproven) == 0:
                return found
            if 2 * len(unproven) > len(queries):
                self._least_pieces = pieces + 1
        found[unproven] = self._in_float32(queries[unproven])
        return found

    @functools.cached_property
    def _in_float32(self) -> TorchSearch:
        return TorchSearch(self._references, self._candidates)


class Columns:
    """bf16 columns (R, W) of `references` and (Q, W) of `queries`, whose products tell how far these are."""

    def __init__(self, references: Tensor, pieces: int) -> None:
        parts, left = _split(references, pieces)
        self._pieces = pieces
        self._longest, self._most_left = _norms(references).max(), _norms(left).max()
        self._most_second = _norms(parts[-1]).max()
        heights, _ = _split(_norms(references)[:, None].square() / 2, PIECES)
        order = parts if pieces == 1 else [parts[0], parts[1], parts[0]]
        self.references = torch.cat([*order, *heights, *map(torch.ones_like, heights)], 1)

    def queries(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Columns whose products with the references' are |q - r|² / 2 + lost to within lost (Q,), so not negative."""
        parts, left = _split(-queries, self._pieces)
        rest = _norms(left)
        lost = rest * self._longest + (_norms(queries) + rest) * self._most_left
        if self._pieces == 2:  # what the second pieces are together is lost too
            lost += _norms(parts[1]) * self._most_second
        offsets, _ = _split(_norms(queries)[:, None].square() / 2 + lost[:, None], PIECES)
        order = parts if self._pieces == 1 else [parts[0], parts[0], parts[1]]
        return torch.cat([*order, *map(torch.ones_like, offsets), *offsets], 1), lost


def _norms(rows: Tensor) -> Tensor:
    return rows.float().square().sum(1).sqrt()


def _split(values: Tensor, pieces: int) -> tuple[list[Tensor], Tensor]:
    """Tensors of bf16 that sum to `values`, the largest first, but for what is left."""
    found = []
    for _ in range(pieces):
        found.append(values.bfloat16())
        values = values - found[-1].float()
    return found, values


def _nearest(pool: Tensor, queries: Tensor, count: int) -> Tensor:
    """The `count` references of the smallest product with each query: its bits times 2³² plus the reference's index."""
    found = torch.empty(len(queries), count, dtype=torch.int64)
    room = torch.empty(min(len(queries), QUERIES_PER_TILE), min(len(pool), REFERENCES_PER_TILE), dtype=torch.bfloat16)
    for asked, result in zip(*(torch.split(part, QUERIES_PER_TILE) for part in (queries, found)), strict=True):
        best = result[:, :0]
        for start in range(0, len(pool), REFERENCES_PER_TILE):
            part = pool[start : start + REFERENCES_PER_TILE]
            products = torch.mm(asked, part.T, out=room.flatten()[: len(asked) * len(part)].view(len(asked), len(part)))
            bits, places = smallest(products.view(torch.int16), count)
            best = _smallest_keys(torch.cat([best, (bits.long() << 32) | (places + start)], 1), count)
        result.copy_(best)
    return found


def _halves(keys: Tensor) -> Tensor:
    """|q - r|² / 2 + lost, rounded to bf16."""
    return (keys >> 32).short().view(torch.bfloat16).float()


def smallest(bits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest of each row of `bits` (Q, R) and their places, or all, in any order.

    They lie in the `count` groups of the smallest minima, which takes one quick look at each.
    """
    groups = bits.shape[1] // GROUP
    if groups < 2 * count:
        return _smallest(bits, torch.arange(bits.shape[1]), count)
    grouped = groups * GROUP
    minima = bits[:, :grouped].view(-1, GROUP, groups).amin(1)
    _, chosen = _smallest(minima, torch.arange(groups), count)
    of_groups = (chosen[:, None] + torch.arange(0, grouped, groups)[:, None]).flatten(1)
    rest = torch.arange(grouped, bits.shape[1]).expand(len(bits), -1)
    places = torch.cat([of_groups, rest], 1)
    return _smallest(bits.gather(1, places), places, count)


def _smallest(bits: Tensor, places: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same of bits of any places (Q, R) or (R,), by one number for both."""
    keys = _smallest_keys((bits.int() << 16) | places.int(), count)
    return keys >> 16, (keys & 0xFFFF).long()


def _smallest_keys(keys: Tensor, count: int) -> Tensor:
    if count >= keys.shape[1]:
        return keys
    return torch.from_numpy(np.partition(keys.numpy(), count - 1, axis=1)[:, :count])
