"""Image files: looking at their headers, decoding them into squares of RGB.

Files are untrusted. Whatever is wrong with one becomes an UnreadableImageError with a short reason, and nothing is
decoded before its header says that it is of bearable size.
"""

import contextlib
import errno
import io
import itertools
import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch.nn import functional as F

from noisyknn.data.jpeg import decode_plain
from noisyknn.data.orientation import orientation_of, upright
from noisyknn.errors import InputError, counted, first_ten, shortened

Fit = Literal["squash", "crop"]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # rasters only: Pillow runs other programs for EPS
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_SMALL = 256 * 256  # pixels up to which typical_size decodes an image to see whether it is grey
_LARGE = 16 * 2**20  # pixels above which images are decoded one at a time, however many threads there are
_STRIP = 2**20  # pixels of a decoded image that are converted at a time
_REDUCING_GAP = 2  # how many times larger than asked a cheap first reduction leaves an image
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

_one_large_image = threading.Lock()

# Without a handler, Python prints Pillow's log of damaged files to standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class UnreadableImageError(ValueError):
    """One image that cannot be decoded; the message is the reason in a few words, without the path."""


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence warnings, which Pillow gives about odd files; to be put once around all threads that decode.

    The filters of Python's warnings belong to the whole process, so threads must not each set their own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def some_unreadable(number: int) -> str:
    """What becomes of so many images that cannot be read, for a message."""
    return counted(
        number, "image could not be read and keeps its label", "images could not be read and keep their labels"
    )


def nothing_readable(total: int, failures: Sequence[str]) -> InputError:
    """The error to raise when none of `total` images can be read; `failures` are ``path: reason``."""
    return InputError(f"none of the {total:,} images could be read ({first_ten(failures)}); is --images right?")


def evenly_spread(total: int, sample: int) -> npt.NDArray[np.int64]:
    """At most `sample` distinct indices in ascending order, spread evenly from 0 to ``total - 1``."""
    return np.linspace(0, total - 1, min(sample, total)).astype(np.int64)


