"""Batches that are too large for a GPU's memory, cut into parts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from noisyknn.errors import MachineError
from noisyknn.observer import Observer

Result = TypeVar("Result")


@dataclass(kw_only=True)
class Memory:
    """What a run has learnt of its device's memory, so that it runs out of it only once."""

    parts: int = 1
    """Into how many parts a batch is cut to fit."""

    def fit(self, work: Callable[[int], Result], size: int, observer: Observer) -> Result:
        """`work` on a batch of `size` images, given how many parts to cut it into, twice as many until it fits.

        Raises MachineError where two images are too many: BatchNorm cannot learn from one.
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
            self.parts = 2 * parts  # out here, the error no longer holds on to what filled the memory
            observer.note(
                f"the GPU is out of memory: from here on, batches are cut into {self.parts} parts, and BatchNorm sees "
                "one part at a time"
            )
