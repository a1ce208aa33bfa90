"""Neighbour candidates by faiss (Douze et al., The Faiss library): exact flat L2, on a GPU if the features are."""

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

from noisyknn.errors import MachineError

MOST_ON_GPU = 2048
"""Most neighbours that faiss can select on a GPU."""


@functools.cache
def is_installed() -> bool:
    """Whether faiss-cpu or faiss-gpu can be imported."""
    return importlib.util.find_spec("faiss") is not None


def check_loads() -> None:
    """Raise MachineError if faiss is installed but cannot be loaded: its GPU build needs CUDA's libraries."""
    try:
        import faiss  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise MachineError(f"faiss is installed but cannot be loaded ({error}); give `search` torch") from error


class FaissSearch:
    """Finds the `count` references (R, D) nearest to queries by L2.

    Raises MachineError if `count` is more than faiss finds on a GPU.
    """

    def __init__(self, references: Tensor, count: int) -> None:
        import faiss  # heavy, and an extra

        self._faiss, self._count, self._device = faiss, count, references.device
        self._uses_gpu = references.is_cuda and hasattr(faiss, "StandardGpuResources")
        if self._uses_gpu and count > MOST_ON_GPU:
            raise MachineError(f"faiss finds at most {MOST_ON_GPU:,} neighbours on a GPU; give `search` torch")
        self._pool = references.contiguous().cpu().numpy()

    def __call__(self, queries: Tensor) -> Tensor:
        """Indices (Q, count) of the references nearest to each query (Q, D)."""
        query = queries.contiguous().cpu().numpy()
        if self._uses_gpu:
            gpu = self._device.index
            _, indices = self._faiss.knn_gpu(_gpu_resources(), query, self._pool, self._count, device=gpu)
        else:
            _, indices = self._faiss.knn(query, self._pool, self._count)
        return torch.from_numpy(indices).to(self._device)


@functools.cache
def _gpu_resources() -> Any:
    import faiss

    return faiss.StandardGpuResources()
