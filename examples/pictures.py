"""Drawn pictures for measurements without data, and a plain PyTorch training loop."""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from noisyknn.config import Config

PHOTOGRAPH = (500, 375)
"""Width and height of a typical photograph on the web."""
DISTINCT, PIXELS = 32, 1 << 26
"""Smallest number of distinct pictures, and largest number of pixels to draw; further files are copies."""
ROUGHNESS = 0.4
"""Growth of detail with scale: a JPEG of 500 x 375 pixels at quality 90 takes about 55 kB, like a photograph."""


def write_pictures(folder: Path, count: int, width: int, height: int, seed: int) -> list[Path]:
    """Write `count` JPEGs as rough as photographs into a folder and return their paths in order."""
    generator = np.random.default_rng(seed)
    distinct = min(count, max(DISTINCT, PIXELS // (width * height)))
    drawn = [_encoded(generator, width, height) for _ in range(distinct)]
    paths = [folder / f"{width}x{height}-{index:06d}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(drawn[index % distinct])
    return paths


def _encoded(generator: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG: a sum of random colours at every scale, down to single pixels."""
    total = np.zeros((3, height, width), dtype=np.float32)
    scale = 1
    while scale < min(width, height):
        cells = generator.standard_normal((3, -(-height // scale), -(-width // scale)), dtype=np.float32)
        for channel, values in zip(total, cells, strict=True):
            channel += np.asarray(Image.fromarray(values).resize((width, height))) * scale**ROUGHNESS
        scale *= 2
    grey = (128 + 55 * total / total.std()).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey.transpose(1, 2, 0)).save(file, "JPEG", quality=90)
    return file.getvalue()


class Pictures(Dataset[tuple[Tensor, int, int]]):
    """Images as augmented tensors, decoded at each access: the plain way."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], config: Config) -> None:
        self.paths, self.labels = paths, labels
        size, shift, jitter = config.image_size, config.translation, config.jitter
        steps = [transforms.Resize((size, size))]
        steps += [transforms.RandomCrop(size, config.crop_padding, padding_mode="reflect")]
        steps += [transforms.RandomHorizontalFlip()] if config.flip else []
        steps += [transforms.RandomAffine(config.rotation, (shift, shift))] if config.rotation or shift else []
        steps += [transforms.ColorJitter(jitter, jitter, jitter)] if jitter else []
        steps += [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index], index


def plain_epoch(network: nn.Module, pictures: Pictures, batch_size: int, device: torch.device, workers: int) -> float:
    """Seconds of one float32 epoch that keeps each sample's loss; `network` gives logits (B, C)."""
    loader = DataLoader(pictures, batch_size, shuffle=True, num_workers=workers, drop_last=len(pictures) > batch_size)
    optimizer = torch.optim.Adam(network.parameters())
    losses = torch.zeros(len(pictures))
    network.train()
    started = time.perf_counter()
    for images, labels, rows in loader:
        loss = F.cross_entropy(network(images.to(device)), labels.to(device), reduction="none")
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses[rows] = loss.detach().cpu()
    return time.perf_counter() - started
