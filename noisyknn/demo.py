"""A small real data set without a download: scikit-learn's 1,797 handwritten digits, as PNGs and a table."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path) -> Path:
    """Write the digits (8 x 8 pixels, grey) under `folder`/images; returns `folder`/labels.csv: path, clean_label."""
    digits = load_digits()
    images = folder / "images"
    images.mkdir(parents=True)
    names = [f"{row:04d}.png" for row in range(len(digits.images))]
    for name, pixels in zip(names, digits.images, strict=True):
        Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(images / name)  # values are 0 to 16
    labels = folder / "labels.csv"
    pd.DataFrame({"path": names, "clean_label": digits.target}).to_csv(labels, index=False)
    return labels
