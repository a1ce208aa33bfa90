"""Training one episode: a fresh network, Eq. 7, and per-sample losses on the way (Algorithm 1, lines 3 to 8).

Symbols: N samples, B samples of a batch, D features.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from noisyknn.config import Config
from noisyknn.data.augment import Pixels
from noisyknn.errors import MachineError
from noisyknn.models.backbone import Backbone
from noisyknn.models.losses import LossFn, cross_entropy, mixed_loss, symmetric_cross_entropy
from noisyknn.observer import Observer
from noisyknn.training.loss_tracker import LossTracker
from noisyknn.training.schedule import learning_rate

FEATURE_BATCH = 1000
SECONDS_BETWEEN_CHECKPOINTS = 20.0


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one epoch of training was like."""

    episode: int
    epoch: int
    loss: float
    """Mean training loss on the current labels."""
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the training of one episode leaves for the correction."""

    features: Tensor
    """(N, D) float32: pooled output of the chosen stage."""
    cumulative_loss: Tensor
    """(N,) float32: each sample's loss on its current label minus the epoch's mean, summed over the epochs."""


class Checkpoints(Protocol):
    """Keeps the state of an unfinished episode."""

    def load(self, episode: int) -> tuple[int, dict[str, Tensor]] | None:
        """Number of epochs done and the state, if any was saved within this episode."""
        ...

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        """Replace what was saved before."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything that the episodes of a run share; calling it trains one of them."""

    pixels: Pixels
    given_labels: Tensor
    """(N,) class indices, -1 for none, on the device."""
    new_model: Callable[[], Backbone]
    """Makes the network with its initial weights θ0."""
    config: Config
    device: torch.device
    bf16: bool
    checkpoints: Checkpoints
    on_epoch: Callable[[EpochReport], None]
    observer: Observer

    def __call__(self, labels: Tensor, gamma: float, episode: int) -> Trained:
        """Lines 3 to 8 of Algorithm 1, and the features that line 9 needs."""
        model, cumulative_loss = self.fit(labels, gamma, episode)
        return Trained(features=self.features(model), cumulative_loss=cumulative_loss)

    def fit(self, labels: Tensor, gamma: float, episode: int) -> tuple[Backbone, Tensor]:
        """Train a new network on current labels (N,), -1 for none; returns it with the cumulative losses (N,).

        Raises MachineError when the loss is no longer a number.
        """
        config = self.config
        model = self.new_model().to(self.device).to(memory_format=torch.channels_last)
        optimizer = _optimizer(model, config)
        tracker = LossTracker(len(labels), self.device)
        rows = torch.nonzero(labels >= 0)[:, 0]
        name = f"episode {episode + 1} of {config.episodes}" if episode < config.episodes else "final training"
        self.observer.start(name, config.epochs * len(rows), "images")
        first = self._resume(episode, model, optimizer, tracker)
        self.observer.advance(first * len(rows))
        saved = time.monotonic()
        for epoch in range(first, config.epochs):
            started = time.monotonic()
            self._train_epoch(model, optimizer, tracker, rows, labels, gamma, episode, epoch)
            loss = float(tracker.end_epoch(rows))
            if not torch.isfinite(torch.tensor(loss)):
                where = f"episode {episode + 1}, epoch {epoch + 1}"
                raise MachineError(f"training diverged in {where}; try a lower --lr than {config.lr:g}")
            seconds = time.monotonic() - started
            self.on_epoch(
                EpochReport(
                    episode=episode, epoch=epoch, loss=loss, seconds=seconds, images_per_second=len(rows) / seconds
                )
            )
            if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS and epoch + 1 < config.epochs:
                self.checkpoints.save(episode, epoch + 1, _state(model, optimizer, tracker))
                saved = time.monotonic()
        return model, tracker.cumulative

    def _train_epoch(
        self,
        model: Backbone,
        optimizer: torch.optim.Optimizer,
        tracker: LossTracker,
        rows: Tensor,
        labels: Tensor,
        gamma: float,
        episode: int,
        epoch: int,
    ) -> None:
        config = self.config
        generator = torch.Generator(self.device).manual_seed(_seed(config.seed, episode, epoch))
        order = rows[torch.randperm(len(rows), generator=generator, device=self.device)]
        batches = torch.tensor_split(order, -(-len(order) // config.batch_size))  # even sizes, for BatchNorm
        given = torch.where(self.given_labels >= 0, self.given_labels, labels)  # without a given label Eq. 7 is J(ŷ)
        loss = _loss(config)
        model.train()
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch, step / len(batches))
            images = self.pixels.augmented(batch, config, generator)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = model(images)
            total, on_current = mixed_loss(logits.float(), labels[batch], given[batch], gamma, loss)
            optimizer.zero_grad()
            total.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            tracker.record(batch, on_current)
            self.observer.advance(len(batch))

    def _resume(self, episode: int, model: Backbone, optimizer: torch.optim.Optimizer, tracker: LossTracker) -> int:
        """Take up the state saved within this episode, if any; returns the number of epochs that are done."""
        saved = self.checkpoints.load(episode)
        if saved is None:
            return 0
        epochs_done, state = saved
        _restore(state, model, optimizer, tracker)
        return epochs_done

    def features(self, model: Backbone) -> Tensor:
        """Features (N, D) float32 of all stored images, averaged over the mirror images where flips are trained on."""
        model.eval()
        return torch.cat(list(self._feature_batches(model)))

    @torch.no_grad()
    def _feature_batches(self, model: Backbone) -> Iterator[Tensor]:
        for rows in torch.split(torch.arange(len(self.given_labels), device=self.device), FEATURE_BATCH):
            images = self.pixels.plain(rows)
            views = (images, images.flip(3)) if self.config.flip else (images,)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                yield torch.stack([model.logits_and_features(view)[1] for view in views]).mean(0)


def _optimizer(model: Backbone, config: Config) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        model.parameters(), config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay, fused=True
    )


def _loss(config: Config) -> LossFn:
    if config.loss == "ce":
        return partial(cross_entropy, label_smoothing=config.label_smoothing)
    return partial(
        symmetric_cross_entropy,
        alpha=config.alpha,
        beta=config.beta,
        log_zero=config.log_zero,
        label_smoothing=config.label_smoothing,
    )


def _seed(*numbers: int) -> int:
    """One seed from several numbers; near ones give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")


def _state(model: Backbone, optimizer: torch.optim.Optimizer, tracker: LossTracker) -> dict[str, Tensor]:
    """All that the rest of the episode depends on, as named tensors: random numbers are seeded anew each epoch."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items() if tensor is not None}
    return state | {"cumulative_loss": tracker.cumulative}


def _restore(
    state: Mapping[str, Tensor], model: Backbone, optimizer: torch.optim.Optimizer, tracker: LossTracker
) -> None:
    model.load_state_dict({name[6:]: tensor for name, tensor in state.items() if name.startswith("model.")})
    parameters = list(model.parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:  # fused optimisers need the moments in their parameter's memory format
                tensor = torch.empty_like(parameter).copy_(tensor)
            moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    tracker.cumulative.copy_(state["cumulative_loss"])
