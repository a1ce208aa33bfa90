"""What can be said of graphs without a GPU: when they are made, of what, and what making them leaves behind."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisyknn.models.factory import build_backbone
from noisyknn.training.cuda_graphs import EAGER_STEPS, Graphs, Logits, graphed

CPU = torch.device("cpu")


@pytest.fixture
def logits() -> Logits:
    return Logits(build_backbone("cnn5", classes=3, image_size=8, width=0.1, seed=0), CPU, bf16=False)


class Recorder:
    """Captures as CUDA does, as far as can be seen: by passes over the example, then in place of the module's own."""

    def __init__(self) -> None:
        self.examples: list[Tensor] = []
        self.replays = 0

    def __call__(self, module: Logits, images: Tensor) -> Callable[[Tensor], Tensor]:
        self.examples.append(images)
        for _ in range(3):
            torch.autograd.grad(module(images).sum(), list(module.parameters()))
        own_forward = module.forward

        def replay(batch: Tensor) -> Tensor:
            self.replays += 1
            images.copy_(batch)
            return own_forward(images)

        module.forward = replay  # type: ignore[method-assign, assignment]
        return module


def images(count: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_each_shape_is_captured_once_after_enough_steps(logits: Logits) -> None:
    capture = Recorder()
    graphs = Graphs(logits, capture)
    for step in range(EAGER_STEPS + 3):
        for batch in (images(4, seed=step), images(5, seed=step), images(4, 16, seed=step)):
            graphs(batch)
    assert [tuple(example.shape) for example in capture.examples] == [(4, 3, 8, 8), (5, 3, 8, 8), (4, 3, 16, 16)]
    assert capture.replays == 3 * 3


def test_a_capture_leaves_everything_as_steps_without_one(logits: Logits) -> None:
    other = Logits(build_backbone("cnn5", classes=3, image_size=8, width=0.1, seed=0), CPU, bf16=False)
    graphs, batches = Graphs(logits, Recorder()), [images(4, seed=step) for step in range(EAGER_STEPS + 3)]
    for batch in batches:
        kept = batch.clone()
        assert torch.equal(graphs(batch), other(batch))
        assert torch.equal(batch, kept)
    for own, its in zip(logits.buffers(), other.buffers(), strict=True):
        assert torch.equal(own, its)


def test_gradients_reach_the_network_through_a_graph(logits: Logits) -> None:
    graphs, gradients = Graphs(logits, Recorder()), []
    for _ in range(EAGER_STEPS + 1):
        logits.zero_grad()
        graphs(images(4)).square().mean().backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad.clone() for parameter in logits.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(list(logits.parameters()))
    assert all(torch.equal(*pair) for pair in zip(gradients[0], gradients[-1], strict=True))


def test_nothing_is_captured_on_a_cpu(logits: Logits) -> None:
    assert graphed(logits, CPU) is logits
