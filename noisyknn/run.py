"""A run: decode the images, train and correct in episodes, decide, and make the tables of the result."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisyknn.calibration.calibrate import calibrate
from noisyknn.calibration.decide import DOUBTFUL, decide
from noisyknn.calibration.noise_model import expected_counts, of_copies
from noisyknn.calibration.outliers import foreign
from noisyknn.config import Config
from noisyknn.data.augment import Pixels
from noisyknn.data.images import some_unreadable
from noisyknn.data.store import ImageStore, decode_all
from noisyknn.data.table import LabelTable
from noisyknn.errors import first_ten, quoted
from noisyknn.history import Progress
from noisyknn.knn.search import find_search
from noisyknn.methods.algorithm1 import Correction, Episode, Task, final_network, gamma_of
from noisyknn.methods.spec import find_method
from noisyknn.models.backbone import Backbone
from noisyknn.models.model_file import save_model as write_model
from noisyknn.observer import Observer
from noisyknn.output import Labels, Outcome, Result, fixed_table, probability_table, summarise
from noisyknn.preparation import Job, check_labels
from noisyknn.run_dir import RunDirectory
from noisyknn.training.device import find_device, wants_bf16
from noisyknn.training.trainer import Checkpoints, EpochReport, Trainer

_NETWORK = "network."


def run_job(job: Job, run: RunDirectory, model_file: Path | None, observer: Observer) -> Result:
    """Run or resume the job in a run directory; writes `model_file` if it is given."""
    started = time.monotonic()
    table, config, truth = job.table, job.config, job.truth
    store = _read_images(job, run, observer)
    rows = np.flatnonzero(store.readable)  # the N samples of everything below
    progress = Progress(run, observer, config, table.given_labels[rows], None if truth is None else truth[rows])
    given = table.given_labels[rows]
    trainer = new_trainer(config, store, rows, given, job.new_model, run, progress.add_epoch, observer)
    task = new_task(trainer, store.digests[rows], len(table.classes))
    last = _episodes(trainer, task, run, progress)
    outcome = _verdict(trainer, last, rows, store)
    if model_file is not None:
        model = final_network(task, last, torch.from_numpy(outcome.labels[rows]).to(trainer.device))
        write_model(model_file, model, _model_metadata(table, config, trainer.pixels))
    about = {"seconds": round(time.monotonic() - started, 1), "config": dataclasses.asdict(config)}
    return Result(
        table=fixed_table(table, outcome),
        summary=summarise(table, outcome, truth, about),
        history=progress.history,
        probabilities=probability_table(table, outcome),
    )


def _read_images(job: Job, run: RunDirectory, observer: Observer) -> ImageStore:
    """Decode the images; raises InputError if too few are readable."""
    table, config = job.table, job.config
    observer.start("reading images", len(job.files), "images")
    store = decode_all(job.files, config.store_size or config.image_size, config.fit, run.path, observer.advance)
    if store.reasons:
        named = [
            f"row {row + 1} {quoted(table.paths[row])} ({reason})" for row, reason in sorted(store.reasons.items())
        ]
        observer.note(f"{some_unreadable(len(named))}: {first_ten(named)}")
        check_labels(table, np.where(store.readable, table.given_labels, -1), config, "readable ")
    return store


def new_trainer(
    config: Config,
    store: ImageStore,
    rows: Labels,
    given: Labels,
    new_model: Callable[[], Backbone],
    checkpoints: Checkpoints,
    on_epoch: Callable[[EpochReport], None],
    observer: Observer,
) -> Trainer:
    """The trainer of the images `rows` (N,) of a store, with their given labels (N,), -1 for none."""
    device = find_device(config.device)
    return Trainer(
        pixels=Pixels.of(store, rows, config.image_size, device),
        given_labels=torch.from_numpy(given).to(device),
        new_model=new_model,
        config=config,
        device=device,
        bf16=wants_bf16(config.precision, device),
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        observer=observer,
    )


def new_task(trainer: Trainer, digests: Labels, classes: int) -> Task:
    """The input of a method: the trainer's samples, with the `digests` (N,) of their images."""
    return Task(
        given_labels=trainer.given_labels,
        classes=classes,
        digests=torch.from_numpy(digests).to(trainer.device),
        config=trainer.config,
        train=trainer.train,
        search=find_search(trainer.config.search, trainer.device),
    )


