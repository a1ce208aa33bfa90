"""Calibrated probabilities of the true class, learnt from noisy labels alone.

Symbols: N samples, C classes, y true class, ỹ given label.

    p(y | x) = softmax(τ · evidence + b),   P(ỹ | x) = Σ_y p(y | x) · P(ỹ | x, y)

The temperature τ, the class offsets b and the noise P(ỹ | x, y) (`noisyknn.trust.noise_model`) are those under which
the given labels are likeliest, found by expectation maximisation (Dempster et al. 1977) for the transition matrix and
gradient steps for τ and b: temperature scaling (Guo et al. 2017) seen through label noise, as in the forward
correction of Patrini et al. (2017). Weak priors hold b, T and the classes' sizes where labels say little.

Much noise and sharp evidence explain labels almost as well as little noise and blurred evidence. Evidence that has seen
the labels of others, which others have learnt, or that has learnt people's habits, errs towards little noise. So of all
values that explain the labels within TOLERANCE of the best, those with the most noise are taken; of its growth with
ambiguity, the largest that MISFIT allows.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noisyknn.trust.noise_model import LEAST, NoiseModel, posterior, reestimated

OFFSET_SPREAD = 0.5
"""Standard deviation of the Gaussian prior of class offsets, which keeps rare classes from being explained away."""
SIZES = 0.05
"""Weight, per label, of the Kullback-Leibler divergence of the classes' sizes from those among the given labels. Of two
classes that are often confused labels hardly say which is the larger, and one must not swallow the other."""
SURENESS_SPREAD = 0.15
"""Standard deviation of a Gaussian prior of the logarithm of τ, where that is below 0. Of few images that are told
easily the labels hardly say whether much noise and sharp evidence made them, or little noise and blurred evidence; a
network that has learnt mixtures, and not labels as they are given, is about as sure as it should be, unless the labels
are LIKELIER otherwise."""
SCALE_SPREAD = 0.5
"""Standard deviation of the Gaussian prior of the logarithm of how sure a network is, relative to the others."""
ALIGNMENTS = 2
"""How many times networks are made equally sure; the noise is then estimated again."""
ROUNDS = 50
"""Most steps of expectation maximisation."""
SETTLED = 3e-4
"""Change of the transition matrix below which they end."""
GROWTHS = (0.0, 0.05, 0.1, 0.15, 0.2)
"""Values of the growth of noise with ambiguity that are tried, in ascending order."""
LITTLE = 0.1
"""The one of them that labels must ask for before any is believed."""
MISFIT = 0.01
"""Log-likelihood, per label that is believed wrong, by which more growth may be worse than the best and is still taken.
Where people err, networks that have learnt their labels repeat it, and what is repeated speaks against noise."""
LIKELIER = 5.0
"""Logarithm of how many times likelier, 150, all labels must be to speak for a little growth, or against a prior.
What a network of few images is unsure of would pass for ambiguous otherwise."""
SHARPER, SHARPEST = 1.02, 35
"""Factor from one temperature that is tried to the next, and the most such steps beyond the likeliest."""
ROWS_PER_STEP = 20
"""Rows per class that each such step takes: of few rows little can be known, and blurred evidence does less harm."""
CREDIT, CREDIT_IN_TRAINING = 3.0, 1.0
"""Rows of each class whose labels are believed right before any is seen: from few rows no network learns a class well,
and what it does not know must not pass for noise. What networks are trained towards harms no label, and dares more."""
RESERVE = 0.5
"""Rows of each class (Jeffreys' prior) that are taken to say otherwise than the evidence."""
MOST_DOUBT = 0.5
"""Labels that cannot be told from the images: either they are at random or the network has learnt nothing, which are
taken for equally likely."""
TOLERANCE = 2e-4
"""Log-likelihood per label by which more noise may be worse than the best and is still taken."""
TILE_ELEMENTS = 1 << 22
"""Rows times classes of one tile."""
FIT_ELEMENTS, GROWTH_ELEMENTS = 1 << 22, 1 << 19
"""Most rows times classes that parameters, and the growth, are learnt from; beyond it, a sample of the rows does."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Turns evidence into probabilities."""

    temperature: float
    """τ, the factor on the evidence: below 1 where it is over-sure."""
    offsets: Tensor
    """b (C,)."""
    noise: NoiseModel
    reserve: float
    """Share of p(y | x) that all classes have alike, whatever the evidence: few labels teach nothing for sure."""
    credit: float
    """Rows of each class whose labels were believed right before any was seen."""
    spread: float
    """Standard deviation of the prior of log τ below 0."""
    chances: Tensor
    """Share (C,) of each class among the given labels."""
    doubt: float = 0.0
    """Probability, up to MOST_DOUBT, that the given labels have nothing to do with the images."""

    def prior(self, evidence: Tensor) -> Tensor:
        """p(y | x) (N, C) float32, which does not look at the given label, from evidence (N, C)."""
        return tiled(self._prior, evidence)

    def posterior(self, evidence: Tensor, given: Tensor) -> Tensor:
        """P(y | x, ỹ) (N, C) float32 from evidence (N, C) and given labels (N,); p(y | x) where none was given (-1)."""
        return tiled(self._posterior, evidence, given)

    def surprise(self, evidence: Tensor, given: Tensor) -> Tensor:
        """How many times likelier each given label (N,) is at random than by its image (N,); 1 where there is none."""
        return tiled(self._surprise, evidence, given)

    def _surprise(self, evidence: Tensor, given: Tensor) -> Tensor:
        prior, label = self._prior(evidence), given.clamp_min(0)
        explained = (prior * self.noise.likelihood(prior, label)).sum(1).clamp_min(LEAST)
        return torch.where(given >= 0, self.chances[label].clamp_min(LEAST) / explained, 1.0)

    def _prior(self, evidence: Tensor) -> Tensor:
        believed = (self.temperature * evidence.float() + self.offsets).softmax(1)
        return (1 - self.reserve) * believed + self.reserve / evidence.shape[1]

    def _posterior(self, evidence: Tensor, given: Tensor) -> Tensor:
        prior = self._prior(evidence)
        labelled = given >= 0
        likelihood = torch.ones_like(prior)
        likelihood[labelled] = self.noise.likelihood(prior[labelled], given[labelled])
        return posterior(prior, likelihood).lerp(self.chances, self.doubt)


def tiled(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` of tensors with N rows, the first of them (N, C), in tiles: what it needs in between stays small."""
    tile_rows = max(1, TILE_ELEMENTS // tensors[0].shape[1])
    return torch.cat([function(*tile) for tile in zip(*(torch.split(t, tile_rows) for t in tensors), strict=True)])


def aligned(evidence: Tensor, given: Tensor, judges: Tensor) -> Tensor:
    """Evidence (N, C) with that of each network, which `judges` (N,) numbers from 0, made as sure as the others'.

    One temperature then suits all. A network that learnt labels as they are given is surer than those that learnt
    mixtures: taken at its word, it would break what the others know. Given labels (N,) are -1 where there is none, or
    where the network has learnt the label; what is learnt from the rest holds for all that the network says.
    """
    classes, networks = evidence.shape[1], int(judges.max()) + 1
    rows = _fit_rows(given, classes)
    reserve = _reserve(len(rows), classes)
    some, labels, network = evidence[rows].float(), given[rows], judges[rows]
    scales = some.new_ones(networks)
    for _ in range(ALIGNMENTS if networks > 1 and len(rows) > 0 else 0):
        scaled = some * scales[network, None]
        scales *= _relative_scales(
            _likeliest(scaled, labels, reserve, CREDIT_IN_TRAINING, SURENESS_SPREAD), scaled, labels, network, networks
        )
    return evidence * scales[judges, None].to(evidence.dtype)


def _relative_scales(found: Calibration, evidence: Tensor, given: Tensor, network: Tensor, networks: int) -> Tensor:
    """Factors (networks,), 1 in the geometric mean, under which the labels are likelier than with one temperature."""
    logs = evidence.new_zeros(networks).requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=20, line_search_fn="strong_wolfe")
    likelihood = found.noise.likelihood(evidence, given)

    def loss() -> Tensor:
        optimizer.zero_grad()
        prior = (found.temperature * logs.exp()[network, None] * evidence + found.offsets).softmax(1)
        value = _loss(prior, likelihood) + logs.square().sum() / (2 * SCALE_SPREAD**2 * len(given))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return (logs - logs.mean()).detach().exp()


def calibrate(
    evidence: Tensor,
    given: Tensor,
    credit: float = CREDIT,
    least_noise: float | Tensor = 0.0,
    spread: float = SURENESS_SPREAD,
) -> Calibration:
    """Learn from evidence (N, C), log-probabilities, and given labels (N,), -1 for none.

    Of each class, `credit` rows are believed right before any is seen. `least_noise` is the share of wrong labels that
    is known, from other evidence (`noise_rate`), to be there at least. `spread` is how far networks may be over-sure:
    `math.inf` for those that have learnt labels as they are given.

    The same input gives the same result, on a CPU bit for bit. One sample must have a label.
    """
    likeliest, found, evidence, given = _simple(evidence, given, credit, float(least_noise), spread)
    some = _sample(given, GROWTH_ELEMENTS // evidence.shape[1])
    found = _with_growth(likeliest, found, evidence[some], given[some])
    return dataclasses.replace(found, doubt=_doubt(found, evidence, given))


def noise_rate(evidence: Tensor, given: Tensor) -> float:
    """The expected share of wrong labels, if noise is the same on all images, from what `calibrate` takes."""
    _, found, evidence, given = _simple(evidence, given, CREDIT, 0.0, SURENESS_SPREAD)
    return _noise_of(found, evidence, given)


def _simple(
    evidence: Tensor, given: Tensor, credit: float, least_noise: float, spread: float
) -> tuple[Calibration, Calibration, Tensor, Tensor]:
    """Calibrations by noise that is the same on all images: the likeliest, and with as much noise as may be.

    And the evidence and the labels that they were learnt from.
    """
    classes = evidence.shape[1]
    rows = _fit_rows(given, classes)
    reserve = _reserve(int((given >= 0).sum()), classes)
    evidence, given = evidence[rows].float(), given[rows]
    likeliest = _likeliest(evidence, given, reserve, credit, spread)
    return likeliest, _sharpened(likeliest, evidence, given, least_noise), evidence, given


def _noise_of(found: Calibration, evidence: Tensor, given: Tensor) -> float:
    """The expected share of wrong labels."""
    return 1 - float(found.posterior(evidence, given).gather(1, given[:, None]).mean())


def _reserve(labelled: int, classes: int) -> float:
    return RESERVE * classes / (labelled + RESERVE * classes)


def _doubt(found: Calibration, evidence: Tensor, given: Tensor) -> float:
    """How far the labels might as well be drawn by their frequencies alone, whatever the evidence (N, C).

    That explanation and the calibration that was found are compared by their Bayesian information criterion (Schwarz
    1978), in which the temperature and the offsets count as parameters.
    """
    chance = -found.chances[given].log().mean()
    gained = len(given) * (float(chance) - _negative_log_likelihood(found, evidence, given))
    cost = (len(found.chances) + 1) / 2 * math.log(len(given))
    return MOST_DOUBT / (1 + math.exp(min(gained - cost, 700.0)))


def _sharpened(likeliest: Calibration, evidence: Tensor, given: Tensor, least_noise: float) -> Calibration:
    """The calibration with the highest temperature factor, and with it the most noise, within TOLERANCE.

    Beyond it, the one with the first that comes to `least_noise`.
    """
    least = _negative_log_likelihood(likeliest, evidence, given)
    found = likeliest
    for _ in range(min(SHARPEST, evidence.shape[0] // (ROWS_PER_STEP * evidence.shape[1]))):
        sharper = dataclasses.replace(found, temperature=SHARPER * found.temperature, offsets=SHARPER * found.offsets)
        for _ in range(ROUNDS):
            before = sharper.noise.transition
            transition = reestimated(sharper.posterior(evidence, given), given, sharper.credit)
            sharper = dataclasses.replace(sharper, noise=NoiseModel(transition=transition, growth=0.0))
            if (transition - before).abs().max() < SETTLED:
                break
        unlikely = _negative_log_likelihood(sharper, evidence, given) > least + TOLERANCE
        if unlikely and _noise_of(found, evidence, given) >= least_noise:
            break
        found = sharper
    return found


def _with_growth(likeliest: Calibration, simple: Calibration, evidence: Tensor, given: Tensor) -> Calibration:
    """The calibration with the largest growth that the labels do not speak against, if they ask for growth at all.

    They do if a LITTLE makes them LIKELIER; or no less likely, where as much noise as is known to be there, the same on
    all images (`simple`), makes them less likely than the `likeliest` is, by as much beyond TOLERANCE. Then they hardly
    tell an image that is mislabelled since it is ambiguous from one that the network is unsure of. People do mislabel
    the ambiguous, so that is believed until the labels become less likely by more than MISFIT allows.
    """
    losses, candidates = [_negative_log_likelihood(simple, evidence, given)], [simple]
    given_up = losses[0] - _negative_log_likelihood(likeliest, evidence, given) - TOLERANCE
    asked = 0.0 if given_up * len(given) >= LIKELIER else LIKELIER
    for growth in GROWTHS[1:]:
        noise = NoiseModel(transition=simple.noise.transition, growth=growth)
        candidates.append(_maximised(candidates[-1], noise, evidence, given, steps=20))
        losses.append(_negative_log_likelihood(candidates[-1], evidence, given))
        if growth == LITTLE and (losses[0] - losses[-1]) * len(given) < asked:
            return simple
    tolerated = min(losses) + MISFIT * _noise_of(simple, evidence, given)
    return next(found for loss, found in zip(reversed(losses), reversed(candidates), strict=True) if loss <= tolerated)


def _fit_rows(given: Tensor, classes: int) -> Tensor:
    """Labelled rows to learn from."""
    rows = torch.nonzero(given >= 0)[:, 0]
    return rows[_sample(rows, FIT_ELEMENTS // classes)]


def _sample(rows: Tensor, most: int) -> Tensor:
    """Indices into `rows`, in order: all, or at random that many, the same each time.

    Every so manieth row would do only where their order has no rhythm: many tables take the classes in turn.
    """
    if len(rows) <= most:
        return torch.arange(len(rows), device=rows.device)
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return shuffled[: max(most, 1)].sort().values.to(rows.device)


def _likeliest(evidence: Tensor, given: Tensor, reserve: float, credit: float, spread: float) -> Calibration:
    """The likeliest by noise that is the same on all images; with the prior of τ, if labels do not speak against it."""
    free = _alternate(evidence, given, reserve, credit, math.inf)
    if math.isinf(spread) or free.temperature >= 1 or _doubt(free, evidence, given) > MOST_DOUBT / 2:
        return free
    held = _alternate(evidence, given, reserve, credit, spread)
    lost = _negative_log_likelihood(held, evidence, given) - _negative_log_likelihood(free, evidence, given)
    lost = lost * len(given) + (min(math.log(held.temperature), 0.0) / spread) ** 2 / 2
    return held if lost < LIKELIER else free


def _alternate(evidence: Tensor, given: Tensor, reserve: float, credit: float, spread: float) -> Calibration:
    """Transition matrix, temperature and offsets for noise that is the same on all images."""
    classes = evidence.shape[1]
    start = reestimated(torch.nn.functional.one_hot(given, classes) * 0.9 + 0.1 / classes, given, credit)
    found = Calibration(
        temperature=1.0,
        offsets=evidence.new_zeros(classes),
        noise=NoiseModel(transition=start, growth=0.0),
        reserve=reserve,
        credit=credit,
        spread=spread,
        chances=torch.bincount(given, minlength=classes) / len(given),
    )
    for _ in range(ROUNDS):
        before = found.noise.transition
        transition = reestimated(found.posterior(evidence, given), given, credit)
        found = _maximised(found, NoiseModel(transition=transition, growth=0.0), evidence, given, steps=4)
        if (transition - before).abs().max() < SETTLED:
            break
    return found


def _maximised(start: Calibration, noise: NoiseModel, evidence: Tensor, given: Tensor, steps: int) -> Calibration:
    """The temperature and the offsets under which the labels are likeliest, given their noise."""
    scale = torch.tensor(math.log(start.temperature), device=evidence.device).requires_grad_()
    offsets = start.offsets.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([scale, offsets], max_iter=steps, line_search_fn="strong_wolfe")
    same_everywhere = noise.likelihood(evidence, given) if noise.growth == 0 else None  # then it ignores the prior

    def loss() -> Tensor:
        optimizer.zero_grad()
        prior = (scale.exp() * evidence + offsets).softmax(1)
        likelihood = noise.likelihood(prior, given) if same_everywhere is None else same_everywhere
        value = _loss(prior, likelihood) + offsets.square().sum() / (2 * OFFSET_SPREAD**2 * len(given))
        value = value + scale.clamp_max(0).square() / (2 * start.spread**2 * len(given))
        sizes = prior.mean(0).clamp_min(LEAST).log()
        value = value + SIZES * torch.nn.functional.kl_div(sizes, start.chances, reduction="sum")
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    temperature = float(scale.detach().exp())
    return dataclasses.replace(start, temperature=temperature, offsets=offsets.detach(), noise=noise)


def _negative_log_likelihood(calibration: Calibration, evidence: Tensor, given: Tensor) -> float:
    prior = calibration.prior(evidence)
    return float(_loss(prior, calibration.noise.likelihood(prior, given)))


def _loss(prior: Tensor, likelihood: Tensor) -> Tensor:
    """Mean of -log P(ỹ | x), from p(y | x) and P(ỹ | x, y), both (N, C)."""
    return -(prior * likelihood).sum(1).clamp_min(LEAST).log().mean()
