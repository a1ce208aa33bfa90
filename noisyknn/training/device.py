"""Chooses the device, the precision and the number of threads."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from noisyknn.config import Config, Precision
from noisyknn.errors import MachineError, UsageError

TINY_STEP = 1 << 16
"""Pixels of a batch below which one thread trains about as fast as several."""


def find_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises UsageError for any other name, MachineError for a GPU that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = re.fullmatch(r"cpu|cuda(?::(0|[1-9][0-9]*))?", name)
    if parts is None:
        raise UsageError(f"`device` {name!r} is not one of auto, cpu, cuda, cuda:N")
    if name != "cpu":
        if not torch.cuda.is_available():
            raise MachineError(
                f"`device` {name}: no usable CUDA GPU on this machine; 'noisyknn doctor' shows what it has"
            )
        if int(parts[1] or 0) >= torch.cuda.device_count():
            raise MachineError(f"`device` {name}: this machine's last GPU is cuda:{torch.cuda.device_count() - 1}")
    return torch.device(name)


def wants_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to train under bf16 autocast; ``auto`` does so where the device computes it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":  # torch.cuda.is_bf16_supported counts emulation and checks only the current GPU
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(bf16_features())


def bf16_features() -> list[str]:
    """Which of the bf16 instructions ``amx_bf16`` and ``avx512_bf16`` the processor has; none outside Linux."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
    return [name for name in ("amx_bf16", "avx512_bf16") if name in flags]


def thread_count(config: Config) -> int:
    """Number of threads to train with: one for tiny steps, where more threads gain little and wait for each other.

    If another program needs a core, that wait takes several times as long as the work.
    """
    return 1 if config.batch_size * config.image_size**2 < TINY_STEP else torch.get_num_threads()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads, then restore the previous number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