def _episodes(trainer: Trainer, task: Task, run: RunDirectory, progress: Progress) -> Episode:
    """Run the method, save every episode, and return the last one."""
    config = trainer.config
    last = _load_episode(run, trainer)
    if last is not None:
        trainer.observer.note(f"resuming after episode {last.index + 1} of {config.episodes}")
    for episode in find_method(config.method).run(task, last):
        _save_episode(run, episode)
        progress.add_episode(episode)
        last = episode
    if last is None:
        raise AssertionError("a configuration has at least one episode")
    return last


def _save_episode(run: RunDirectory, episode: Episode) -> None:
    correction = {field.name: getattr(episode.correction, field.name) for field in dataclasses.fields(Correction)}
    network = {} if episode.network is None else episode.network.state_dict()
    weights = {f"{_NETWORK}{name}": tensor for name, tensor in network.items()}
    run.save_episode(episode.index, {**correction, "cumulative_loss": episode.cumulative_loss, **weights})


def _load_episode(run: RunDirectory, trainer: Trainer) -> Episode | None:
    saved = run.load_last_episode()
    if saved is None:
        return None
    index, tensors = saved
    moved = {name: tensor.to(trainer.device) for name, tensor in tensors.items()}
    weights = {name.removeprefix(_NETWORK): moved.pop(name) for name in list(moved) if name.startswith(_NETWORK)}
    network = None
    if weights:
        network = trainer.new_model().to(trainer.device).eval()
        network.load_state_dict(weights)
    return Episode(
        index=index,
        gamma=gamma_of(trainer.config, index),
        cumulative_loss=moved.pop("cumulative_loss"),
        correction=Correction(**moved),
        network=network,
    )


def _verdict(trainer: Trainer, last: Episode, rows: Labels, store: ImageStore) -> Outcome:
    """The verdict of the last episode for all rows; -1 and NaN where the image is unreadable."""
    given, config, correction = trainer.given_labels, trainer.config, last.correction
    calibration = calibrate(correction.evidence, given)
    doubtful = calibration.doubt > DOUBTFUL
    if doubtful:
        trainer.observer.note(
            "the labels look unrelated to the images: they are random, or training was too short; check the labels, "
            "or raise `epochs`; confidence treats both causes as equally likely"
            + (", and no label is corrected" if config.policy == "careful" else "")
        )
    digests = torch.from_numpy(store.digests[rows]).to(trainer.device)
    posterior = of_copies(calibration.posterior(correction.evidence, given), digests, given)
    prior = calibration.prior(correction.evidence)
    outside = foreign(correction.distances, calibration.surprise(correction.evidence, given), prior.amax(1))
    known = posterior * (1 - outside)[:, None]  # the rest up to 1 is the probability of no class
    labelled = given >= 0
    left_out = labelled & (correction.labels < 0)
    voted = torch.where(left_out, given, correction.voted)
    verdict = decide(known, given, voted, config.policy, math.inf if doubtful else config.min_confidence)

    def over_all(values: Tensor, nothing: float) -> Any:
        array = values.cpu().numpy()
        spread = np.full((len(store.readable), *array.shape[1:]), nothing, dtype=array.dtype)
        spread[rows] = array
        return spread

    return Outcome(
        labels=over_all(verdict.labels, -1),
        confidence=over_all(verdict.confidence, np.nan),
        label_score=over_all(verdict.label_score, np.nan),
        cumulative_loss=over_all(last.cumulative_loss, np.nan),
        prior=over_all(prior, np.nan),
        no_class=over_all(outside, np.nan),
        voted=over_all(correction.voted, -1),
        left_out=over_all(left_out, 0),
        doubt=calibration.doubt,
        flips=expected_counts(known[labelled], given[labelled]).double().cpu().numpy(),
        readable=store.readable,
    )


def _model_metadata(table: LabelTable, config: Config, pixels: Pixels) -> dict[str, Any]:
    """Metadata of the saved model: its classes, and how to prepare its input."""
    return {
        "classes": table.classes,
        "mean": pixels.mean.tolist(),
        "std": pixels.std.tolist(),
        "fit": config.fit,
        "store_size": config.store_size or config.image_size,
        "image_size": config.image_size,
    }
