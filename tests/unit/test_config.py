import dataclasses
import inspect
import math
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from noisyknn.config import Config, PresetName, make_config, read_config
from noisyknn.errors import UsageError
from noisyknn.methods.spec import unused_settings
from noisyknn.presets import PRESETS

SHARES = {"reference_start", "reference_step"}
MIXED = {"gamma", "gamma_decay"}
BASELINES = {"prior_weight", "entropy_weight", "compatibility_weight", "label_rate", "later_rate"}
SELKNN = {"references_per_class", "selector", *SHARES}
VOTES = {"k", "search", "layer"}
SCE = {"alpha", "beta", "log_zero"}


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        ({"method": "crossfit", "policy": "careful"}, MIXED | SELKNN | BASELINES),
        ({"method": "selknn"}, {"folds", "min_confidence"} | BASELINES),
        ({"method": "iterknn", "policy": "careful"}, {"folds"} | SELKNN | BASELINES),
        ({"references_per_class": 9, "policy": "careful"}, {"folds"} | SHARES | BASELINES),
        ({"loss": "ce", "schedule": "one-cycle"}, {"folds", "min_confidence", "drops"} | SCE | BASELINES),
        (
            {"method": "sl", "policy": "careful"},
            {"folds", "episodes", "loss"} | MIXED | SELKNN | VOTES | BASELINES,
        ),
        (
            {"method": "deep-knn"},
            {"folds", "episodes", "policy", "min_confidence", "layer"} | MIXED | SELKNN | BASELINES,
        ),
        (
            {"method": "pencil", "policy": "careful"},
            {"folds", "episodes", "prior_weight", "schedule", "drops", "loss", "label_smoothing"}
            | (MIXED | SELKNN | VOTES | SCE),
        ),
        (
            {"method": "joint-optimization", "policy": "careful"},
            {"folds", "episodes", "compatibility_weight", "label_rate", "schedule", "drops", "loss", "label_smoothing"}
            | (MIXED | SELKNN | VOTES | SCE),
        ),
    ],
)
def test_what_has_no_effect_beside_the_other_settings_is_known(settings: dict[str, object], unused: set[str]) -> None:
    assert unused_settings(make_config(settings)) == unused


