"""What one would write first, for comparison: a loop over Pillow, and a DataLoader with torchvision's transforms."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from noisyknn.config import Config


def decode(paths: Sequence[Path], size: int) -> npt.NDArray[np.uint8]:
    """Images as RGB squares (N, size, size, 3), one after the other."""
    return np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)) for path in paths]
    )


class Pictures(Dataset[tuple[Tensor, int, int]]):
    """Images as augmented tensors, each decoded whenever it is asked for."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], config: Config) -> None:
        self.paths, self.labels = paths, labels
        steps = [
            transforms.Resize((config.image_size, config.image_size)),
            transforms.RandomCrop(config.image_size, config.crop_padding, padding_mode="reflect"),
        ]
        if config.flip:
            steps.append(transforms.RandomHorizontalFlip())
        if config.rotation or config.translation:
            steps.append(transforms.RandomAffine(config.rotation, (config.translation, config.translation)))
        if config.jitter:
            steps.append(transforms.ColorJitter(config.jitter, config.jitter, config.jitter))
        self.transform = transforms.Compose(
            [*steps, transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index], index


def train_epoch(network: nn.Module, pictures: Pictures, batch_size: int, device: torch.device, workers: int) -> float:
    """Seconds of one epoch in float32 that keeps each sample's loss; `network` gives logits (B, C)."""
    loader = DataLoader(pictures, batch_size, shuffle=True, num_workers=workers, drop_last=len(pictures) > batch_size)
    optimizer = torch.optim.Adam(network.parameters())
    losses = torch.zeros(len(pictures))
    network.train()
    started = time.perf_counter()
    for images, labels, rows in loader:
        loss = F.cross_entropy(network(images.to(device)), labels.to(device), reduction="none")
        optimizer.zero_grad()
        loss.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses[rows] = loss.detach().cpu()
    return time.perf_counter() - started
