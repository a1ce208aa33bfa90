"""Test images, and the accuracy of a saved network on them."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from noisyknn.config import Config
from noisyknn.data.augment import Pixels
from noisyknn.data.images import Fit
from noisyknn.data.paths import resolve_paths
from noisyknn.data.store import ImageStore, decode_all
from noisyknn.data.table import LabelTable, label_text
from noisyknn.errors import InputError, MachineError, counted, first_ten, quoted
from noisyknn.models.model_file import load_model
from noisyknn.observer import Observer
from noisyknn.training.device import find_device, wants_bf16


class HeldOut:
    """Test images, decoded once for all cells: in memory or, if they do not fit, in a file in `folder`.

    Raises InputError for missing files.
    """

    def __init__(self, images: Path, table: LabelTable, folder: Path, observer: Observer) -> None:
        self.table, self._folder, self._observer = table, folder, observer
        self._files = resolve_paths(images, table.paths, table.table.name, "`test_images`")
        if missing := [path for path, file in zip(table.paths, self._files, strict=True) if not file.is_file()]:
            told = counted(len(missing), "file does not exist", "files do not exist")
            raise InputError(f"{table.table.name}: {told}: {first_ten(missing)}; check `test_images`")
        self.store = functools.cache(self._decode)

    def _decode(self, size: int, fit: Fit) -> ImageStore:
        """All images at `size` x `size` pixels; raises InputError for an image that cannot be read."""
        self._observer.start("reading test images", len(self._files), "images")
        # a mapped file outlives its name
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            store = decode_all(self._files, size, fit, Path(place), self._observer.advance)
        if store.reasons:
            named = [f"row {row + 1} {quoted(self.table.paths[row])} ({why})" for row, why in store.reasons.items()]
            told = counted(len(named), "image cannot be read", "images cannot be read")
            raise InputError(f"{self.table.table.name}: {told}: {first_ten(named)}; repair or remove them")
        return store


def accuracy(model_file: Path, tests: HeldOut, config: Config) -> float:
    """Accuracy of a saved network on the test images; raises MachineError if the GPU is full."""
    model, about = load_model(model_file)
    place = {label_text(label): c for c, label in enumerate(about["classes"])}
    # if noise leaves a class without labels, its images count as wrong
    labels = np.array([place.get(label_text(label), -1) for label in tests.table.classes])[tests.table.given_labels]
    device = find_device(config.device)
    try:
        pixels = Pixels(
            images=tests.store(int(about["store_size"]), config.fit).tensor(device),
            rows=torch.arange(len(labels), device=device),
            mean=torch.tensor(about["mean"], device=device),
            std=torch.tensor(about["std"], device=device),
            size=config.image_size,
        )
        model = model.to(device).to(memory_format=torch.channels_last)
        bf16 = wants_bf16(config.precision, device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            told = [model(pixels.plain(batch)).argmax(1).cpu() for batch in torch.split(pixels.rows, config.batch_size)]
    except torch.OutOfMemoryError as error:
        raise MachineError(
            "the GPU has too little free memory to test; free some and run the same command again"
        ) from error
    return float((torch.cat(told).numpy() == labels).mean())
