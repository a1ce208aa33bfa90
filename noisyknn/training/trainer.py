"""Trains one network and tracks the loss of every sample (Algorithm 1, lines 3 to 8).

Symbols: N samples, B samples of a batch, D features, C classes.
"""

import contextlib
import dataclasses
import hashlib
import math
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
from noisyknn.observer import Observer
from noisyknn.training.cuda_graphs import Logits, graphed
from noisyknn.training.learner import Learner, new_optimizer
from noisyknn.training.loss_tracker import LossTracker
from noisyknn.training.memory import Memory
from noisyknn.training.plan import Objective, Plan
from noisyknn.training.schedule import image_size

SECONDS_BETWEEN_CHECKPOINTS = 20.0


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """Loss and speed of one epoch."""

    episode: int
    epoch: int
    loss: float
    """Mean tracked loss."""
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Results of one episode's training, for the label correction."""

    features: Tensor
    """(N, D) float32: pooled output of the chosen stage."""
    log_probabilities: Tensor
    """(N, C) float16: the network's log-probabilities, not calibrated."""
    cumulative_loss: Tensor
    """(N,) float32: each sample's tracked loss minus the epoch's mean, summed over the epochs."""
    model: Backbone
    """The network, in evaluation mode."""


class Checkpoints(Protocol):
    """Keeps the state of an unfinished episode."""

    def load(self, episode: int) -> tuple[int, dict[str, Tensor]] | None:
        """Number of finished epochs and the state, if this episode saved one."""
        ...

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        """Save the state in place of the previous one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the networks of a run: `train` follows a plan, `inspect` runs a network on every sample."""

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
    memory: Memory = dataclasses.field(default_factory=Memory)

    def train(self, plan: Plan) -> Trained:
        """Train a network by the plan and run it on every sample.

        Raises MachineError if a loss, a feature or a probability is not finite.
        """
        model, cumulative_loss = self._fit(plan)
        features, log_probabilities = self.inspect(model)
        # The last step itself may diverge, so far that a search would fail; neither check needs memory.
        if not (features.norm().isfinite() and log_probabilities.amin().isfinite()):
            raise self._diverged(self._name(plan.episode))
        return Trained(
            features=features, log_probabilities=log_probabilities, cumulative_loss=cumulative_loss, model=model
        )

    def _fit(self, plan: Plan) -> tuple[Backbone, Tensor]:
        """Train a network by the plan; return it with the cumulative losses (N,)."""
        config, episode, rows = self.config, plan.episode, plan.rows
        name = self._name(episode)
        model = (plan.start or self.new_model()).to(self.device).to(memory_format=torch.channels_last)
        tracker = LossTracker(len(self.given_labels), self.device)
        optimizer = new_optimizer(model, config, bf16=self.bf16)
        logits = Logits(model, self.device, bf16=self.bf16)
        learner = Learner(
            model=model,
            logits=logits,
            # a copy to the GPU by another thread would disturb the capture of a graph
            whole_logits=graphed(logits, self.device) if self.pixels.at_hand else logits,
            optimizer=optimizer,
            tracker=tracker,
            objective=plan.objective.state,
        )
        self.observer.start(name, plan.epochs * len(rows), "images")
        first = self._resume(learner, episode, plan.epochs)
        self.observer.advance(first * len(rows))
        saved = time.monotonic()
        for epoch in range(first, plan.epochs):
            started = time.monotonic()
            plan.objective.begin_epoch(epoch)
            if epoch == plan.tracked_from:
                tracker.cumulative.zero_()
            with _seeded(_seed(config.seed, episode, epoch), self.device) as generator:
                self._train_epoch(learner, plan, epoch, generator)
            loss = float(tracker.end_epoch(rows))
            if not math.isfinite(loss):
                raise self._diverged(f"epoch {epoch + 1} of {name}")
            seconds = time.monotonic() - started
            plan.after_epoch(epoch, model, tracker.cumulative)
            speed = len(rows) / seconds
            self.on_epoch(
                EpochReport(episode=episode, epoch=epoch, loss=loss, seconds=seconds, images_per_second=speed)
            )
            if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS and epoch + 1 < plan.epochs:
                self.checkpoints.save(episode, epoch + 1, learner.state())
                saved = time.monotonic()
        return model, tracker.cumulative

    def inspect(self, model: Backbone) -> tuple[Tensor, Tensor]:
        """Features (N, D) float32 and log-probabilities (N, C) float16 of all samples.

        With `flip`, both are averaged over each image and its mirror image.
        """
        model.eval()
        samples = torch.arange(len(self.given_labels), device=self.device)
        batches = torch.split(samples, self.config.batch_size)  # what fits into memory in training fits here
        features, logs = samples.new_empty(0, 0), samples.new_empty(0, 0)
        for batch, images in zip(batches, self.pixels.ahead(batches, self.pixels.plain), strict=True):
            work = partial(self._inspect_parts, model, images)
            own_features, own_logs = self.memory.fit(work, len(batch), self.observer)
            if not len(features):  # joining a list at the end would hold everything twice
                features = own_features.new_empty(len(samples), own_features.shape[1])
                logs = own_logs.new_empty(len(samples), own_logs.shape[1])
            features[batch], logs[batch] = own_features, own_logs
        return features, logs

    def _inspect_parts(self, model: Backbone, images: Tensor, parts: int) -> tuple[Tensor, Tensor]:
        pieces = torch.tensor_split(images, parts)
        features, logs = zip(*(self._inspect_batch(model, piece) for piece in pieces), strict=True)
        return torch.cat(features), torch.cat(logs)

    @torch.no_grad()
    def _inspect_batch(self, model: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
        views = (images, images.flip(3)) if self.config.flip else (images,)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits, features = zip(*(model.logits_and_features(view) for view in views), strict=True)
        logs = torch.stack([part.float().log_softmax(1) for part in logits]).mean(0)
        return torch.stack(features).mean(0), logs.log_softmax(1).half()

    def _train_epoch(self, learner: Learner, plan: Plan, epoch: int, generator: torch.Generator) -> None:
        config = self.config
        order = plan.rows[torch.randperm(len(plan.rows), generator=generator, device=self.device)]
        batches = torch.tensor_split(order, _batch_count(len(order), config.batch_size))
        learner.model.train()
        size = image_size(config, epoch, plan.epochs)
        augmented = self.pixels.ahead(batches, lambda batch: self.pixels.augmented(batch, size, config, generator))
        for step, (batch, images) in enumerate(zip(batches, augmented, strict=True)):
            for group in learner.optimizer.param_groups:
                group["lr"] = plan.rate(epoch, step / len(batches))
            work = partial(self._gradients, learner, plan.objective, batch, images)
            losses = self.memory.fit(work, len(batch), self.observer)
            learner.optimizer.step()
            learner.tracker.record(batch, losses)
            self.observer.advance(len(batch))

    def _gradients(self, learner: Learner, objective: Objective, batch: Tensor, images: Tensor, parts: int) -> Tensor:
        """Leave the gradients of the batch's mean loss in the model; return the losses (B,) to track."""
        learner.optimizer.zero_grad()
        logits = learner.whole_logits if parts == 1 else learner.logits
        tracked = []
        for samples, view in zip(torch.tensor_split(batch, parts), torch.tensor_split(images, parts), strict=True):
            total, losses = objective(logits(view), samples)
            (total.mean() * (len(samples) / len(batch))).backward()  # type: ignore[no-untyped-call]
            tracked.append(losses.detach())
        return torch.cat(tracked)

    def _resume(self, learner: Learner, episode: int, epochs: int) -> int:
        """Restore the state that this episode saved, if any; return the number of finished epochs."""
        saved = self.checkpoints.load(episode)
        if saved is None:
            return 0
        epochs_done, state = saved
        learner.restore(state)
        self.observer.note(f"resuming {self._name(episode)} after epoch {epochs_done} of {epochs}")
        return epochs_done

    def _name(self, episode: int) -> str:
        episodes = self.config.episodes
        return f"episode {episode + 1} of {episodes}" if episode < episodes else "final training"

    def _diverged(self, where: str) -> MachineError:
        return MachineError(f"training diverged in {where}; try a lower `lr` than {self.config.lr:g}")


def _batch_count(samples: int, batch_size: int) -> int:
    """Number of even batches in an epoch; none has a single sample, which BatchNorm cannot train on."""
    return max(1, min(math.ceil(samples / batch_size), samples // 2))


def _seed(*numbers: int) -> int:
    """One seed from several numbers; similar numbers give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """A seeded generator on the device; also seeds torch's global one, for dropout, and restores it at the end."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield torch.Generator(device).manual_seed(seed)
