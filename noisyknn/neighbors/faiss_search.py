"""Neighbour candidates by faiss (Douze et al., The Faiss library): exact flat L2, on the GPU where faiss has one."""

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

from noisyknn.errors import MachineError


@functools.cache
def is_installed() -> bool:
    """Whether faiss-cpu or faiss-gpu can be imported."""
    return importlib.util.find_spec("faiss") is not None


def check_loads() -> None:
    """Raise MachineError where faiss is installed but cannot be loaded: its GPU build needs CUDA's libraries."""
    try:
        import faiss  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise MachineError(f"faiss is installed but cannot be loaded ({error}); --search torch does without") from error


def search(references: Tensor, queries: Tensor, count: int) -> Tensor:
    """Indices (Q, count) of the references (R, D) nearest to each query (Q, D) by L2."""
    import faiss  # heavy, and an extra

    pool, query = (part.contiguous().cpu().numpy() for part in (references, queries))
    resources = _gpu_resources()
    if resources is None:
        _, indices = faiss.knn(query, pool, count)
    else:
        _, indices = faiss.knn_gpu(resources, query, pool, count)
    return torch.from_numpy(indices).to(references.device)


@functools.cache
def _gpu_resources() -> Any:
    import faiss

    has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    return faiss.StandardGpuResources() if has_gpu else None
