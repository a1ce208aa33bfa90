import pytest

from noisyknn.config import Config, make_config
from noisyknn.errors import UsageError
from noisyknn.presets import PRESETS, auto_settings, describe, overridden, preset_settings
from noisyknn.training.schedule import image_size


def auto(
    *,
    method: str = "crossfit",
    rows: int = 5000,
    classes: int = 10,
    size: int = 32,
    grey: bool = False,
    gpu: bool = False,
) -> tuple[Config, str]:
    settings, reason = preset_settings("auto", method=method, rows=rows, classes=classes, size=size, grey=grey, gpu=gpu)
    return make_config(settings), reason


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_of_the_paper_does_not_look_at_the_data(name: str) -> None:
    settings, reason = preset_settings(name, method="crossfit", rows=4, classes=2, size=500, grey=True, gpu=True)
    assert settings == PRESETS[name]
    assert reason == f"preset {name}, as in the paper"


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        ("ce", {"loss": "sce", "episodes": 7}, {"loss": "ce", "episodes": 1, "lr": 1e-3, "policy": "paper"}),
        ("sl", {"loss": "ce"}, {"loss": "sce", "episodes": 1, "alpha": 0.1}),
        ("joint-optimization", {}, {"episodes": 1, "optimizer": "sgd", "lr": 0.08, "batch_size": 128}),
        ("pencil", {"lr": 0.03, "optimizer": "adam"}, {"episodes": 1, "lr": 0.03, "optimizer": "adam"}),
        ("deep-knn", {"policy": "careful", "k": 7}, {"policy": "paper", "episodes": 1, "k": 7}),
    ],
)
def test_a_baseline_is_what_its_source_says(
    method: str, overrides: dict[str, object], expected: dict[str, object]
) -> None:
    settings, _ = preset_settings("cifar10", method=method, rows=4, classes=2, size=8, grey=True, gpu=False)
    config = overridden(settings, {"method": method, **overrides})
    assert {name: getattr(config, name) for name in expected} == expected


def test_baselines_apply_what_they_say_unless_told_otherwise() -> None:
    for method in ("ce", "sl", "joint-optimization", "pencil", "deep-knn"):
        config, _ = auto(method=method)
        assert config.policy == "paper"
    assert auto(method="selknn")[0].policy == "careful"
    settings, _ = preset_settings("auto", method="sl", rows=500, classes=4, size=32, grey=False, gpu=False)
    assert overridden(settings, {"method": "sl", "policy": "careful"}).policy == "careful"


def test_a_value_of_no_effect_is_checked_all_the_same() -> None:
    with pytest.raises(UsageError, match="`episodes` 0 is out of range"):
        overridden({}, {"method": "ce", "episodes": 0})


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="`preset` 'cifar' is not one of auto, mnist, cifar10, cifar100, clothing1m"):
        preset_settings("cifar", method="selknn", rows=4, classes=2, size=8, grey=True, gpu=False)


@pytest.mark.parametrize("rows", [2, 48, 1797, 10_000, 60_000, 10_000_000])
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("size", [1, 28, 224, 10_000])
@pytest.mark.parametrize("gpu", [False, True])
def test_auto_is_a_valid_configuration_for_data_of_any_kind(rows: int, classes: int, size: int, gpu: bool) -> None:
    config, _ = auto(rows=rows, classes=classes, size=size, gpu=gpu)
    assert 4 <= config.image_size <= 128
    assert config.epochs >= 1
    assert config.episodes >= 1


def test_auto_never_asks_for_more_neighbours_than_vote() -> None:
    assert [auto(rows=rows, classes=2)[0].k for rows in (4, 6, 8, 12, 40)] == [1, 2, 3, 3, 5]


def test_auto_says_what_it_saw() -> None:
    assert auto(rows=1797, size=8, grey=True)[1] == (
        "preset auto: 1,797 labels, 10 classes, grey images of about 8 pixels, on the CPU"
    )
    assert auto(rows=12, classes=3, gpu=True)[1] == (
        "preset auto: 12 labels, 3 classes, colour images of about 32 pixels, on a GPU"
    )


def test_auto_trains_no_more_on_many_rows_than_it_can_afford() -> None:
    images = [config.epochs * rows for rows in (20_000, 40_000, 60_000) for config, _ in [auto(rows=rows)]]
    assert max(images) <= 1.5 * min(images)
    pixels = [
        config.epochs * config.image_size**2 for size in (32, 64, 500) for config, _ in [auto(rows=20_000, size=size)]
    ]
    assert max(pixels) <= 2 * min(pixels)


def test_auto_begins_the_episodes_of_crossfit_with_small_images() -> None:
    assert auto()[0].progressive
    assert not auto(method="selknn")[0].progressive
    assert not auto(size=16)[0].progressive
    config = auto(rows=20_000)[0]
    sizes = [image_size(config, epoch, config.epochs) for epoch in range(config.epochs)]
    work = sum(size**2 for size in sizes) / 32**2  # in epochs of full size
    assert work == pytest.approx(9.0, abs=0.3)


