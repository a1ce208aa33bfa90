"""A tiny image set for whole runs: three plain colours with noise, which any network tells apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from noisyknn.observer import Silent

CLASSES = ("blue", "green", "red")
FAST_SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "episodes": 2,
    "backbone": "cnn5",
    "width": 0.25,
    "precision": "fp32",
    "loss": "ce",
    "k": 4,
    "reference_start": 0.5,
    "reference_step": 0.25,
}
"""A run of a fraction of a second, whatever the preset ``auto`` would choose."""


def as_options(settings: Mapping[str, object]) -> list[str]:
    """Settings as the command line takes them."""
    return [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def draw(folder: Path, rows: int = 48) -> pd.DataFrame:
    """Draw `rows` images of 12 x 12 pixels into `folder`; returns path, label (each seventh wrong) and clean_label."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    names, true, given = [], [], []
    for row in range(rows):
        colour = row % 3
        pixels = generator.normal(60, 25, (12, 12, 3))
        pixels[..., 2 - colour] += 120
        names.append(f"{row:02d}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / names[-1])
        true.append(CLASSES[colour])
        given.append(CLASSES[(colour + (row % 7 == 0)) % 3])
    return pd.DataFrame({"path": names, "label": given, "clean_label": true})


class Listening(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
