"""Random augmentation as batched functions on the device, from uint8 images to normalised floats.

Shapes: N samples, stored images of S x S pixels, batches of B images, network inputs of P x P pixels.
Every function draws from its `generator`, so a batch depends on nothing else.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from noisyknn.config import Config
from noisyknn.data.store import ImageStore


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The stored images and how to turn a batch of them into the network's input."""

    images: Tensor
    """(stored, S, S, 3) uint8, on the device or in host memory."""
    rows: Tensor
    """(N,) index of each sample's image among the stored ones; unreadable images are stored but are not samples."""
    mean: Tensor
    """(3,) mean of each channel, for pixel values from 0 to 1, on the device."""
    std: Tensor
    """(3,) standard deviation, likewise."""
    size: int
    """P, height and width of the network's input."""
    read_ahead: Callable[[npt.NDArray[np.int64]], None] | None = None
    """Starts reading the stored images of rows (B,); None unless they lie on a disk."""

    @classmethod
    def of(cls, store: ImageStore, rows: npt.NDArray[np.int64], size: int, device: torch.device) -> "Pixels":
        """The images of the rows (N,) of a store, for inputs of `size` pixels; on `device` if they fit."""
        mean, std = store.mean_std(rows)
        return cls(
            images=store.tensor(device),
            rows=torch.from_numpy(rows).to(device),
            mean=torch.from_numpy(mean).to(device),
            std=torch.from_numpy(std).to(device),
            size=size,
            read_ahead=store.read_ahead if store.on_disk else None,
        )

    @property
    def at_hand(self) -> bool:
        """Whether the images lie on the device, so that batches need no other thread."""
        return self.read_ahead is None and self.images.device == self.mean.device

    def ahead(self, batches: Sequence[Tensor], make: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """Apply `make`, which is `plain` or `augmented`, to each batch of samples in turn.

        If images come from a disk, or from host memory to a GPU, another thread prepares the next batch meanwhile.
        """
        if self.at_hand:
            yield from map(make, batches)
            return

        def fetch(samples: Tensor) -> Tensor:
            if self.read_ahead is not None:
                self.read_ahead(self.rows[samples].cpu().numpy())
            return make(samples)

        with ThreadPoolExecutor(1) as thread:  # one, to draw random numbers in the order of the batches
            coming = thread.submit(fetch, batches[0])
            for batch in batches[1:]:
                ready, coming = coming.result(), thread.submit(fetch, batch)
                yield ready
            yield coming.result()

    def plain(self, samples: Tensor) -> Tensor:
        """The centre crops of these samples (B,), normalised: (B, 3, P, P) float32, channels last in memory."""
        margin = (self.images.shape[1] - self.size) // 2
        rows = self.rows[samples].to(self.images.device)
        batch = self.images[rows, margin : margin + self.size, margin : margin + self.size]
        return self._normalised(batch.to(self.mean.device).float() / 255)  # move bytes, not floats

    def augmented(self, samples: Tensor, size: int, config: Config, generator: torch.Generator) -> Tensor:
        """Random crop, flip, affine map and colour jitter of these samples (B,), resized to `size` <= P pixels.

        Returns (B, 3, size, size) float32, channels last.
        """
        batch = crop_and_flip(self.images, self.rows[samples], self.size, config.crop_padding, config.flip, generator)
        if size < self.size:
            batch = shrunk(batch, size)
        batch = batch.to(self.mean.device).float() / 255
        if config.jitter > 0:
            batch = color_jitter(batch, config.jitter, generator)
        batch = self._normalised(batch)
        if config.rotation > 0 or config.translation > 0:
            batch = affine(batch, config.rotation, config.translation, generator)
        return batch

    def _normalised(self, batch: Tensor) -> Tensor:
        """(B, P, P, 3) from 0 to 1 as (B, 3, P, P) with zero mean and unit variance; the memory stays channels last."""
        return ((batch - self.mean) / self.std).permute(0, 3, 1, 2)


def crop_and_flip(
    images: Tensor, rows: Tensor, size: int, padding: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Random crops (B, P, P, 3) of stored images (N, S, S, 3), padded by reflection and, with `flip`, half mirrored.

    One gather does it all: rows, crops, mirrors and padding are only indices.
    """
    stored, count, device = images.shape[1], len(rows), images.device
    rows = rows.to(device)
    free = stored + 2 * padding - size  # possible starts of a crop, less one
    starts = (
        torch.randint(0, free + 1, (2, count, 1), generator=generator, device=generator.device).to(device) - padding
    )
    line = torch.arange(size, device=device)
    down, across = starts[0] + line, starts[1] + line  # (B, P)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator, device=generator.device).to(device) < 0.5
        across = torch.where(mirrored, across.flip(1), across)
    down, across = (_reflected(place, stored) for place in (down, across))
    return images[rows[:, None, None], down[:, :, None], across[:, None, :]]


def _reflected(place: Tensor, length: int) -> Tensor:
    """Fold indices back into 0 to length - 1 at the borders, as often as needed, without repeating the border."""
    period = 2 * (length - 1)
    place = place.remainder(period)
    return torch.minimum(place, period - place)


def shrunk(batch: Tensor, size: int) -> Tensor:
    """Resize bytes (B, P, P, 3) with antialiasing to (B, size, size, 3): bytes, or on a GPU floats from 0 to 255."""
    planes = batch.permute(0, 3, 1, 2)
    if batch.is_cuda:  # a GPU cannot resize bytes
        planes = planes.float()
    return F.interpolate(planes, (size, size), mode="bilinear", antialias=True).permute(0, 2, 3, 1)


def affine(batch: Tensor, rotation: float, translation: float, generator: torch.Generator) -> Tensor:
    """Rotate (B, C, P, P) by up to `rotation` degrees and shift by up to `translation` of its size; fill with zeros."""
    draws = torch.rand(3, len(batch), generator=generator, device=generator.device).to(batch.device) * 2 - 1
    angle = draws[0] * math.radians(rotation)
    shift = draws[1:] * translation * 2  # grid coordinates run from -1 to 1
    cosine, sine = angle.cos(), angle.sin()
    top, bottom = torch.stack([cosine, -sine, shift[0]], 1), torch.stack([sine, cosine, shift[1]], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, align_corners=False).contiguous(memory_format=torch.channels_last)


@functools.cache  # each copy to a GPU would wait for it
def _luma(device: torch.device) -> Tensor:
    """Weights (3,) of red, green and blue in luma by ITU-R BT.601, as in torchvision."""
    return torch.tensor([0.299, 0.587, 0.114], device=device)


def color_jitter(batch: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale brightness, contrast and saturation of (B, P, P, 3), values 0 to 1, by factors of 1 ± `strength`."""
    draws = torch.rand(3, len(batch), 1, 1, 1, generator=generator, device=generator.device).to(batch.device)
    bright, contrast, saturation = 1 + strength * (draws * 2 - 1)
    grey = _luma(batch.device)
    batch = batch * bright
    average = (batch @ grey).mean((1, 2))[:, None, None, None]
    batch = torch.lerp(average, batch, contrast)
    return torch.lerp((batch @ grey)[..., None], batch, saturation).clamp(0, 1)
