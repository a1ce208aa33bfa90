"""Drawn pictures for benchmarks that need no data: as rough as photographs, so that their JPEGs are as large."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

DISTINCT, PIXELS = 32, 1 << 26
"""Pictures that are drawn at least, and pixels of them that are drawn at most; other files are copies of these."""
ROUGHNESS = 0.4
"""How fast detail grows with scale: at a JPEG quality of 90, a picture of 500 x 375 pixels then takes some 55 kB."""
QUALITY = 90
PHOTOGRAPH = (500, 375)
"""Width and height of a photograph as image sets of the web have them."""


def write_pictures(folder: Path, count: int, width: int, height: int, seed: int) -> list[Path]:
    """Write that many JPEGs into a folder and return their paths in order."""
    generator = np.random.default_rng(seed)
    distinct = max(DISTINCT, PIXELS // (width * height))
    drawn = list(_encoded(generator, min(count, distinct), width, height))
    paths = [folder / f"{width}x{height}-{index:06d}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(drawn[index % len(drawn)])
    return paths


def _encoded(generator: np.random.Generator, count: int, width: int, height: int) -> Iterator[bytes]:
    for _ in range(count):
        file = io.BytesIO()
        _draw(generator, width, height).save(file, "JPEG", quality=QUALITY)
        yield file.getvalue()


def _draw(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """A sum of random colours at every scale, the finest being single pixels."""
    total = np.zeros((3, height, width), dtype=np.float32)
    scale = 1
    while scale < min(width, height):
        cells = generator.standard_normal((3, -(-height // scale), -(-width // scale)), dtype=np.float32)
        for channel, values in zip(total, cells, strict=True):
            channel += np.asarray(Image.fromarray(values).resize((width, height))) * scale**ROUGHNESS
        scale *= 2
    grey = 128 + 55 * total / total.std()
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
