"""No harm to labels that are right, and probabilities that mean what they say, over whole runs."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import noisyknn
from noisyknn.data.noise import inject, transition_rows
from noisyknn.demo import write_digits
from noisyknn.evaluation import metrics
from tests.small_data import FAST_SETTINGS, Listening, draw

LONGER = {**FAST_SETTINGS, "epochs": 6}


def test_a_class_of_five_rows_among_hundreds_is_not_swallowed(tmp_path: Path) -> None:
    table = draw(tmp_path / "images", rows=360).assign(label=lambda frame: frame["clean_label"])
    rare = table["label"] == "red"
    table = pd.concat([table[~rare], table[rare][:5]], ignore_index=True)
    fixed = noisyknn.clean(tmp_path / "images", table, **LONGER).table
    assert (fixed["corrected_label"] == fixed["label"]).all()


def test_two_classes_are_enough(tmp_path: Path) -> None:
    table = draw(tmp_path / "images", rows=90)
    table = table[table["clean_label"] != "red"].assign(
        label=lambda frame: frame["clean_label"].where(np.arange(len(frame)) % 5 > 0, "blue")
    )
    fixed = noisyknn.clean(tmp_path / "images", table, **LONGER).table
    right = fixed["label"] == fixed["clean_label"]
    assert 0.8 < right.mean() < 0.95
    assert (fixed["corrected_label"] == fixed["label"])[right].all()
    assert fixed["label_score"][~right].max() < fixed["label_score"][right].median()


def test_a_class_for_every_two_rows(tmp_path: Path) -> None:
    table = draw(tmp_path / "images", rows=120).assign(label=lambda frame: [f"class {row // 2}" for row in frame.index])
    result = noisyknn.clean(tmp_path / "images", table, **{**FAST_SETTINGS, "k": 2})
    assert len(result.summary["classes"]) == 60
    assert result.table["confidence"].between(0, 1).all()


def test_right_labels_of_many_classes_with_two_rows_each_are_kept(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    patterns = generator.integers(40, 215, (60, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    (tmp_path / "images").mkdir()
    for row in range(120):
        pixels = patterns[row // 2] + generator.normal(0, 25, (16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "images" / f"{row:03}.png")
    table = pd.DataFrame({"path": [f"{row:03}.png" for row in range(120)], "label": [row // 2 for row in range(120)]})
    fixed = noisyknn.clean(tmp_path / "images", table).table
    assert (fixed["corrected_label"] == fixed["label"]).mean() >= 0.98


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.8, 0.1, 0.1)])
def test_labels_at_random_are_neither_changed_nor_believed(tmp_path: Path, shares: tuple[float, ...]) -> None:
    table = draw(tmp_path / "images", rows=240)
    table["label"] = np.random.default_rng(0).choice(["red", "green", "blue"], len(table), p=shares)
    listening = Listening()
    result = noisyknn.clean(tmp_path / "images", table, observer=listening, **FAST_SETTINGS)
    assert (result.table["corrected_label"] == result.table["label"]).all()
    expected = 0.5 + 0.5 * sum(share**2 for share in shares)
    assert result.table["confidence"].mean() == pytest.approx(expected, abs=0.12)
    assert any(
        "the labels look unrelated to the images" in note and "no label is corrected" in note
        for note in listening.notes
    )


def test_copies_of_an_image_do_not_vouch_for_each_others_label(tmp_path: Path) -> None:
    once = draw(tmp_path / "images", rows=240).assign(label=lambda frame: frame["clean_label"])
    wrong = once.index % 5 == 0
    once.loc[wrong, "label"] = once["clean_label"].map({"red": "green", "green": "blue", "blue": "red"})[wrong]
    tables = [once]
    for copy in range(1, 4):
        tables.append(once.assign(path=[f"{copy}-{path}" for path in once["path"]]))
        for path in once["path"]:
            shutil.copy(tmp_path / "images" / path, tmp_path / "images" / f"{copy}-{path}")
    result = noisyknn.clean(tmp_path / "images", pd.concat(tables, ignore_index=True), **{**LONGER, "loss": "sce"})
    assert (result.table["corrected_label"] == result.table["clean_label"]).mean() > 0.95
    assert result.summary["estimated_noise_rate"] == pytest.approx(0.2, abs=0.05)


def test_copies_of_an_image_agree_on_its_label(tmp_path: Path) -> None:
    """Each image five times, of whose labels one is wrong and one is missing."""
    once = draw(tmp_path / "images", rows=120)
    other = once["clean_label"].map({"red": "green", "green": "blue", "blue": "red"})
    tables = []
    for copy in range(5):
        labels = other if copy == 0 else once["clean_label"]
        tables.append(once.assign(path=[f"{copy}-{path}" for path in once["path"]], label=labels))
        for path in once["path"]:
            shutil.copy(tmp_path / "images" / path, tmp_path / "images" / f"{copy}-{path}")
    tables[4]["label"] = None
    fixed = noisyknn.clean(tmp_path / "images", pd.concat(tables, ignore_index=True), **LONGER).table
    of_image = fixed.assign(image=fixed["path"].str[2:]).groupby("image")
    assert (of_image["corrected_label"].nunique() == 1).mean() > 0.95
    assert (fixed["corrected_label"] == fixed["clean_label"]).mean() > 0.95
    known = fixed[fixed["label"].notna()].assign(image=fixed["path"].str[2:]).drop_duplicates(["image", "label"])
    assert known.groupby("image")["label_score"].sum().max() <= 1 + 1e-5


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "right", "broken", "error"), [(0.0, 0.998, 0.002, 0.02), (0.1, 0.99, 0.005, 0.02), (0.4, 0.95, 0.02, 0.05)]
)
def test_digits_are_mended_and_the_probabilities_hold(
    digits: Path, rate: float, right: float, broken: float, error: float
) -> None:
    table = pd.read_csv(digits / "labels.csv")
    truth = table["clean_label"].to_numpy()
    table["label"] = inject(truth, transition_rows("symmetric", list(range(10)), rate), seed=1)
    result = noisyknn.clean(digits / "images", table)
    given, corrected = (result.table[name].to_numpy() for name in ("label", "corrected_label"))
    found = metrics.evaluate(truth, given, corrected, confidence=result.table["confidence"].to_numpy())
    assert found.recovery >= right
    assert found.broken <= broken
    assert found.calibration_error is not None
    assert found.calibration_error <= error
    assert result.summary["estimated_noise_rate"] == pytest.approx(np.mean(given != truth), abs=0.04)