def decode(path: Path, size: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """The first frame of an image file as upright RGB on white, (size, size, 3).

    An oblong image is squeezed whole (``squash``) or loses what is outside its centre square (``crop``). An RGB image
    that is `size` pixels high and wide keeps every bit. Raises UnreadableImageError for anything that cannot be
    decoded. Pillow may warn as well: see `quiet_pillow`.
    """
    with _opened(path) as file:
        if (plain := decode_plain(file, size * _REDUCING_GAP)) is not None:
            pixels, orientation = plain
            return upright(_resized(pixels, size, fit), orientation)
        file.seek(0)
        with _image(file) as image:
            # A JPEG decodes at a half, a quarter or an eighth of its size in less time; other formats ignore this.
            pixels_held = image.width * image.height
            image.draft(None, (size * _REDUCING_GAP, size * _REDUCING_GAP))
            if "progressive" not in image.info:  # of a progressive JPEG, the whole is held all the same
                pixels_held = image.width * image.height
            with _one_large_image if pixels_held > _LARGE else contextlib.nullcontext():
                image.load()
                squared = np.array(_squared(image, size, fit))
            return upright(squared, orientation_of(image))


def _resized(pixels: npt.NDArray[np.uint8], size: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """RGB (H, W, 3) as a square of `size` pixels, antialiased as Pillow does it, several times faster."""
    if fit == "crop":
        left, top, right, bottom = _centre_square((pixels.shape[1], pixels.shape[0]))
        pixels = pixels[top:bottom, left:right]
    if pixels.shape[:2] == (size, size):
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    square: npt.NDArray[np.uint8] = F.interpolate(planes, (size, size), mode="bilinear", antialias=True)[0].numpy()
    return square.transpose(1, 2, 0)


def _squared(image: ImageFile.ImageFile, size: int, fit: Fit) -> Image.Image:
    """A decoded image as RGB of `size` by `size` pixels, not yet turned upright.

    What `Image.resize` does with a `reducing_gap`, but from strips: all that is as large as the image is the image.
    """
    if image.size == (size, size):
        return _to_rgb(image, _grey_range(image))
    left, top, right, bottom = _centre_square(image.size) if fit == "crop" else (0, 0, *image.size)
    width, height = right - left, bottom - top
    x_factor, y_factor = (int(edge / size / _REDUCING_GAP) or 1 for edge in (width, height))
    reduced = Image.new("RGB", (-(-width // x_factor), -(-height // y_factor)))
    grey_range = _grey_range(image)
    step = max(_STRIP // width // y_factor, 1) * y_factor
    for y in range(top, bottom, step):
        strip = _to_rgb(image.crop((left, y, right, min(y + step, bottom))), grey_range)
        reduced.paste(strip.reduce((x_factor, y_factor)), (0, (y - top) // y_factor))
    box = (0, 0, width / x_factor, height / y_factor)
    return reduced.resize((size, size), Image.Resampling.BILINEAR, box=box)


def typical_size(paths: Sequence[Path], sample: int = 256) -> tuple[int, bool]:
    """Median short edge in pixels of an even sample of the readable images, and whether all of the sample are grey.

    Looks at headers only, except that small colour images are decoded to see whether their channels differ; large
    ones count as coloured. Raises InputError where no image at all can be read.
    """
    failures: list[str] = []
    with quiet_pillow():
        found = list(_glances((paths[i] for i in evenly_spread(len(paths), sample)), failures))
        if not found:
            failures.clear()
            found = list(itertools.islice(_glances(paths, failures), sample))
    if not found:
        raise nothing_readable(len(paths), failures)
    edges, grey = zip(*found, strict=True)
    return int(np.median(edges)), all(grey)


def _glances(paths: Iterable[Path], failures: list[str]) -> Iterator[tuple[int, bool]]:
    for path in paths:
        try:
            glance = _glance(path)
        except UnreadableImageError as error:
            failures.append(f"{shortened(str(path))}: {error}")
        else:
            yield glance


def _glance(path: Path) -> tuple[int, bool]:
    """Short edge in pixels, and whether the image is grey as far as that is cheap to know."""
    with _opened(path) as file, _image(file) as image:
        edge = min(image.size)
        if image.mode in _GREY_MODES or image.mode.startswith("I;"):
            return edge, True
        if image.width * image.height > _SMALL:
            return edge, False
        pixels = np.asarray(_to_rgb(image, _grey_range(image)))
        return edge, bool((pixels == pixels[..., :1]).all())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file that may be an image; whatever fails inside becomes UnreadableImageError."""
    try:
        _check_file(path)
        with path.open("rb") as file:
            yield file
    except UnreadableImageError:
        raise
    except Exception as error:  # on damaged files, Pillow's plug-ins raise nearly everything there is
        raise UnreadableImageError(_reason(error)) from error


@contextlib.contextmanager
def _image(file: io.BufferedReader) -> Iterator[ImageFile.ImageFile]:
    """An image whose header was read and found bearable."""
    with Image.open(file, formats=FORMATS) as image:
        pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
        if limit is not None and pixels > limit:
            raise UnreadableImageError(_too_many(pixels))
        yield image


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except ValueError as error:  # a NUL byte, or letters that the file system cannot spell
        raise UnreadableImageError("no file can have this name") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise UnreadableImageError("not a regular file")
    if status.st_size == 0:
        raise UnreadableImageError("zero bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        told = re.search(r"\d+", str(error))
        return _too_many(int(told.group()) if told else None)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.errno:
        known = {
            errno.ENOENT: "no such file",
            errno.ENOTDIR: "no such file",
            errno.EACCES: "no permission to read it",
            errno.EPERM: "no permission to read it",
            errno.EINVAL: "truncated or damaged",  # its header points to before its beginning
        }
        return known.get(error.errno, str(error.strerror).lower())
    return "truncated or damaged"


def _too_many(pixels: int | None) -> str:
    counted = "too many" if pixels is None else f"{pixels:,}"
    return f"{counted} pixels; at most {Image.MAX_IMAGE_PIXELS:,} are decoded"


def _centre_square(size: tuple[int, int]) -> Box:
    edge = min(size)
    left, top = (size[0] - edge) // 2, (size[1] - edge) // 2
    return left, top, left + edge, top + edge


def _to_rgb(image: Image.Image, grey_range: tuple[float, float] | None) -> Image.Image:
    """A part of an image or all of it in RGB; `grey_range` is what is black and white in the whole (`_grey_range`)."""
    if grey_range is not None:
        return Image.fromarray(_to_8_bit(image, *grey_range)).convert("RGB")
    if image.has_transparency_data:
        # On black, Pillow's own choice, black glyphs on a transparent ground would vanish.
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Greys of 16 or 32 bits, (H, W), scaled to 0..255; Pillow's own conversion clips them."""
    scaled = np.nan_to_num((np.asarray(image).astype(np.float32) - low) * np.float32(255 / (high - low)))
    grey: npt.NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return grey


def _grey_range(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    """What is black and what is white in greys of 16 or 32 bits; None for all else.

    Numbers of 32 bits do not say. They are taken as reaching to 1 (floats only), 255 or 65,535, the first that holds
    them all, so that most images of a set are scaled alike; what fits none is stretched from its least to its largest.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    if image.mode.startswith("I;") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 0.0, 65_535.0  # older Pillow opens greys of 16 bits as 32
    low, high = _least_and_largest(image)
    for white in (1.0, 255.0, 65_535.0) if image.mode == "F" else (255.0, 65_535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, max(high, low + 1e-6)


def _least_and_largest(image: Image.Image) -> tuple[float, float]:
    """The least and the largest finite number, 0 and 1 where there is none."""
    found: list[float] = []
    step = max(_STRIP // image.width, 1)
    for y in range(0, image.height, step):
        values = np.asarray(image.crop((0, y, image.width, min(y + step, image.height)))).astype(np.float32)
        finite = values[np.isfinite(values)]
        if finite.size:
            found += [float(finite.min()), float(finite.max())]
    return (min(found), max(found)) if found else (0.0, 1.0)
