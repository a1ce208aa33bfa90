"""Crossfit, the default method: no network judges a label that it was trained on.

Not in the paper, but built on its Algorithm 1. Samples are dealt into folds, copies of an image into the same one. Each
episode trains one network on all folds but one and judges the samples of that one; the folds take turns (cross-fitting,
Chernozhukov et al. 2018). The evidence on a sample mixes, as logarithms, the network's prediction and the vote of its
nearest neighbours among the training samples. After each episode this evidence is scaled to the confidence of the other
networks and calibrated (`noisyknn.calibration`); with the given label it yields the posterior of every class.

The first network trains on the given labels, with a loss that is robust to wrong ones. Later networks train on each
image as a mixture of classes, its posterior (Tanaka et al. 2018 train on soft labels too). For folds that no network
has judged yet, the posterior comes from the last network, although it was trained on their labels. The first network
is the weakest: with one episode more than folds, another network judges its fold again.

An epoch has as many images as training without folds: all, or for the first network those that have a label. So it
shows each image somewhat more often than once.

From the second episode on, a little of each label leaks into its own judgement: earlier networks were trained on the
label and judged samples that the present network trains on. The leak is small, but on easy images it hides most of the
noise, so LEAK compensates for it. Symbols: N samples, C classes.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from noisyknn.calibration.calibrate import aligned, calibrate, tiled
from noisyknn.config import Config
from noisyknn.errors import InputError, UsageError
from noisyknn.knn.vote import poll_uncertain
from noisyknn.methods.algorithm1 import Correction, Episode, Task, labelled
from noisyknn.methods.selknn import select_references
from noisyknn.methods.spec import COMMON_SETTINGS, VOTE_SETTINGS, Facts, MethodSpec
from noisyknn.training.plan import soft_target_plan
from noisyknn.training.schedule import PROGRESSIVE_COST

VOTE_WEIGHT = 0.3
"""Share of the neighbours' vote in the evidence; the rest is the network's prediction."""
LEAK = 0.1
"""Log-probability by which evidence favours the given label because earlier networks were trained on it. It measures
0.0 to 0.2 on labels that are wrong at random."""
CLEAR = 0.5
"""Distances are measured to this share of each class, the smallest cumulative losses as in SelKNN. Networks learn
images of no class last, so these do not vouch for each other."""
LEAST_LEARNT = 3
"""Fewest labelled images for the first network: two of them are clear, and a search for neighbours needs two."""


def crossfit(task: Task, last: Episode | None) -> Iterator[Episode]:
    """Train on all folds but one and judge that one; the folds take turns.

    Raises InputError if too few images differ.
    """
    config, given = task.config, task.given_labels
    images, known = (len(torch.unique(digests)) for digests in (task.digests, task.digests[labelled(given)]))
    if images < config.folds or known - math.ceil(known / config.folds) < LEAST_LEARNT:
        raise InputError(
            f"too few images differ, pixel for pixel, for `folds` {config.folds}: {images}, {known} of them with a "
            "label; check `images` or give another `method`"
        )
    folds = deal(given, task.digests, config.folds, config.seed)
    start = 0 if last is None else last.index + 1
    evidence = given.new_zeros(len(given), task.classes, dtype=torch.float16)
    voted = torch.full_like(given, -1)
    distances, cumulative_loss = torch.zeros(2, len(given), device=given.device)
    if last is not None:
        evidence, voted, distances = last.correction.evidence, last.correction.voted, last.correction.distances
        cumulative_loss = last.cumulative_loss
    beliefs, rows = _beliefs(evidence, given, folds, start - 1), torch.arange(len(given), device=given.device)
    for index in range(start, config.episodes):
        fold = folds == index % config.folds
        learnable = labelled(given) if index == 0 else rows
        learnt = learnable[~fold[learnable]]
        assessed = torch.nonzero(fold | (folds > index))[:, 0]
        plan = soft_target_plan(
            config,
            given,
            learnt,
            beliefs.__getitem__,
            index,
            robust=index == 0,
            stretch=len(learnable) / len(learnt),
        )
        trained = task.train(plan)
        classes = torch.full_like(given, -1).index_copy(0, learnt, beliefs[learnt].argmax(1))
        clear = select_references(classes, trained.cumulative_loss, CLEAR, None)
        votes = poll_uncertain(trained.features, learnt, clear, beliefs, config.k, task.search, assessed)
        voted = voted.index_copy(0, assessed, votes.winner)
        distances = distances.index_copy(0, assessed, votes.distances)
        seen = given[assessed] if index > 0 else torch.full_like(assessed, -1)
        mixed = tiled(_mixed, trained.log_probabilities[assessed], votes.log_shares, seen)
        evidence = evidence.index_copy(0, assessed, mixed)
        cumulative_loss = cumulative_loss.index_copy(0, learnt, trained.cumulative_loss[learnt])
        judged = folds <= index
        evidence = aligned(evidence, torch.where(judged, given, -1), folds.clamp_max(index))
        beliefs = _beliefs(evidence, given, folds, index)
        yield Episode(
            index=index,
            gamma=0.0,
            cumulative_loss=cumulative_loss,
            correction=Correction(
                labels=beliefs.argmax(1),
                voted=voted,
                evidence=evidence,
                distances=distances,
                references=learnt,
            ),
        )


def deal(given: Tensor, digests: Tensor, folds: int, seed: int) -> Tensor:
    """The random fold (N,) of each sample; every class of `given` (N,) is spread over all folds evenly.

    Copies of an image, which have equal `digests` (N,), share a fold: a copy in training would give away the label.
    """
    rows = torch.arange(len(given), device=given.device)
    images, image = torch.unique(digests, return_inverse=True)  # (I,), (N,)
    first = torch.full_like(images, len(given)).scatter_reduce(0, image, rows, "amin")  # (I,) each image's first row
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(given.device)
    shuffled = first.sort().values[order]
    by_class = shuffled[given[shuffled].argsort(stable=True)]
    dealt = torch.empty_like(given).index_copy(0, by_class, rows[: len(images)] % folds)
    return dealt[first[image]]


def _mixed(own: Tensor, votes: Tensor, seen: Tensor) -> Tensor:
    """Evidence (B, C) float16: a mixture of the network's log-probabilities and the votes' log-shares, both (B, C).

    `seen` (B,) are the labels that may have leaked into them, -1 for none.
    """
    mixed = own.float().lerp(votes.float(), VOTE_WEIGHT)
    rows = labelled(seen)
    mixed[rows, seen[rows]] -= LEAK
    return mixed.log_softmax(1).half()


def _beliefs(evidence: Tensor, given: Tensor, folds: Tensor, index: int) -> Tensor:
    """Class probabilities (N, C) float16, calibrated on the `folds` (N,) judged so far, those up to `index`.

    Before the first episode, at index -1, only the given label is known.
    """
    judged = folds <= index
    if not (judged & (given >= 0)).any():
        certain = F.one_hot(given.clamp_min(0), evidence.shape[1]).half()
        certain[given < 0] = 1 / evidence.shape[1]
        return certain
    calibration = calibrate(evidence[judged], given[judged])
    return calibration.posterior(evidence, given).half()


def _check(config: Config) -> None:
    if config.episodes < 2:
        raise UsageError("`episodes` 1 is too few for crossfit, which judges one fold per episode; give 2 or more")
    if config.episodes < config.folds:
        raise UsageError(
            f"`episodes` {config.episodes} is fewer than `folds` {config.folds}: crossfit judges one fold per episode; "
            "give more episodes or fewer folds, or another `method`"
        )


def _voters(config: Config, counts: npt.NDArray[np.int64]) -> int:
    return int(counts.sum()) * (config.folds - 1) // config.folds


def _auto(facts: Facts) -> dict[str, object]:
    """Few passes for each network: with twice as many, the first one memorises the given labels.

    A class of a handful of rows needs more passes, and has few rows to memorise.
    """
    enough = (28 if facts.grey else 36) * (2 if facts.rows < 8 * facts.classes else 1)
    progressive = facts.pixels >= PROGRESSIVE_PIXELS
    passes = min(max(PASSES * facts.passes / facts.rows, 8), enough) / 4
    epochs = round(passes / (PROGRESSIVE_COST if progressive else 1))
    return {"folds": 4, "episodes": 5, "epochs": epochs, "progressive": progressive, "optimizer": "muon"}


PASSES = 1.35
"""Crossfit may train on this many times as many images as other methods: most of the time its images are smaller."""
PROGRESSIVE_PIXELS = 24
"""Fewest pixels for progressive resizing; smaller images have none to spare."""
SPEC = MethodSpec(
    run=crossfit,
    settings=COMMON_SETTINGS | VOTE_SETTINGS | {"episodes", "folds"},
    words=lambda config: f"k = {config.k}, {config.folds} folds",
    voters=_voters,
    auto=_auto,
    check=_check,
    held_out=True,
)
