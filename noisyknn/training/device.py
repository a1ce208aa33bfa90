"""Which device computes, and at which precision."""

from pathlib import Path

import torch

from noisyknn.config import Precision
from noisyknn.errors import MachineError, UsageError


def find_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; raises where there is none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdecimal())):
        raise UsageError(f"--device {name!r} is not one of auto, cpu, cuda, cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError(f"--device {name}: no usable CUDA GPU on this machine; 'noisyknn doctor' says what there is")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise MachineError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs, counted from 0")
    return torch.device(name)


def wants_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to train under bf16 autocast; ``auto`` does so where the device computes it natively."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else bool(bf16_features())


def bf16_features() -> list[str]:
    """The processor's instructions for bf16: ``amx_bf16``, ``avx512_bf16``, both or (also off Linux) none."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
    return [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
