"""The main job as one call: table and images in, the same table with corrected labels out."""

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from noisyknn.calibration.calibrate import calibrate
from noisyknn.calibration.decide import DOUBTFUL, decide
from noisyknn.calibration.noise_model import expected_counts, of_copies
from noisyknn.calibration.outliers import foreign
from noisyknn.config import Config, read_config
from noisyknn.data.augment import Pixels
from noisyknn.data.images import some_unreadable
from noisyknn.data.store import ImageStore, decode_all
from noisyknn.data.table import Format, LabelTable, format_of, read_labels, write_table
from noisyknn.errors import InterruptedRunError, MachineError, UsageError, first_ten, quoted
from noisyknn.files import as_path, check_outputs, takes_bytes, write_json
from noisyknn.history import Progress
from noisyknn.knn.search import find_search
from noisyknn.methods.algorithm1 import Correction, Episode, Task, final_network, gamma_of
from noisyknn.methods.spec import find_method
from noisyknn.models.model_file import save_model as write_model
from noisyknn.observer import Observer, Silent
from noisyknn.output import Labels, Outcome, Result, fixed_table, probability_table, summarise
from noisyknn.preparation import Job, check_labels, identify, prepare
from noisyknn.run_dir import RunDirectory, open_run, refuse_inside
from noisyknn.training.device import find_device, thread_count, threads, wants_bf16
from noisyknn.training.trainer import Trainer

_NETWORK = "network."


def clean(
    images: str | Path,
    labels: str | Path | BinaryIO | pd.DataFrame,
    *,
    out: str | Path | BinaryIO | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    truth_column: str | None = None,
    table_format: Format | None = None,
    preset: str = "auto",
    config: str | Path | None = None,
    run_dir: str | Path | None = None,
    save_model: str | Path | None = None,
    save_probabilities: str | Path | None = None,
    summary: str | Path | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
    **settings: object,
) -> Result:
    """Correct the labels of the images in the folder `images` that the table `labels` names.

    `labels` is a CSV or Parquet file, a binary stream or a DataFrame; it is not modified. `settings` are fields of
    `noisyknn.config.Config`; they override those of the TOML file `config`, which override the `preset`.
    `truth_column` is only reported on. `out`, `save_model`, `save_probabilities` (`Result.probabilities`) and `summary`
    are written whole or not at all; existing ones are refused without `overwrite`. An unfinished run of the same input
    and settings is resumed.

    Raises InputError, UsageError, MachineError and InterruptedRunError (see `noisyknn.errors`).
    """
    observer = observer or Silent()
    folder, source, target = as_path("`images`", images), _source(labels), _target(out)
    config_file, run_folder, model_file, probability_file, summary_file = (
        None if file is None else as_path(option, file)
        for option, file in (
            ("`config`", config),
            ("`run_dir`", run_dir),
            ("`save_model`", save_model),
            ("`save_probabilities`", save_probabilities),
            ("`summary`", summary),
        )
    )
    if table_format not in (None, *get_args(Format)):
        raise UsageError(f"`format` {table_format!r} is not one of {', '.join(get_args(Format))}")
    table_file = target if isinstance(target, Path) else None
    outputs = {
        "`out`": table_file,
        "`save_model`": model_file,
        "`save_probabilities`": probability_file,
        "`summary`": summary_file,
    }
    refuse_inside(run_folder, outputs)
    check_outputs(outputs, [source if isinstance(source, Path) else None, config_file], overwrite=overwrite)
    for option, file in (("`out`", table_file), ("`save_probabilities`", probability_file)):
        if file is not None:
            format_of(file, table_format, option)
    if model_file is not None and model_file.suffix != ".safetensors":
        raise UsageError(f"`save_model` {model_file} does not end in .safetensors, which is what is written")
    table = read_labels(source, path_column=path_column, label_column=label_column, chosen_format=table_format)
    overrides = {**(read_config(config_file) if config_file else {}), **settings}
    job = prepare(table, folder, truth_column, preset, overrides, observer)
    check_outputs(outputs, job.inputs(), overwrite=overwrite)
    with open_run(run_folder, identify(job), overwrite=overwrite) as run:
        try:
            with threads(thread_count(job.config)):
                result = _run(job, run, model_file, observer)
            if probability_file is not None:
                write_table(result.probabilities, probability_file, chosen_format=table_format)
            if summary_file is not None:
                write_json(summary_file, result.summary)
            if target is not None:
                write_table(result.table, target, chosen_format=table_format)
        except KeyboardInterrupt as error:
            raise InterruptedRunError(f"interrupted; the same command goes on from what {run.path} holds") from error
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the GPU has too little free memory; give a smaller `batch_size` for a new run, and remove {run.path}"
            ) from error
        run.finish(result.summary)
    return result


