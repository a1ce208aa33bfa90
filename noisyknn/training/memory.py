"""Splits batches that do not fit into a GPU's memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from noisyknn.errors import MachineError
from noisyknn.observer import Observer

Result = TypeVar("Result")


@dataclass(kw_only=True)
class Memory:
    """Remembers how many parts a batch needs, so that a run does not run out of memory again and again."""

    parts: int = 1
    """Number of parts that each batch is split into."""

    def fit(self, work: Callable[[int], Result], size: int, observer: Observer) -> Result:
        """Call `work` with the number of parts for a batch of `size` images; double it until the batch fits.

        Raises MachineError if two or three images do not fit: BatchNorm cannot train on a single one.
        """
        while True:
            parts = min(self.parts, max(size // 2, 1))
            try:
                return work(parts)
            except torch.OutOfMemoryError as error:
                if size < 4 * parts:
                    raise MachineError(
                        f"the GPU has too little memory for this network, even in batches of {size // parts}; try a "
                        "smaller `image_size` or `width`, or another `backbone`"
                    ) from error
            self.parts = 2 * parts  # out here, the error no longer keeps the memory alive
            observer.note(
                f"the GPU ran out of memory: from now on, batches are split into {self.parts} parts, and BatchNorm "
                "sees one part at a time"
            )
