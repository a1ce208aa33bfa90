import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from noisyknn.config import Config
from noisyknn.data.augment import Pixels
from noisyknn.errors import MachineError
from noisyknn.models.backbone import Backbone, BackboneSpec, Tap
from noisyknn.models.factory import build_backbone
from noisyknn.training import plan as plan_module
from noisyknn.training import trainer as trainer_module
from noisyknn.training.cuda_graphs import Graphs, Logits
from noisyknn.training.plan import Objective, Plan, eq7_plan, soft_target_plan
from noisyknn.training.trainer import EpochReport, Trained, Trainer

CPU = torch.device("cpu")
SAMPLES, CLASSES, SIZE = 40, 3, 8
LABELS = torch.arange(SAMPLES) % CLASSES
OTHERS = (LABELS + 1) % CLASSES
IMAGES = torch.randint(256, (SAMPLES, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
IMAGES[torch.arange(SAMPLES), :, :, LABELS] //= 2  # something to learn: each class lacks another colour
NO_AUGMENTATION = {"crop_padding": 0, "flip": False, "rotation": 0, "translation": 0, "jitter": 0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they gain with images this small, and very much more where processors are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class MemoryCheckpoints:
    """Keeps states as bytes, as a run directory does."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, int, bytes]] = []

    def load(self, episode: int) -> tuple[int, dict[str, Tensor]] | None:
        if not self.saved or self.saved[-1][0] != episode:
            return None
        return self.saved[-1][1], safetensors.torch.load(self.saved[-1][2])

    def save(self, episode: int, epochs_done: int, state: Mapping[str, Tensor]) -> None:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        self.saved.append((episode, epochs_done, safetensors.torch.save(plain)))


@dataclass
class Diary:
    """An observer and a recipient of epochs that writes everything down, and stops the training where it is told to."""

    expected_notes: str = r"resuming episode \d of \d after epoch \d+ of \d+"
    notes: int = 0
    stop_at_epoch: int | None = None
    stop_at_step: int | None = None
    stages: list[tuple[str, int, str]] = field(default_factory=list)
    advances: list[int] = field(default_factory=list)
    reports: list[EpochReport] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.notes += 1
        assert re.fullmatch(self.expected_notes, message)

    def start(self, stage: str, total: int, unit: str) -> None:
        self.stages.append((stage, total, unit))

    def advance(self, done: int) -> None:
        self.advances.append(done)
        if len(self.advances) == self.stop_at_step:
            raise KeyboardInterrupt

    def add_epoch(self, report: EpochReport) -> None:
        self.reports.append(report)
        if report.epoch == self.stop_at_epoch:
            raise KeyboardInterrupt


def make_config(**settings: object) -> Config:
    small = {"epochs": 3, "batch_size": 16, "lr": 0.01, "drops": (2,), "crop_padding": 1, "episodes": 2}
    return Config(**{**small, **settings})  # type: ignore[arg-type]


def new_model(size: int = SIZE) -> Backbone:
    return build_backbone("cnn5", classes=CLASSES, image_size=size, width=0.25, seed=0)


def model_with_dropout() -> Backbone:
    model = new_model()
    head = model.net.get_submodule("head")
    model.net.register_module("head", nn.Sequential(nn.Dropout(0.5), head))
    return model


def make_trainer(
    config: Config,
    *,
    images: Tensor = IMAGES,
    rows: Iterable[int] = range(SAMPLES),
    given: Tensor = LABELS,
    model: Callable[[], Backbone] = new_model,
    checkpoints: MemoryCheckpoints | None = None,
    diary: Diary | None = None,
    bf16: bool = False,
) -> Trainer:
    diary = diary or Diary()
    return Trainer(
        pixels=Pixels(
            images=images,
            rows=torch.tensor(list(rows)),
            mean=torch.full((3,), 0.45),
            std=torch.full((3,), 0.3),
            size=images.shape[1],
        ),
        given_labels=given,
        new_model=model,
        config=config,
        device=CPU,
        bf16=bf16,
        checkpoints=checkpoints or MemoryCheckpoints(),
        on_epoch=diary.add_epoch,
        observer=diary,
    )


def train(trainer: Trainer, labels: Tensor, gamma: float, episode: int) -> Trained:
    return trainer.train(eq7_plan(trainer.config, trainer.given_labels, labels, gamma, episode))


def train_on_targets(
    trainer: Trainer, rows: Tensor, targets: Callable[[Tensor], Tensor], episode: int, *, robust: bool, stretch: float
) -> Trained:
    given = trainer.given_labels
    plan = soft_target_plan(trainer.config, given, rows, targets, episode, robust=robust, stretch=stretch)
    return trainer.train(plan)


def fit(trainer: Trainer, labels: Tensor = LABELS, gamma: float = 0.4, episode: int = 0) -> dict[str, Tensor]:
    """Everything that training leaves: weights and running statistics, losses and features."""
    trained = train(trainer, labels, gamma, episode)
    weights = trained.model.state_dict()
    return {**weights, "cumulative_loss": trained.cumulative_loss, "features": trained.features}


def identical(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses_by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    """Symmetric cross-entropy of the default settings, sample by sample."""
    losses = []
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        p = row.exp() / row.exp().sum()
        losses.append(-0.1 * p[label].log() + 9.21 * (1 - p[label]))
    return torch.stack(losses)


def normalised(images: Tensor = IMAGES) -> Tensor:
    return ((images.float() / 255 - 0.45) / 0.3).permute(0, 3, 1, 2)


def train_one_step_by_hand(
    config: Config, labels: Tensor, given: Tensor, gamma: float
) -> tuple[dict[str, Tensor], Tensor]:
    """The weights after one step of SGD on the whole set, without augmentation, and J(ŷ) before it."""
    model = new_model().train()
    logits = model(normalised())
    current = losses_by_hand(logits, labels)
    total = ((1 - gamma) * current + gamma * losses_by_hand(logits, given)).mean()
    names, parameters = zip(*model.named_parameters(), strict=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
            step = gradient + config.weight_decay * parameter
            parameter -= config.lr * 1.9 * step  # Nesterov momentum: step + 0.9 · (first momentum = step)
    return {name: parameter.detach() for name, parameter in zip(names, parameters, strict=True)}, current.detach()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_one_step_equals_equation_7_by_hand(gamma: float) -> None:
    config = make_config(epochs=1, batch_size=SAMPLES, optimizer="sgd", **NO_AUGMENTATION)
    diary = Diary()
    found = fit(make_trainer(config, given=OTHERS, diary=diary), LABELS, gamma)
    weights, losses = train_one_step_by_hand(config, LABELS, OTHERS, gamma)
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(found["cumulative_loss"].double(), losses - losses.mean(), atol=1e-4, rtol=1e-4)
    assert diary.reports[0].loss == pytest.approx(losses.mean().item(), rel=1e-5)


def test_gamma_says_which_labels_are_trained_on() -> None:
    config = make_config()

    def weights(current: Tensor, given: Tensor, gamma: float) -> dict[str, Tensor]:
        return dict(train(make_trainer(config, given=given), current, gamma, 0).model.state_dict())

    assert identical(weights(LABELS, OTHERS, 1.0), weights(OTHERS, OTHERS, 1.0))
    assert identical(weights(OTHERS, LABELS, 0.0), weights(OTHERS, OTHERS, 0.0))
    assert not identical(weights(LABELS, OTHERS, 0.9), weights(OTHERS, OTHERS, 0.9))
    assert not identical(weights(OTHERS, LABELS, 0.1), weights(OTHERS, OTHERS, 0.1))


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adam"}, {"optimizer": "sgd", "schedule": "one-cycle"}, {"optimizer": "muon", "lr": 0.2}]
)
def test_the_same_seed_gives_the_same_bits(settings: dict[str, object]) -> None:
    config = make_config(**settings)
    first = fit(make_trainer(config))
    torch.manual_seed(1)  # the global random state plays no part
    assert identical(first, fit(make_trainer(config)))
    assert not identical(first, fit(make_trainer(config), episode=1))
    assert not identical(first, fit(make_trainer(make_config(seed=1, **settings))))


def test_dropout_follows_the_seed_and_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit(make_trainer(make_config(), model=model_with_dropout))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert identical(first, fit(make_trainer(make_config(), model=model_with_dropout)))


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({"optimizer": "adam"}, new_model),
        ({"optimizer": "sgd", "schedule": "one-cycle"}, new_model),
        ({"optimizer": "muon", "schedule": "one-cycle", "lr": 0.2}, new_model),
        ({"optimizer": "adam", "loss": "ce", "label_smoothing": 0.1}, model_with_dropout),
    ],
)
def test_a_resumed_training_ends_as_an_undisturbed_one(
    settings: dict[str, object], model: Callable[[], Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    config = make_config(epochs=4, **settings)
    labels = LABELS.clone()
    labels[::7] = -1
    undisturbed = fit(make_trainer(config, model=model), labels, episode=1)
    stops = [Diary(stop_at_epoch=epoch) for epoch in range(4)] + [Diary(stop_at_step=step) for step in (1, 6, 9)]
    for stopped in stops:
        checkpoints = MemoryCheckpoints()
        with pytest.raises(KeyboardInterrupt):
            fit(make_trainer(config, model=model, checkpoints=checkpoints, diary=stopped), labels, episode=1)
        done = checkpoints.saved[-1][1] if checkpoints.saved else 0
        diary = Diary()
        resumed = fit(make_trainer(config, model=model, checkpoints=checkpoints, diary=diary), labels, episode=1)
        assert [report.epoch for report in diary.reports] == list(range(done, 4))
        assert sum(diary.advances) == 4 * int((labels >= 0).sum())
        assert identical(resumed, undisturbed)


class Counting(Objective):
    """An objective that learns how often each sample was seen, and weighs its loss by that."""

    def __init__(self) -> None:
        self.seen = torch.ones(SAMPLES)
        self.state = {"seen": self.seen}
        self.epochs: list[int] = []

    def begin_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __call__(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        self.seen[samples] += samples % 3
        losses = self.seen[samples] * nn.functional.cross_entropy(logits, LABELS[samples], reduction="none")
        return losses, losses


def plan_of(objective: Counting, tracked_from: int = 0) -> Plan:
    rows = torch.arange(SAMPLES)
    return Plan(
        episode=0,
        rows=rows,
        objective=objective,
        epochs=4,
        rate=lambda epoch, _: 0.01 / (epoch + 1),
        tracked_from=tracked_from,
    )


def test_what_an_objective_learns_is_resumed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    undisturbed = Counting()
    expected = make_trainer(make_config(epochs=9)).train(plan_of(undisturbed))
    assert undisturbed.epochs == [0, 1, 2, 3]
    assert undisturbed.seen.tolist() == [1 + 4 * (row % 3) for row in range(SAMPLES)]
    checkpoints, resumed = MemoryCheckpoints(), Counting()
    stopped = make_trainer(make_config(), checkpoints=checkpoints, diary=Diary(stop_at_epoch=2))
    with pytest.raises(KeyboardInterrupt):
        stopped.train(plan_of(Counting()))
    found = make_trainer(make_config(), checkpoints=checkpoints).train(plan_of(resumed))
    assert resumed.epochs == [2, 3]
    assert torch.equal(resumed.seen, undisturbed.seen)
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.cumulative_loss, expected.cumulative_loss)
    assert identical(found.model.state_dict(), expected.model.state_dict())
    assert not found.model.training


def test_losses_may_be_summed_up_from_a_later_epoch_on() -> None:
    late, all_along = (
        make_trainer(make_config()).train(plan_of(Counting(), first)).cumulative_loss for first in (3, 0)
    )
    assert late.abs().sum() < 0.5 * all_along.abs().sum()
    assert late.count_nonzero() == SAMPLES


def test_a_training_may_be_stopped_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    config, checkpoints = make_config(epochs=4), MemoryCheckpoints()
    for epoch in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            fit(make_trainer(config, checkpoints=checkpoints, diary=Diary(stop_at_epoch=epoch)))
    resumed = fit(make_trainer(config, checkpoints=checkpoints))
    assert [(episode, done) for episode, done, _ in checkpoints.saved] == [(0, 1), (0, 2), (0, 3)]
    assert identical(resumed, fit(make_trainer(config)))


def test_a_checkpoint_is_taken_only_after_some_time_and_never_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = MemoryCheckpoints()
    fit(make_trainer(make_config(), checkpoints=checkpoints))
    assert checkpoints.saved == []
    monkeypatch.setattr(trainer_module, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    fit(make_trainer(make_config(), checkpoints=checkpoints))
    assert [done for _, done, _ in checkpoints.saved] == [1, 2]


def test_an_episode_starts_afresh_and_takes_up_no_other_ones_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    trainer = make_trainer(make_config())
    fit(trainer, episode=0)
    assert identical(fit(trainer, OTHERS, 0.2, episode=1), fit(make_trainer(make_config()), OTHERS, 0.2, episode=1))


def test_samples_without_a_label_are_not_trained_on_until_they_have_one() -> None:
    unlabelled = torch.tensor([0, 5, 17, 39])
    given = LABELS.clone()
    given[unlabelled] = -1
    changed = IMAGES.clone()
    changed[unlabelled] = 255 - changed[unlabelled]
    one, other = (
        train(make_trainer(make_config(), images=images, given=given), given, 1.0, 0) for images in (IMAGES, changed)
    )
    assert identical(one.model.state_dict(), other.model.state_dict())
    assert torch.equal(one.cumulative_loss, other.cumulative_loss)
    assert one.cumulative_loss[unlabelled].tolist() == [0.0] * 4
    assert one.cumulative_loss[given >= 0].count_nonzero() == SAMPLES - 4
    one, other = (
        train(make_trainer(make_config(), images=images, given=given), LABELS, 1.0, 1) for images in (IMAGES, changed)
    )
    assert not identical(one.model.state_dict(), other.model.state_dict())
    assert one.cumulative_loss.count_nonzero() == SAMPLES


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_without_a_given_label_the_current_one_is_all_there_is(gamma: float) -> None:
    found = fit(make_trainer(make_config(), given=torch.full_like(LABELS, -1)), LABELS, gamma)
    expected = fit(make_trainer(make_config(), given=LABELS), LABELS, 0.0)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-3, rtol=1e-3)


def test_unreadable_images_are_stored_but_no_samples() -> None:
    rows = list(range(1, 2 * SAMPLES, 2))
    stored = torch.zeros(2 * SAMPLES, SIZE, SIZE, 3, dtype=torch.uint8)
    stored[rows] = IMAGES
    assert identical(fit(make_trainer(make_config(), images=stored, rows=rows)), fit(make_trainer(make_config())))


def test_the_learning_rate_follows_the_progress_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []

    def rate(_: Config, epoch: int, progress: float) -> float:
        asked.append((epoch, progress))
        return 0.0 if epoch == 0 else 0.01

    before = dict(new_model().named_parameters())
    monkeypatch.setattr(plan_module, "learning_rate", rate)
    for epochs, moved in ((1, False), (2, True)):
        asked.clear()
        model = train(make_trainer(make_config(epochs=epochs)), LABELS, 1.0, 0).model
        assert asked == [(epoch, step / 3) for epoch in range(epochs) for step in range(3)]  # 14, 13 and 13 images
        assert identical(before, dict(model.named_parameters())) != moved


def test_cumulative_losses_tell_wrong_labels() -> None:
    labels = LABELS.clone()
    wrong = torch.tensor([0, 20])
    labels[wrong] = OTHERS[wrong]
    losses = train(
        make_trainer(make_config(epochs=25, drops=(), **NO_AUGMENTATION), given=labels), labels, 1.0, 0
    ).cumulative_loss
    assert set(losses.topk(len(wrong)).indices.tolist()) == set(wrong.tolist())
    assert float(losses.sum()) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("flip", [True, False])
def test_features_are_pooled_and_averaged_over_the_mirror_image(flip: bool) -> None:
    config = make_config(**{**NO_AUGMENTATION, "flip": flip})
    trained = train(make_trainer(config), LABELS, 1.0, 0)
    model = trained.model
    maps: list[Tensor] = []
    model.net.get_submodule("stage3").register_forward_hook(lambda *parts: maps.append(parts[2]))
    with torch.no_grad():
        model(normalised())
        model(normalised().flip(3))
    plain, mirrored = (each.mean((2, 3)) for each in maps)
    assert trained.features.dtype == torch.float32
    assert not trained.features.requires_grad
    torch.testing.assert_close(trained.features, (plain + mirrored) / 2 if flip else plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("samples", "batch_size", "sizes"),
    [(5, 2, [3, 2]), (7, 3, [3, 2, 2]), (33, 32, [17, 16]), (4, 512, [4]), (3, 2, [3]), (6, 2, [2, 2, 2]), (1, 2, [1])],
)
def test_batches_are_of_even_size_and_none_is_of_a_single_sample(
    samples: int, batch_size: int, sizes: list[int]
) -> None:
    diary = Diary()
    size = 4 if samples > 1 else SIZE  # whose last map has a single pixel: BatchNorm needs two samples
    trainer = make_trainer(
        make_config(epochs=1, batch_size=batch_size),
        images=IMAGES[:samples, :size, :size].contiguous(),
        rows=range(samples),
        given=LABELS[:samples],
        model=lambda: new_model(size),
        diary=diary,
    )
    trained = train(trainer, LABELS[:samples], 1.0, 0)
    assert diary.advances == [0, *sizes]
    assert trained.features.shape == (samples, 32)


def test_progress_is_told() -> None:
    diary = Diary()
    labels = LABELS.clone()
    labels[:4] = -1
    trainer = make_trainer(make_config(), diary=diary)
    train(trainer, labels, 1.0, 1)
    train(trainer, LABELS, 0.0, 2)
    assert diary.stages == [("episode 2 of 2", 3 * 36, "images"), ("final training", 3 * 40, "images")]
    assert sum(diary.advances) == 3 * 36 + 3 * 40
    assert [(report.episode, report.epoch) for report in diary.reports] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
        (2, 2),
    ]
    for report, samples in zip(diary.reports, [36] * 3 + [40] * 3, strict=True):
        assert math.isfinite(report.loss)
        assert report.images_per_second * report.seconds == pytest.approx(samples)


@pytest.mark.parametrize(("episode", "name"), [(1, "episode 2 of 2"), (2, "final training")])
def test_a_loss_that_is_no_number_names_the_learning_rate(episode: int, name: str) -> None:
    def broken() -> Backbone:
        model = new_model()
        nn.init.constant_(model.get_parameter("net.head.bias"), torch.nan)
        return model

    with pytest.raises(MachineError, match=f"diverged in epoch 1 of {name}; try a lower `lr` than 0.01"):
        train(make_trainer(make_config(), model=broken), LABELS, 1.0, episode)


def test_features_that_are_no_numbers_name_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(images), CLASSES), torch.full((len(images), 4), torch.inf)

    monkeypatch.setattr(Backbone, "logits_and_features", broken)
    with pytest.raises(MachineError, match=r"diverged in episode 1 of 2; try a lower `lr` than 0\.01"):
        train(make_trainer(make_config()), LABELS, 1.0, 0)


def test_probabilities_too_small_for_half_precision_name_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def over_sure(_: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
        return 1e6 * torch.eye(CLASSES)[torch.zeros(len(images), dtype=torch.int64)], torch.ones(len(images), 4)

    monkeypatch.setattr(Backbone, "logits_and_features", over_sure)
    with pytest.raises(MachineError, match=r"diverged in episode 1 of 2; try a lower `lr` than 0\.01"):
        train(make_trainer(make_config()), LABELS, 1.0, 0)


def test_bf16_gives_float32_results_near_those_of_fp32() -> None:
    config = make_config(epochs=1, batch_size=SAMPLES)
    trained: list[Trained] = [train(make_trainer(config, bf16=bf16), LABELS, 1.0, 0) for bf16 in (False, True)]
    plain, mixed = trained
    assert mixed.features.dtype == mixed.cumulative_loss.dtype == torch.float32
    assert not torch.equal(plain.features, mixed.features)
    torch.testing.assert_close(mixed.cumulative_loss, plain.cumulative_loss, atol=0.2, rtol=0)


def certain(labels: Tensor) -> Callable[[Tensor], Tensor]:
    return nn.functional.one_hot(labels.clamp_min(0), CLASSES).half().__getitem__


def test_targets_that_are_certain_are_trained_on_as_labels_are() -> None:
    config = make_config(optimizer="sgd")
    as_labels = train(make_trainer(config, given=OTHERS), LABELS, 0.0, 0)
    as_targets = train_on_targets(
        make_trainer(config, given=OTHERS), torch.arange(SAMPLES), certain(LABELS), 0, robust=True, stretch=1
    )
    torch.testing.assert_close(as_targets.features, as_labels.features, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(as_targets.log_probabilities, as_labels.log_probabilities, atol=1e-2, rtol=1e-2)
    assert not torch.equal(as_targets.cumulative_loss, as_labels.cumulative_loss)  # of the given labels


def test_the_loss_that_is_kept_is_that_of_the_given_labels() -> None:
    config = make_config(epochs=1, batch_size=SAMPLES, optimizer="sgd", **NO_AUGMENTATION)
    given = OTHERS.clone()
    given[::4] = -1
    found = train_on_targets(
        make_trainer(config, given=given), torch.arange(SAMPLES), certain(LABELS), 0, robust=True, stretch=1
    )
    logits = new_model().train()(normalised())
    losses = losses_by_hand(logits, torch.where(given >= 0, given, LABELS)).detach()
    torch.testing.assert_close(found.cumulative_loss.double(), losses - losses.mean(), atol=1e-3, rtol=1e-3)


def test_a_loss_that_need_not_be_robust_is_cross_entropy() -> None:
    rows, targets = torch.arange(SAMPLES), certain(LABELS)
    robust, plain = (
        train_on_targets(make_trainer(make_config()), rows, targets, 0, robust=it, stretch=1).features
        for it in (True, False)
    )
    as_ce = train_on_targets(make_trainer(make_config(loss="ce")), rows, targets, 0, robust=True, stretch=1).features
    assert not torch.equal(robust, plain)
    assert torch.equal(as_ce, plain)


def test_targets_are_learnt_for_as_many_times_the_epochs_as_asked_for() -> None:
    diary, rows = Diary(), torch.arange(0, SAMPLES, 2)
    train_on_targets(make_trainer(make_config(), diary=diary), rows, certain(LABELS), 0, robust=True, stretch=2)
    assert diary.stages == [("episode 1 of 2", 6 * 20, "images")]
    assert [report.epoch for report in diary.reports] == list(range(6))


def test_log_probabilities_are_those_of_the_network_averaged_over_mirror_images() -> None:
    trainer = make_trainer(make_config())
    model = train(trainer, LABELS, 1.0, 0).model
    _, found = trainer.inspect(model)
    with torch.no_grad():
        views = [model.eval()(images).log_softmax(1) for images in (normalised(), normalised().flip(3))]
    expected = torch.stack(views).mean(0).log_softmax(1)
    torch.testing.assert_close(found.float(), expected, atol=5e-3, rtol=5e-3)


class SmallGpu(Backbone):
    """Holds ten images, and has no BatchNorm, so that parts of a batch give what the whole gives."""

    def __init__(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
        spec = BackboneSpec(name="cnn5", classes=CLASSES, image_size=SIZE, width=1.0, layer=None)
        super().__init__(net, spec, Tap("1"))

    room = 10

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError
        return super().forward(x)


class LargeGpu(SmallGpu):
    room = 1000


def test_batches_that_do_not_fit_are_cut_and_give_the_same() -> None:
    def seeded(kind: type[Backbone]) -> Callable[[], Backbone]:
        def make() -> Backbone:
            torch.manual_seed(0)
            return kind()  # type: ignore[call-arg]

        return make

    diary = Diary(expected_notes=r"the GPU ran out of memory: from now on, batches are split into \d parts.*")
    config = make_config(batch_size=21)
    small = make_trainer(config, model=seeded(SmallGpu), diary=diary)
    found, expected = fit(small), fit(make_trainer(config, model=seeded(LargeGpu)))
    assert diary.notes == 2
    assert small.memory.parts == 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("parts", "at_hand", "replayed"),
    [(1, True, True), (2, True, False), (1, False, False)],
    ids=["whole batches", "parts", "copied by another thread"],
)
def test_graphs_are_for_whole_batches_of_images_at_hand(
    parts: int, at_hand: bool, replayed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(epochs=15, batch_size=20)
    trainer = make_trainer(config)
    trainer.memory.parts = parts
    if not at_hand:
        trainer = dataclasses.replace(trainer, pixels=dataclasses.replace(trainer.pixels, read_ahead=lambda _: None))
    expected, replays = fit(trainer), []

    def capture(module: Logits, example: Tensor) -> Callable[[Tensor], Tensor]:
        module(example)

        def replay(images: Tensor) -> Tensor:
            replays.append(len(images))
            logits: Tensor = module(images)
            return logits

        return replay

    monkeypatch.setattr(trainer_module, "graphed", lambda logits, _: Graphs(logits, capture))
    found = fit(trainer)
    assert bool(replays) is replayed
    assert set(replays) <= {20}
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