def test_a_loss_of_no_weight_is_refused() -> None:
    with pytest.raises(UsageError, match="`alpha` and `beta` are both 0, so the loss is 0"):
        make_config({"alpha": 0, "beta": 0})
    assert make_config({"alpha": 0, "beta": 0, "loss": "ce"}).alpha == 0


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("lr", 1, 1.0),
        ("lr", 0.5, 0.5),
        ("lr", np.float32(0.5), 0.5),
        ("epochs", 3, 3),
        ("epochs", np.int64(3), 3),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("flip", False, False),
        ("backbone", "resnet18", "resnet18"),
        ("loss", "ce", "ce"),
        ("drops", [5, 10], (5, 10)),
        ("drops", [], ()),
        ("weights", None, None),
        ("weights", "DEFAULT", "DEFAULT"),
        ("store_size", None, None),
        ("store_size", 40, 40),
        ("references_per_class", 7, 7),
    ],
)
def test_values_take_the_type_of_their_field(name: str, value: object, stored: object) -> None:
    found = getattr(make_config({name: value}), name)
    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", True, "`epochs` True is not a whole number"),
        ("epochs", 3.0, "`epochs` 3.0 is not a whole number"),
        ("epochs", "3", "`epochs` '3' is not a whole number"),
        ("epochs", None, "`epochs` None is not a whole number"),
        ("lr", True, "`lr` True is not a finite number"),
        ("lr", math.nan, "`lr` nan is not a finite number"),
        ("lr", math.inf, "`lr` inf is not a finite number"),
        ("log_zero", -math.inf, "`log_zero` -inf is not a finite number"),
        ("lr", "0.1", "`lr` '0.1' is not a finite number"),
        ("flip", 1, "`flip` 1 is not true or false"),
        ("flip", "yes", "`flip` 'yes' is not true or false"),
        ("backbone", 18, "`backbone` 18 is not text"),
        ("backbone", None, "`backbone` None is not text"),
        ("weights", 1, "`weights` 1 is not text"),
        ("store_size", "40", "`store_size` '40' is not a whole number"),
        ("references_per_class", True, "`references_per_class` True is not a whole number"),
        ("method", 1, "`method` 1 is not text"),
        ("schedule", "one_cycle", "`schedule` 'one_cycle' is not one of step, one-cycle"),
        ("drops", 60, "`drops` 60 is not a list of whole numbers"),
        ("drops", "60", "`drops` '60' is not a list of whole numbers"),
        ("drops", [60, 9.5], "`drops` 9.5 is not a whole number"),
        ("drops", [True], "`drops` True is not a whole number"),
        ("drops", [10, 0], "`drops` 0 is out of range"),
        ("epochs", 0, r"`epochs` 0 is out of range \(1 to 100000\)"),
        ("image_size", 3, "`image_size` 3 is out of range"),
        ("reference_start", 0, "`reference_start` 0.0 is out of range"),
        ("label_smoothing", 0.95, "`label_smoothing` 0.95 is out of range"),
        ("log_zero", 1, "`log_zero` 1.0 is out of range"),
        ("references_per_class", 0, "`references_per_class` 0 is out of range"),
        ("store_size", 31, "`image_size` 32 is larger than `store_size` 31"),
    ],
)
def test_a_wrong_value_names_the_option_and_what_it_must_be(name: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        make_config({name: value})


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(UsageError, match="`lr`"):
        make_config({"lr": 10**400})


def test_direct_construction_and_replacement_are_checked_as_well() -> None:
    with pytest.raises(UsageError, match="`lr` nan"):
        Config(lr=math.nan)
    with pytest.raises(UsageError, match="`k` 0 "):
        dataclasses.replace(Config(), k=0)
    assert Config(lr=1) == make_config({"lr": 1})


def test_limits_themselves_are_allowed() -> None:
    config = make_config({"epochs": 1, "translation": 1, "jitter": 0, "gamma_decay": 1, "store_size": 32})
    assert (config.epochs, config.translation, config.store_size) == (1, 1.0, 32)


def test_unknown_settings_are_named_beside_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown setting colour, momentum; choose from method, policy,") as caught:
        make_config({"colour": 3, "k": 5, "momentum": 0.9})
    assert "references_per_class" in str(caught.value)


def test_a_misspelt_setting_is_told_its_neighbour() -> None:
    with pytest.raises(UsageError, match=r"unknown setting Epochs; did you mean epochs\?"):
        make_config({"Epochs": 3})


def test_defaults_are_the_cifar10_settings_of_the_paper() -> None:
    config = make_config(PRESETS["cifar10"])
    assert config == Config()
    assert (config.method, config.loss, config.alpha, config.beta) == ("selknn", "sce", 0.1, 1.0)
    assert (config.episodes, config.gamma, config.gamma_decay, config.k) == (10, 1.0, 1.2, 100)
    assert (config.reference_start, config.reference_step) == (0.2, 0.1)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_configuration_of_its_values(preset: str) -> None:
    config = make_config(PRESETS[preset])
    assert all(getattr(config, name) == value for name, value in PRESETS[preset].items())


def test_presets_are_the_ones_that_can_be_named() -> None:
    assert {"auto", *PRESETS} == set(get_args(PresetName))


def test_every_field_has_a_line_of_documentation() -> None:
    lines = [line.strip() for line in inspect.getsource(Config).splitlines()]
    for field in dataclasses.fields(Config):
        (at,) = (i for i, line in enumerate(lines) if line.startswith(f"{field.name}:"))
        assert lines[at + 1].startswith('"""'), field.name


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().k = 5  # type: ignore[misc]


def test_a_toml_file_gives_settings_under_names_with_dashes_or_underscores(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('batch-size = 64\nimage_size = 64\ndrops = [5, 10]\nloss = "ce"\nflip = false\nlr = 1\n')
    config = make_config(read_config(path))
    assert config == Config(batch_size=64, image_size=64, drops=(5, 10), loss="ce", flip=False, lr=1.0)


def test_a_toml_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbfk = 5\r\n")
    assert read_config(path) == {"k": 5}


@pytest.mark.parametrize("content", [b"k = ", b"k 5", b"k = 1\nk = 2", b'backbone = "\xff"', b"\x00"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"`config` .*run\.toml is not valid TOML"):
        read_config(path)


@pytest.mark.parametrize(("name", "reason"), [("missing.toml", "No such file"), ("", "Is a directory")])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"`config` .* cannot be read: {reason}"):
        read_config(tmp_path / name)


@pytest.mark.parametrize("line", ["lr = nan", "lr = inf", "epochs = 10.0", "k = true", "drops = [1979-05-27]"])
def test_values_that_toml_allows_and_settings_do_not(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(line)
    with pytest.raises(UsageError, match=f"^`{line.split()[0]}` "):
        make_config(read_config(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[clean]\nlr = 0.1\n", "settings have no sections; remove [clean]"),
        ('"batch-size" = 16\nbatch_size = 8\n', "sets batch_size twice, once with - and once with _"),
    ],
)
def test_a_file_of_settings_says_each_once_and_without_a_section(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_config(path)