def test_auto_told_not_to_be_progressive_takes_as_long() -> None:
    settings, _ = preset_settings("auto", method="crossfit", rows=20_000, classes=10, size=32, grey=False, gpu=False)
    assert overridden(settings, {}).epochs == 16
    assert overridden(settings, {"progressive": False}).epochs == 9
    assert overridden(settings, {"progressive": False, "epochs": 9}).epochs == 9


def test_auto_takes_a_larger_network_and_image_on_a_gpu() -> None:
    on_cpu, on_gpu = (auto(size=224, gpu=gpu)[0] for gpu in (False, True))
    assert on_gpu.image_size > on_cpu.image_size
    assert on_gpu.width > on_cpu.width == 1


def test_the_width_of_auto_is_for_its_own_network() -> None:
    settings, _ = preset_settings("auto", method="crossfit", rows=500, classes=4, size=32, grey=False, gpu=True)
    assert overridden(settings, {"backbone": "preact_resnet18"}).width == 1
    assert overridden(settings, {"backbone": "preact_resnet18", "width": 0.5}).width == 0.5
    assert overridden(settings, {"backbone": "cnn8"}).width == overridden(settings, {}).width > 1
    assert "cnn8 of width 4 at" in describe(overridden(settings, {}))


def test_the_smallest_images_of_a_longer_first_episode_are_told() -> None:
    settings, _ = preset_settings("auto", method="crossfit", rows=500, classes=4, size=32, grey=False, gpu=False)
    assert "at 16 to 32 pixels" in describe(overridden(settings, {"epochs": 2}))


def test_auto_does_not_mirror_what_may_be_characters() -> None:
    assert auto(grey=True)[0].flip is False
    assert auto(grey=False)[0].flip is True


@pytest.mark.parametrize(("rows", "classes"), [(48, 3), (600, 10), (5000, 10), (5000, 100), (50_000, 10)])
def test_auto_asks_fewer_neighbours_than_a_class_has_voters(rows: int, classes: int) -> None:
    config, _ = auto(rows=rows, classes=classes)
    assert 1 <= config.k <= max(3, config.reference_start * rows / classes)


def test_classes_of_a_handful_of_rows_are_learnt_for_longer() -> None:
    assert auto(rows=70, classes=10)[0].epochs > auto(rows=80, classes=10)[0].epochs


def test_more_rows_never_mean_fewer_neighbours_or_smaller_batches() -> None:
    configs = [
        auto_settings(method="crossfit", rows=rows, classes=10, size=32, grey=False, gpu=False)[0]
        for rows in range(20, 9000, 50)
    ]
    for name in ("k", "batch_size"):
        values = [make_config(config).__dict__[name] for config in configs]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_the_paper_applies_every_vote_and_auto_does_not() -> None:
    assert {overridden(preset, {}).policy for preset in PRESETS.values()} == {"paper"}
    assert auto(rows=500)[0].policy == "careful"


def test_a_preset_cut_to_other_epochs_keeps_the_shape_of_its_schedule() -> None:
    assert overridden({}, {"epochs": 12}).drops == (6, 9)
    assert overridden(PRESETS["cifar100"], {"epochs": 60}).drops == (40, 60)
    assert overridden({}, {"epochs": 2}).drops == (1, 2)
    assert overridden({}, {"epochs": 12, "drops": [5]}).drops == (5,)
    assert overridden({}, {"lr": 0.1}).drops == (60, 90)


def test_a_preset_cut_to_few_episodes_takes_as_many_folds() -> None:
    settings, _ = auto_settings(method="crossfit", rows=500, classes=4, size=32, grey=False, gpu=False)
    assert [overridden(settings, {"episodes": episodes}).folds for episodes in (2, 3, 4, 5, 20)] == [2, 3, 4, 4, 4]
    assert overridden(settings, {"episodes": 7, "folds": 6}).folds == 6
    assert [overridden(settings, {"folds": folds}).episodes for folds in (2, 5, 10)] == [5, 5, 10]
    assert overridden({"method": "selknn", "episodes": 2}, {"folds": 3}).episodes == 2  # folds are nothing to it
    for refused, told in (
        ({"episodes": 1}, "`episodes` 1 is too few"),
        ({"episodes": 3, "folds": 4}, "than `folds` 4"),
    ):
        with pytest.raises(UsageError, match=told):
            overridden(settings, refused)


def test_the_description_names_the_papers_settings() -> None:
    text = describe(overridden(PRESETS["cifar10"], {}))
    for part in ("selknn", "k = 100", "M = 20%", "10%", "preact_resnet32", "10 × 120 epochs", "512", "adam", "0.001",
                 "60 and 90", "symmetric cross-entropy (α 0.1, β 1, A -9.21)", "γ 1 divided by 1.2"):  # fmt: skip
        assert part in text
    assert "10,000 labels of each class vote" in describe(overridden(PRESETS["clothing1m"], {}))
    assert "all labels vote" in describe(overridden({}, {"method": "iterknn"}))
    assert "cnn8 at 16 to 32 pixels" in describe(auto()[0])
    assert "one-cycle" in describe(overridden({}, {"schedule": "one-cycle", "loss": "ce"}))
