"""Neighbour candidates by faiss (Douze et al., The Faiss library): exact flat L2, on a GPU if features are on it."""

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

from noisyknn.errors import MachineError

MOST_ON_GPU = 2048
"""Neighbours that faiss can select on a GPU."""


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
    """Indices (Q, count) of the references (R, D) nearest to each query (Q, D) by L2.

    Raises MachineError for more of them than faiss finds on a GPU.
    """
    import faiss  # heavy, and an extra

    pool, query = (part.contiguous().cpu().numpy() for part in (references, queries))
    if references.is_cuda and hasattr(faiss, "StandardGpuResources"):
        if count > MOST_ON_GPU:
            raise MachineError(f"faiss finds no more than {MOST_ON_GPU:,} neighbours on a GPU; --search torch does")
        _, indices = faiss.knn_gpu(_gpu_resources(), query, pool, count, device=references.get_device())
    else:
        _, indices = faiss.knn(query, pool, count)
    return torch.from_numpy(indices).to(references.device)


@functools.cache
def _gpu_resources() -> Any:
    import faiss

    return faiss.StandardGpuResources()
