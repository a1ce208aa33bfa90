"""Plain JPEGs by libjpeg-turbo's own interface: the pixels that Pillow decodes, in a fraction of the time."""

import io

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from noisyknn.data.orientation import orientation_of

_MAGIC = b"\xff\xd8\xff"
_MOST_BYTES = 64 * 2**20
_MOST_PIXELS = 16 * 2**20
_COLOURS = ("Gray", "YCbCr", "RGB")


def decode_plain(file: io.BufferedReader, least: int) -> tuple[npt.NDArray[np.uint8], int] | None:
    """A JPEG as RGB (H, W, 3), not yet turned upright, and its orientation; None for what is not plain.

    Plain are whole JPEGs of bearable size in RGB or grey: what else there is, and what is wrong with a damaged one,
    Pillow knows. Where height and width stay `least` or more, an image is decoded at a half, a quarter or an eighth of
    its size. The file is read from its start; the caller has to rewind it.
    """
    if file.seek(0, io.SEEK_END) > _MOST_BYTES:
        return None
    file.seek(0)
    if file.peek(len(_MAGIC))[: len(_MAGIC)] != _MAGIC:
        return None
    data = file.read()
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > _MOST_PIXELS or colour not in _COLOURS:
            return None
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least, min_factor=2)
    except ValueError:
        return None
    return pixels, _orientation(data)


def _orientation(data: bytes) -> int:
    if b"Exif\0\0" not in data and b":Orientation" not in data:  # nor is it in XMP: looking closer takes its time
        return 1
    with Image.open(io.BytesIO(data)) as image:
        return orientation_of(image)
