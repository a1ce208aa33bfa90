import itertools

import pytest

from noisyknn.config import make_config
from noisyknn.presets import PRESETS
from noisyknn.training.schedule import cyclic_rate, image_size, learning_rate, smaller_sizes, stretched


@pytest.mark.parametrize(
    ("preset", "rates"),
    [
        ("mnist", {0: 1e-3, 19: 1e-3, 20: 1e-4, 29: 1e-4, 30: 1e-5, 39: 1e-5}),
        ("cifar10", {0: 1e-3, 59: 1e-3, 60: 1e-4, 89: 1e-4, 90: 1e-5, 119: 1e-5}),
        ("cifar100", {0: 1e-3, 79: 1e-3, 80: 1e-4, 119: 1e-4}),
        ("clothing1m", {0: 2e-3, 4: 2e-3, 5: 2e-4, 9: 2e-4, 10: 2e-5, 14: 2e-5}),
    ],
)
def test_steps_of_the_paper(preset: str, rates: dict[int, float]) -> None:
    config = make_config(PRESETS[preset])
    for epoch, rate in rates.items():
        assert [learning_rate(config, epoch, progress) for progress in (0, 0.5, 0.99)] == pytest.approx([rate] * 3)


def test_drops_may_be_in_any_order_or_none() -> None:
    config = make_config({"drops": [9, 3], "lr": 1.0, "epochs": 12})
    assert [learning_rate(config, epoch, 0) for epoch in (2, 3, 8, 9)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert learning_rate(make_config({"drops": [], "lr": 1.0}), 119, 0.9) == 1


@pytest.mark.parametrize("epochs", [1, 3, 8, 100])
def test_one_cycle_rises_then_falls_to_zero(epochs: int) -> None:
    config = make_config({"schedule": "one-cycle", "lr": 0.4, "epochs": epochs})
    steps = 400
    rates = [learning_rate(config, epoch, step / steps) for epoch in range(epochs) for step in range(steps)]
    peak = rates.index(max(rates))
    assert peak / len(rates) == pytest.approx(0.25, abs=1 / len(rates))
    assert rates[peak] == pytest.approx(0.4)
    rising, falling = rates[: peak + 1], [*rates[peak:], learning_rate(config, epochs - 1, 1.0)]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert min(rates) > 0
    assert falling[-1] == pytest.approx(0, abs=1e-9)
    jumps = [abs(after - before) for before, after in itertools.pairwise(rates)]
    assert max(jumps) < 1.01 * 0.4 / (0.25 * len(rates))  # continuous: no step is steeper than the slope


def test_one_cycle_by_hand() -> None:
    config = make_config({"schedule": "one-cycle", "lr": 0.3, "epochs": 8})
    places = [(0, 0.0), (0, 0.5), (1, 0.0), (2, 0.0), (5, 0.0), (7, 0.5)]
    rates = [learning_rate(config, *place) for place in places]
    assert rates == pytest.approx([0.012, 0.075, 0.15, 0.3, 0.15, 0.025])


@pytest.mark.parametrize("schedule", ["step", "one-cycle"])
def test_stretched_a_schedule_keeps_its_shape(schedule: str) -> None:
    config = make_config({"schedule": schedule, "epochs": 5, "drops": [2, 4]})
    longer = make_config({"schedule": schedule, "epochs": 8, "drops": [3, 6]})
    for epoch in range(8):
        assert learning_rate(config, epoch, 0.3, stretch=1.5) == learning_rate(longer, epoch, 0.3)
    assert stretched(5, 1.5) == 8
    assert stretched(1, 0.1) == 1


@pytest.mark.parametrize(
    ("size", "epochs", "expected"),
    [
        (32, 12, [16] * 4 + [24] * 5 + [32] * 3),
        (32, 3, [16, 24, 32]),
        (28, 10, [16] * 4 + [20] * 3 + [28] * 3),
        (64, 2, [48, 64]),
        (64, 1, [64]),
        (12, 3, [8, 8, 12]),
        (6, 3, [6, 6, 6]),
    ],
)
def test_a_progressive_episode_begins_with_smaller_images(size: int, epochs: int, expected: list[int]) -> None:
    config = make_config({"image_size": size, "epochs": epochs, "progressive": True})
    assert [image_size(config, epoch, epochs) for epoch in range(epochs)] == expected


def test_otherwise_all_images_are_of_one_size() -> None:
    config = make_config({"image_size": 32, "epochs": 9})
    assert {image_size(config, epoch, 9) for epoch in range(9)} == {32}


@pytest.mark.parametrize(("size", "expected"), [(32, [16, 24]), (12, [8]), (6, [])])
def test_sizes_that_an_episode_may_begin_with(size: int, expected: list[int]) -> None:
    assert smaller_sizes(make_config({"image_size": size, "progressive": True})) == expected
    assert smaller_sizes(make_config({"image_size": size})) == []


def test_a_cycle_falls_from_the_rate_to_a_tenth_of_it() -> None:
    config = make_config({"epochs": 4, "lr": 0.01, "drops": (2,)})
    rates = [cyclic_rate(config, epoch, 0.5) for epoch in range(14)]
    assert rates[:4] == [learning_rate(config, epoch, 0.5) for epoch in range(4)]
    assert rates[4:] == pytest.approx([0.01 - 0.001 * step for step in range(10)])
