"""All images of a run, decoded once into one array: in memory if they fit, else in a memory-mapped file."""

import contextlib
import functools
import hashlib
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from noisyknn.data.images import Fit, UnreadableImageError, decode, evenly_spread, nothing_readable, quiet_pillow
from noisyknn.errors import MachineError, shortened

FILE_NAME = "images.u8"
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_ROWS_PER_TASK = 32  # few enough for a smooth progress bar, many enough to make tasks cheap
_GPU_SHARE = 0.6  # of a GPU's free memory; the rest is for the network
_STATISTICS_SAMPLE = 4096
_LEAST_STD = 1e-3  # avoids a division by zero for blank images


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageStore:
    """N decoded images of S x S pixels, in the order of the table's rows."""

    images: npt.NDArray[np.uint8]
    """(N, S, S, 3) RGB; zeros for an unreadable image."""
    readable: npt.NDArray[np.bool_]
    """(N,) whether each image is readable."""
    reasons: dict[int, str]
    """Reason by unreadable row (counted from 0), in ascending order."""
    digests: npt.NDArray[np.int64]
    """(N,) a hash of the pixels, equal for equal images; 0 for an unreadable one."""

    def tensor(self, device: torch.device) -> torch.Tensor:
        """The images (N, S, S, 3) uint8, on `device` if it is a GPU with enough memory, else in host memory.

        In host memory they are a view of the store; callers then move each batch.
        """
        host = torch.from_numpy(self.images)
        if device.type == "cuda":
            # torch keeps the memory of an earlier run in this process, but it is free
            kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            if self.images.nbytes <= _GPU_SHARE * (torch.cuda.mem_get_info(device)[0] + kept):
                return host.to(device)
        return host

    @property
    def on_disk(self) -> bool:
        """Whether the images lie in a memory-mapped file."""
        return isinstance(self.images, np.memmap)

    def read_ahead(self, rows: npt.NDArray[np.int64]) -> None:
        """Ask the system to read the images of `rows` (B,), without waiting; the store must be `on_disk`."""
        mapping: Any = self.images.base
        size = self.images[0].nbytes
        for start in (rows * size).tolist():
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            mapping.madvise(mmap.MADV_WILLNEED, page, start + size - page)

    def mean_std(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Mean (3,) and standard deviation (3,) of each channel, for pixel values from 0 to 1.

        They cover the images of `rows`, which must be readable, or an even sample of 4096 of them.
        """
        counts = np.zeros((3, 256), dtype=np.int64)
        for row in rows[evenly_spread(len(rows), _STATISTICS_SAMPLE)]:
            for channel in range(3):
                counts[channel] += np.bincount(self.images[row, ..., channel].ravel(), minlength=256)
        levels, weights = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
        mean = weights @ levels
        std = np.sqrt((weights * np.square(levels - mean[:, None])).sum(axis=1)).clip(_LEAST_STD)
        return mean.astype(np.float32), std.astype(np.float32)


def decode_all(
    paths: Sequence[Path],
    size: int,
    fit: Fit,
    folder: Path,
    advance: Callable[[int], None] | None = None,
    workers: int | None = None,
    memory_limit: int | None = None,
) -> ImageStore:
    """Decode N images, each once, into a store of `size` x `size` pixels.

    This thread calls `advance` with the number of images done since its last call. `workers` threads decode, by default
    one per usable core. Above `memory_limit` bytes, by default half of the available memory, the images lie in the file
    ``images.u8`` of `folder`.

    Raises InputError if no image can be read, MachineError if the file cannot be made.
    """
    images = _allocate((len(paths), size, size, 3), folder, memory_limit)
    digests = np.zeros(len(paths), dtype=np.int64)
    reasons: dict[int, str] = {}
    work = functools.partial(_decode_rows, images, digests, paths, fit)
    chunks = [range(len(paths))[start : start + _ROWS_PER_TASK] for start in range(0, len(paths), _ROWS_PER_TASK)]
    with quiet_pillow(), ThreadPoolExecutor(workers or _usable_cores()) as pool:
        try:
            for rows, failed in zip(chunks, pool.map(work, chunks), strict=True):
                reasons |= failed
                if advance is not None:
                    advance(len(rows))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C waits only for images in progress
    if len(reasons) == len(paths):
        raise nothing_readable(len(paths), [f"{shortened(str(paths[row]))}: {why}" for row, why in reasons.items()])
    readable = np.ones(len(paths), dtype=np.bool_)
    readable[list(reasons)] = False
    return ImageStore(images=images, readable=readable, reasons=reasons, digests=digests)


def _decode_rows(
    images: npt.NDArray[np.uint8], digests: npt.NDArray[np.int64], paths: Sequence[Path], fit: Fit, rows: range
) -> dict[int, str]:
    """Fill `rows` of `images` (N, S, S, 3) and `digests` (N,); returns a reason by unreadable row."""
    failed = {}
    for row in rows:
        try:
            images[row] = decode(paths[row], images.shape[1], fit)
            # the fastest digest of hashlib on processors with instructions for it, as most have
            digest = hashlib.sha1(images[row].data, usedforsecurity=False).digest()
            digests[row] = int.from_bytes(digest[:8], "big", signed=True)
        except UnreadableImageError as error:
            images[row] = 0
            failed[row] = str(error)
    return failed


def _allocate(shape: tuple[int, int, int, int], folder: Path, memory_limit: int | None) -> npt.NDArray[np.uint8]:
    size = int(np.prod(shape, dtype=np.int64))
    if size <= (available_memory() // 2 if memory_limit is None else memory_limit):
        return np.empty(shape, dtype=np.uint8)
    path = folder / FILE_NAME
    try:
        with path.open("wb") as file:
            _reserve(file.fileno(), size)
        return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()  # frees a full disk
        raise MachineError(
            f"{path} cannot be made: {str(error.strerror).lower()}; {shape[0]:,} images of {shape[1]} x {shape[2]} "
            f"pixels need {size / 1e9:.1f} GB there; free some space or choose a smaller `image_size`"
        ) from error


def _reserve(descriptor: int, size: int) -> None:
    """Allocate all blocks of a file: if the disk filled up under a mapped file, the process would die."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS
        os.ftruncate(descriptor, size)


def available_memory() -> int:
    """Bytes available without swapping, on the machine or, if fewer, in the container."""
    try:
        fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        machine = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(machine, _container_memory())


def _container_memory() -> int:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        fields = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return sys.maxsize
    return sys.maxsize if limit == "max" else max(int(limit) - int(fields["anon"]), 0)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
