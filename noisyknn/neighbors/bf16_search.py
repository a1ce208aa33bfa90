"""Neighbour candidates by matrix products of bf16, for processors that have instructions for it.

Symbols: R references, Q queries, D features, W columns, m candidates. |q - r|² / 2 = |q|² / 2 - q·r + |r|² / 2 is one
product of W columns. None is negative, so their bits are integers of the same order, and of integers numpy finds the
smallest several times faster than torch of floats.
"""

import numpy as np
import torch
from torch import Tensor

from noisyknn.neighbors import torch_search

REFERENCES_PER_TILE = 1 << 16
"""At most 2¹⁶, which is what two bytes can number."""
QUERIES_PER_TILE = 256
GROUP = 16
"""References of a group, of which only the nearest is looked at first."""
SPARE = 32
"""Candidates beyond twice as many as are asked for."""
ROUNDING = 2.0**-8
"""Twice the largest relative error of a number rounded to bf16."""
PIECES = 3
"""Numbers of bf16 that a float32 is the sum of."""


def search(references: Tensor, queries: Tensor, count: int) -> Tensor:
    """Indices (Q, m) of the references (R, D) nearest to each query (Q, D), all of the `count` nearest among them.

    By the first bf16 piece of each number; where that does not prove that all of the nearest are among the candidates,
    by the first two; and where that does not either, as among many references at the same distance, in float32.
    """
    candidates = min(2 * count + SPARE, len(references))
    found = torch.empty(len(queries), candidates, dtype=torch.int64)
    unproven = torch.arange(len(queries))
    for pieces in (1, 2):
        pool, asked, lost = columns(references, queries[unproven], pieces)
        keys = torch.cat([_nearest(pool, tile, candidates) for tile in torch.split(asked, QUERIES_PER_TILE)])
        found[unproven] = keys & 0xFFFFFFFF
        halves = (keys >> 32).short().view(torch.bfloat16).float()  # |q - r|² / 2 + lost, rounded
        least, most = halves.kthvalue(count).values * (1 + ROUNDING), halves.amax(1) * (1 - ROUNDING)
        unproven = unproven[(most - least <= 2 * lost) & (candidates < len(references))]
        if len(unproven) == 0:
            return found
    found[unproven] = torch_search.search(references, queries[unproven], candidates)
    return found


def columns(references: Tensor, queries: Tensor, pieces: int) -> tuple[Tensor, Tensor, Tensor]:
    """bf16 columns (R, W) and (Q, W) whose products are |q - r|² / 2 + lost, to within lost (Q,), so not negative."""
    of_references, references_left = _split(references, pieces)
    of_queries, queries_left = _split(queries, pieces)
    rest = _norms(queries_left)
    lost = rest * _norms(references).max() + (_norms(queries) + rest) * _norms(references_left).max()
    pairs = [(0, 0)]
    if pieces == 2:  # what the second pieces are together is lost too
        lost += _norms(of_queries[1]) * _norms(of_references[1]).max()
        pairs += [(0, 1), (1, 0)]
    heights, _ = _split(_norms(references)[:, None].square() / 2, PIECES)
    offsets, _ = _split(_norms(queries)[:, None].square() / 2 + lost[:, None], PIECES)
    pool = [*(of_references[right] for _, right in pairs), *heights, *map(torch.ones_like, heights)]
    asked = [*(-of_queries[left] for left, _ in pairs), *map(torch.ones_like, offsets), *offsets]
    return torch.cat(pool, 1), torch.cat(asked, 1), lost


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
    best = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(pool), REFERENCES_PER_TILE):
        products = queries @ pool[start : start + REFERENCES_PER_TILE].T
        bits, places = smallest(products.view(torch.int16), count)
        best = _smallest_keys(torch.cat([best, (bits.long() << 32) | (places + start)], 1), count)
    return best


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
