"""Forward and backward passes as CUDA graphs: launching a small network's kernels takes longer than running them."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from noisyknn.models.backbone import Backbone
from noisyknn.models.factory import is_own

EAGER_STEPS = 20
"""Steps on batches of one shape before a graph is captured for it: a capture takes as long as several steps."""


class Logits(nn.Module):
    """A network from images (B, 3, S, S) to float32 logits (B, C), optionally under bf16 autocast."""

    def __init__(self, model: Backbone, device: torch.device, *, bf16: bool) -> None:
        super().__init__()
        self.model = model
        self.device_type = device.type
        self.bf16 = bf16

    def forward(self, images: Tensor) -> Tensor:
        """One pass."""
        # No autocast cache: a graph would keep an earlier step's weights in it, and a pass needs each weight only once.
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            logits: Tensor = self.model(images)
        return logits.float()


class Graphs:
    """`Logits` in training; captures a graph for each batch shape that recurs often enough.

    `capture` takes a module and an example input; it returns a function that replays the passes, or the module itself.
    """

    def __init__(self, logits: Logits, capture: Callable[[Logits, Tensor], Callable[[Tensor], Tensor]]) -> None:
        self._logits = logits
        self._capture = capture
        self._steps: dict[torch.Size, int] = {}
        self._ready: dict[torch.Size, Callable[[Tensor], Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """See `Logits`."""
        shape = images.shape
        if shape not in self._ready:
            self._steps[shape] = self._steps.get(shape, 0) + 1
            if self._steps[shape] <= EAGER_STEPS:
                logits: Tensor = self._logits(images)
                return logits
            self._ready[shape] = self._captured(images)
        return self._ready[shape](images)

    def _captured(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """A function that replays batches of this shape; the capture leaves BatchNorm's averages unchanged."""
        before = {name: buffer.clone() for name, buffer in self._logits.named_buffers()}
        # Copies: the graph keeps its example as the input buffer, and a capture changes the module in place.
        replay = self._capture(copy.copy(self._logits), images.clone())
        for name, buffer in self._logits.named_buffers():
            buffer.copy_(before[name])
        return replay


def graphed(logits: Logits, device: torch.device) -> Callable[[Tensor], Tensor]:
    """`logits`, replayed as CUDA graphs if on a GPU and if the network is one of our own, which are small.

    Allows one pass per optimiser step: a graph overwrites the gradients of its previous pass.
    """
    if device.type != "cuda" or not is_own(logits.model.spec.name):
        return logits
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):  # torch 2.10 and later
        # gradients come from the stream that captured the graph and wait for it, which is correct
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    # One pool for all shapes: a backward pass ends before the next forward pass, which needs none of its memory.
    pool = torch.cuda.graph_pool_handle()

    def capture(module: Logits, images: Tensor) -> Callable[[Tensor], Tensor]:
        if torch.cuda.mem_get_info(device)[0] < torch.cuda.max_memory_allocated(device):
            return module  # memory is scarce, and graphs never release any
        with torch.cuda.device(device):
            replay = torch.cuda.make_graphed_callables(module, (images,), allow_unused_input=True, pool=pool)
        return cast(Callable[[Tensor], Tensor], replay)

    return Graphs(logits, capture)
