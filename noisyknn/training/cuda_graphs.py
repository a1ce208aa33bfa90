"""Forward and backward passes as CUDA graphs: launching a small network's kernels takes longer than running them."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from noisyknn.models.backbone import Backbone
from noisyknn.models.factory import is_own

EAGER_STEPS = 20
"""Steps on batches of one shape before they become a graph: making it takes as long as some of them."""


class Logits(nn.Module):
    """Images (B, 3, S, S) to float32 logits (B, C) of a network, under bf16 autocast if asked for."""

    def __init__(self, model: Backbone, device: torch.device, *, bf16: bool) -> None:
        super().__init__()
        self.model = model
        self.device_type = device.type
        self.bf16 = bf16

    def forward(self, images: Tensor) -> Tensor:
        """One pass."""
        # Without the cache, which a graph would keep weights of an earlier step in; a pass needs each of them once.
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            logits: Tensor = self.model(images)
        return logits.float()


class Graphs:
    """`Logits` in training, of which each shape of batch is captured as soon as it has come often enough.

    `capture` makes a module and an example of its input into what replays its passes, or gives back the module.
    """

    def __init__(self, logits: Logits, capture: Callable[[Logits, Tensor], Callable[[Tensor], Tensor]]) -> None:
        self._logits = logits
        self._capture = capture
        self._steps: dict[torch.Size, int] = {}
        self._ready: dict[torch.Size, Callable[[Tensor], Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """As `Logits`."""
        shape = images.shape
        if shape not in self._ready:
            self._steps[shape] = self._steps.get(shape, 0) + 1
            if self._steps[shape] <= EAGER_STEPS:
                logits: Tensor = self._logits(images)
                return logits
            self._ready[shape] = self._captured(images)
        return self._ready[shape](images)

    def _captured(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """What replays batches of this shape; the passes that make it leave no trace in BatchNorm's averages."""
        before = {name: buffer.clone() for name, buffer in self._logits.named_buffers()}
        # Copies: the graph keeps its example to put batches into, and a captured module is changed in place.
        replay = self._capture(copy.copy(self._logits), images.clone())
        for name, buffer in self._logits.named_buffers():
            buffer.copy_(before[name])
        return replay


def graphed(logits: Logits, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The same as graphs on a GPU, if the network is one of our own, which are small.

    For a single pass between two of the optimiser's steps: a graph writes gradients over those of its last pass.
    """
    if device.type != "cuda" or not is_own(logits.model.spec.name):
        return logits
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):  # torch 2.10 and later
        # gradients come from the stream that a graph was captured on, and wait for it, as they should
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    # One pool for all shapes: a backward pass ends before the next forward pass, which needs nothing that it left.
    pool = torch.cuda.graph_pool_handle()

    def capture(module: Logits, images: Tensor) -> Callable[[Tensor], Tensor]:
        if torch.cuda.mem_get_info(device)[0] < torch.cuda.max_memory_allocated(device):
            return module  # as it is where memory is scarce, since graphs give none back
        with torch.cuda.device(device):
            replay = torch.cuda.make_graphed_callables(module, (images,), allow_unused_input=True, pool=pool)
        return cast(Callable[[Tensor], Tensor], replay)

    return Graphs(logits, capture)