def _source(labels: Any) -> Path | BinaryIO | pd.DataFrame:
    """What labels are read from; raises UsageError for what they cannot be read from."""
    if isinstance(labels, pd.DataFrame):
        return labels
    if isinstance(labels, str | os.PathLike):
        return as_path("`labels`", labels)
    try:
        binary = isinstance(labels.read(0), bytes)
    except (AttributeError, TypeError, ValueError):  # no stream, closed, or open for writing only
        binary = False
    if not binary:
        raise UsageError("labels is a path, a DataFrame or a binary stream, such as open(file, 'rb')")
    return cast(BinaryIO, labels)


def _target(out: Any) -> Path | BinaryIO | None:
    """Where the table goes; raises UsageError for what takes none, before all the work is lost to it."""
    if isinstance(out, str | os.PathLike):
        return as_path("`out`", out)
    if out is not None and not takes_bytes(out):
        raise UsageError("out is a path or a binary stream that is open for writing, such as open(file, 'wb')")
    return cast(BinaryIO | None, out)


def _run(job: Job, run: RunDirectory, model_file: Path | None, observer: Observer) -> Result:
    started = time.monotonic()
    table, config, truth = job.table, job.config, job.truth
    store = _read_images(job, run, observer)
    rows = np.flatnonzero(store.readable)  # the N samples of everything below
    progress = Progress(run, observer, config, table.given_labels[rows], None if truth is None else truth[rows])
    trainer = _trainer(store, rows, job, run, progress, observer)
    task = _task(trainer, store.digests[rows], len(table.classes))
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
    """Decode the images; raises InputError where too few of them can be read."""
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


def _trainer(
    store: ImageStore,
    rows: Labels,
    job: Job,
    run: RunDirectory,
    progress: Progress,
    observer: Observer,
) -> Trainer:
    config = job.config
    device = find_device(config.device)
    return Trainer(
        pixels=Pixels.of(store, rows, config.image_size, device),
        given_labels=torch.from_numpy(job.table.given_labels[rows]).to(device),
        new_model=job.new_model,
        config=config,
        device=device,
        bf16=wants_bf16(config.precision, device),
        checkpoints=run,
        on_epoch=progress.add_epoch,
        observer=observer,
    )


def _task(trainer: Trainer, digests: Labels, classes: int) -> Task:
    return Task(
        given_labels=trainer.given_labels,
        classes=classes,
        digests=torch.from_numpy(digests).to(trainer.device),
        config=trainer.config,
        train=trainer.train,
        search=find_search(trainer.config.search, trainer.device),
    )


def _episodes(trainer: Trainer, task: Task, run: RunDirectory, progress: Progress) -> Episode:
    """Run the method to its end, keeping every episode, and return the last one."""
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
    """What is made of the last episode, over all rows; -1 and NaN where the image is unreadable."""
    given, config, correction = trainer.given_labels, trainer.config, last.correction
    calibration = calibrate(correction.evidence, given)
    doubtful = calibration.doubt > DOUBTFUL
    if doubtful:
        trainer.observer.note(
            "the images tell next to nothing of the given labels: these are at random, or too little was learnt; "
            "confidence takes both for equally likely"
            + (", and no label is corrected" if config.policy == "careful" else "")
        )
    digests = torch.from_numpy(store.digests[rows]).to(trainer.device)
    posterior = of_copies(calibration.posterior(correction.evidence, given), digests, given)
    prior = calibration.prior(correction.evidence)
    outside = foreign(correction.distances, calibration.surprise(correction.evidence, given), prior.amax(1))
    known = posterior * (1 - outside)[:, None]  # what is missing to 1: none of the classes
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
    """What a user of the saved model needs to know: how to build it and how to feed it."""
    return {
        "classes": table.classes,
        "mean": pixels.mean.tolist(),
        "std": pixels.std.tolist(),
        "fit": config.fit,
        "store_size": config.store_size or config.image_size,
        "image_size": config.image_size,
    }
