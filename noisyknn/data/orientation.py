"""Which way is up in a photograph, by EXIF, and turning its pixels there."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

Pixels = npt.NDArray[np.uint8]

_TURNS: Mapping[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}


def orientation_of(image: Image.Image) -> int:
    """EXIF's (or XMP's) orientation, 1 to 8; 1, upright, where there is none or none that can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata, whatever it makes Pillow raise, does not damage the picture
        return 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """A view of an image (H, W, 3) the right way up; orientations that there are none of leave it as it is."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else turn(pixels)
