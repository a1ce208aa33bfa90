"""What this machine offers, and what `clean` would choose on it."""

import importlib.metadata
import os
import platform
from typing import Any

import torch

from noisyknn.data.store import available_memory
from noisyknn.knn.search import fastest_search
from noisyknn.methods.spec import DEFAULT
from noisyknn.presets import auto_settings
from noisyknn.run_dir import cache, unfinished
from noisyknn.training.device import bf16_features, find_device, wants_bf16

GIB = 1 << 30


def examine() -> dict[str, Any]:
    """Processor, memory, GPUs, versions, unfinished runs, and the choices of ``--preset auto`` for 20,000 images."""
    device = find_device("auto")
    settings, _ = auto_settings(method=DEFAULT, rows=20_000, classes=10, size=32, grey=False, gpu=device.type == "cuda")
    return {
        "cpu": {
            "machine": platform.machine(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
            "bf16_instructions": bf16_features(),
        },
        "memory_available_gib": round(available_memory() / GIB, 1),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "versions": {name: _version(name) for name in _PACKAGES}
        | {
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },  # distinguishes CPU from CUDA builds
        "unfinished_runs": _unfinished_runs(),
        "choices": {
            "device": str(device),
            "precision": "bf16" if wants_bf16("auto", device) else "fp32",
            "search": fastest_search(device),
            "backbone": settings["backbone"],
            "episodes": settings["episodes"],
            "epochs": settings["epochs"],
        },
    }


_PACKAGES = ("noisyknn", "torch", "torchvision", "faiss-cpu", "faiss-gpu", "pandas", "pyarrow", "pillow")


def _unfinished_runs() -> dict[str, Any]:
    """Folder, number and size of unfinished runs, or why the folder cannot be read."""
    try:
        count, size = unfinished()
    except OSError as error:
        return {"folder": str(cache()), "error": error.strerror}
    return {"folder": str(cache()), "count": count, "bytes": size}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu(index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    return {
        "name": torch.cuda.get_device_name(index),
        "memory_gib": round(total / GIB, 1),
        "free_gib": round(free / GIB, 1),
        "bf16": wants_bf16("auto", torch.device("cuda", index)),
    }
