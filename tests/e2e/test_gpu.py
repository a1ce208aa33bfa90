"""What only a GPU can show: that its kernels, graphs and memory give what a CPU gives."""

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import noisyknn
from noisyknn.config import Config
from noisyknn.data.augment import Pixels
from noisyknn.demo import write_digits
from noisyknn.knn.search import find_search, nearest
from noisyknn.knn.torch_search import TorchSearch
from noisyknn.models.factory import build_backbone
from noisyknn.paper.study import NoCheckpoints
from noisyknn.training import cuda_graphs
from noisyknn.training.plan import eq7_plan
from noisyknn.training.trainer import Trainer
from tests.small_data import Listening

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
GPU = torch.device("cuda")
SETTINGS = Config(
    backbone="cnn5", image_size=12, epochs=4, batch_size=64, optimizer="sgd", lr=0.05, schedule="one-cycle", jitter=0.2
)


def trainer(settings: Config = SETTINGS, samples: int = 640, *, on_gpu: bool = True) -> Trainer:
    """A trainer of drawn images, which lie on the GPU or in host memory."""
    drawn = torch.Generator().manual_seed(0)
    size = settings.image_size
    labels = torch.arange(samples) % 3
    images = torch.randint(256, (samples, size, size, 3), dtype=torch.uint8, generator=drawn)
    images[torch.arange(samples), :, :, labels] //= 2
    new_model = partial(
        build_backbone, settings.backbone, classes=3, image_size=size, width=settings.width, seed=settings.seed
    )
    return Trainer(
        pixels=Pixels(
            images=images.to(GPU) if on_gpu else images,
            rows=torch.arange(samples, device=GPU),
            mean=torch.full((3,), 0.5, device=GPU),
            std=torch.full((3,), 0.25, device=GPU),
            size=size,
        ),
        given_labels=labels.to(GPU),
        new_model=new_model,
        config=settings,
        device=GPU,
        bf16=False,
        checkpoints=NoCheckpoints(),
        on_epoch=lambda _: None,
        observer=Listening(),
    )


def losses(of: Trainer) -> Tensor:
    """Cumulative losses (N,) after training."""
    return of.train(eq7_plan(of.config, of.given_labels, of.given_labels, 0.5, 0)).cumulative_loss


@pytest.mark.parametrize(("dimensions", "offset"), [(16, 0.0), (16, 300.0), (700, 0.0)])
def test_neighbours_are_those_that_a_cpu_finds(dimensions: int, offset: float) -> None:
    features = torch.randn(3000, dimensions, generator=torch.Generator().manual_seed(0)) + offset
    references = torch.arange(0, 3000, 2)
    here = nearest(features, references, 20, TorchSearch)
    there = nearest(features.to(GPU), references.to(GPU), 20, find_search("auto", GPU))
    rows, distances = (torch.cat(parts) for parts in zip(*((n.rows, n.distances) for n in here), strict=True))
    found, far = (torch.cat(parts).cpu() for parts in zip(*((n.rows, n.distances) for n in there), strict=True))
    assert (rows == found).float().mean() > 0.999
    torch.testing.assert_close(distances, far)


def test_graphs_train_as_single_steps_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "EAGER_STEPS", sys.maxsize)
    single = losses(trainer())
    monkeypatch.setattr(cuda_graphs, "EAGER_STEPS", 2)
    torch.testing.assert_close(losses(trainer()), single, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_every_optimiser_learns(optimizer: Literal["adam", "muon"]) -> None:
    of = trainer(dataclasses.replace(SETTINGS, optimizer=optimizer, epochs=8))
    trained = of.train(eq7_plan(of.config, of.given_labels, of.given_labels, 0.5, 0))
    assert (trained.log_probabilities.argmax(1) == of.given_labels).float().mean() > 0.95


def test_images_in_host_memory_train_as_those_on_the_gpu() -> None:
    torch.testing.assert_close(losses(trainer(on_gpu=False)), losses(trainer()), rtol=1e-3, atol=1e-3)


def test_batches_that_do_not_fit_are_cut() -> None:
    settings = dataclasses.replace(SETTINGS, backbone="preact_resnet18", image_size=64, batch_size=640, epochs=1)
    of = trainer(settings)
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 3 * 2**30) / total)
    try:
        assert losses(of).isfinite().all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert of.memory.parts > 1
    assert isinstance(of.observer, Listening)
    assert any("out of memory" in note for note in of.observer.notes)


def test_digits_are_cleaned(tmp_path: Path) -> None:
    table = pd.read_csv(write_digits(tmp_path))
    true = table["clean_label"]
    table["label"] = true.where(np.arange(len(table)) % 4 > 0, (true * 7 + 1) % 10)
    result = noisyknn.clean(tmp_path / "images", table, label_column="label", device="cuda")
    assert (table["label"] == true).mean() < 0.8
    assert (result.table["corrected_label"].astype(str) == true.astype(str)).mean() > 0.95
