import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisyknn.config import Config
from noisyknn.data.table import LabelTable, read_labels
from noisyknn.errors import InputError, MachineError, UsageError
from noisyknn.observer import Silent
from noisyknn.preparation import Job, check_labels, identify, prepare, read_truth
from tests.small_data import Listening, draw


def table_of(**columns: object) -> LabelTable:
    (first, *_) = columns.values()
    assert isinstance(first, list)
    return read_labels(pd.DataFrame({"path": [f"{row:02d}.png" for row in range(len(first))], **columns}))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw(tmp_path / "images", rows=12)
    return tmp_path / "images"


def job_of(images: Path, **settings: Any) -> Job:
    table = table_of(label=["a", "b", "c"] * 4)
    overrides = {"backbone": "cnn5", "width": 0.25, "device": "cpu", **settings}
    return prepare(table, images, None, "auto", overrides, Silent())


def test_a_class_that_may_be_misspelt_is_told_of(images: Path) -> None:
    listening = Listening()
    labels = ["square"] * 45 + ["circle"] * 45 + ["sqaure"] * 2
    frame = pd.DataFrame({"path": [f"{row:02d}.png" for row in range(92)], "label": labels})
    prepare(read_labels(frame), images, None, "auto", {}, listening)
    assert listening.notes[-1] == "classes much rarer than the others: 'sqaure' (2 rows); correct any that are misspelt"


def test_classes_that_differ_in_capitals_only_are_told_of(images: Path) -> None:
    listening = Listening()
    labels = ["square"] * 30 + ["Circle"] * 31 + ["circle"] * 31
    frame = pd.DataFrame({"path": [f"{row:02d}.png" for row in range(92)], "label": labels})
    prepare(read_labels(frame), images, None, "auto", {}, listening)
    told = "classes that differ only in capital letters: Circle, circle; make those alike that are the same"
    assert listening.notes[-1] == told


def test_tiny_classes_are_told_of(images: Path) -> None:
    listening = Listening()
    for rows, told in ((9, True), (10, False)):
        frame = pd.DataFrame({"path": [f"{row:02d}.png" for row in range(3 * rows)], "label": ["a", "b", "c"] * rows})
        prepare(read_labels(frame), images, None, "auto", {}, listening)
        assert ("half of the classes have 9 rows or fewer" in listening.notes[-1]) == told


def test_labels_that_read_like_missing_ones_are_told_of(images: Path) -> None:
    listening = Listening()
    labels = ["a", "b", "NaN", None, "", "a", "b", "nan", "a", "b", "a", "b"]
    frame = pd.DataFrame({"path": [f"{row:02d}.png" for row in range(12)], "label": labels})
    prepare(read_labels(frame), images, None, "auto", {"k": 3}, listening)
    assert any("2 labels that read NaN, nan are treated as missing" in told for told in listening.notes)


@pytest.mark.parametrize("column", ["vote", "p(a)"])
def test_a_column_of_paths_named_like_one_of_the_probabilities_is_refused(images: Path, column: str) -> None:
    frame = pd.DataFrame({column: [f"{row:02d}.png" for row in range(12)], "label": ["a", "b", "c"] * 4})
    with pytest.raises(InputError, match=f"the column of paths has the name '{re.escape(column)}'"):
        prepare(read_labels(frame, path_column=column), images, None, "auto", {}, Silent())


def test_true_labels_are_compared_as_values() -> None:
    table = table_of(label=[3, 3, 10, 10], truth=["3", "10.0", "10.0", " 7"])
    truth = read_truth(table, "truth")
    assert truth is not None
    assert truth.tolist() == [0, 1, 1, 2]  # 7 is a class that no given label has


def test_true_labels_that_are_not_known() -> None:
    table = table_of(label=["a", "b", "a"], truth=[None, "nan", "b"], empty=[None, "", "NaN"], odd=[b"", 1.5, "x"])
    truth = read_truth(table, "truth")
    assert truth is not None
    assert truth.tolist() == [-1, -1, 1]
    assert read_truth(table, None) is None
    with pytest.raises(InputError, match="column 'empty': no row has a label"):
        read_truth(table, "empty")
    with pytest.raises(InputError, match=r"column 'odd': .* labels are neither text nor whole numbers"):
        read_truth(table, "odd")
    with pytest.raises(InputError, match=r"no column 'true' \(`truth_column`\)"):
        read_truth(table, "true")
    with pytest.raises(UsageError, match="'label' is the column of given labels"):
        read_truth(table, "label")


@pytest.mark.parametrize(
    ("settings", "voters"),
    [
        ({"method": "iterknn"}, 9),
        ({"reference_start": 1.0}, 9),
        ({"reference_start": 0.5}, 2 + 2),  # of 5 and of 4, rounded to even
        ({"reference_start": 0.001}, 2),  # at least one of each class
        ({"references_per_class": 4}, 8),
        ({"references_per_class": 100}, 9),
    ],
)
def test_more_must_vote_than_there_are_neighbours(settings: dict[str, Any], voters: int) -> None:
    table = table_of(label=["a", "b"] * 4 + ["a", None, None])
    check_labels(table, table.given_labels, Config(k=voters - 1, **settings), "")
    with pytest.raises(
        InputError, match=f"too few rows for {voters} neighbours: of 9 rows with a label, {voters} vote"
    ):
        check_labels(table, table.given_labels, Config(k=voters, **settings), "")


def test_the_cure_for_too_few_voters_is_an_option_that_acts() -> None:
    table = table_of(label=["a", "b"] * 4)
    for settings in ({"method": "selknn"}, {"method": "iterknn"}, {"references_per_class": 2}, {}):
        with pytest.raises(InputError, match=r"too few rows for 100 neighbours: of 8 rows .*; give a smaller `k`$"):
            check_labels(table, table.given_labels, Config(**settings), "")


def test_rows_of_rare_classes_are_counted_in_the_whole_table() -> None:
    table = table_of(label=["a", "a", "b", "b", "c", "c"])
    given = np.where(np.arange(6) == 4, -1, table.given_labels)
    with pytest.raises(InputError, match=r"classes with fewer than two readable rows: 'c' \(row 6\)"):
        check_labels(table, given, Config(k=1), "readable ")
    with pytest.raises(InputError, match=r"fewer than two readable rows: 'c' \(no row\)"):
        check_labels(table, np.where(table.given_labels == 2, -1, table.given_labels), Config(k=1), "readable ")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backbone": "cnn7"}, UsageError, "there is no `backbone` cnn7"),
        ({"layer": "stage9"}, UsageError, "`layer` stage9"),
        ({"weights": "none.safetensors"}, InputError, "none.safetensors: no such file"),
        ({"device": "cuda:99"}, MachineError, "`device` cuda:99"),
        ({"colour": "red"}, UsageError, "unknown setting colour"),
        ({"k": "many"}, UsageError, "`k` 'many' is not a whole number"),
        ({"k": 1000}, InputError, "too few rows for 1000 neighbours"),
    ],
)
def test_what_cannot_work_is_refused(
    images: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        job_of(images, **settings)


def test_a_search_that_is_not_installed_is_refused(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisyknn.knn.faiss_search.is_installed", lambda: False)
    with pytest.raises(UsageError, match="`search` faiss needs faiss: pip install"):
        job_of(images, search="faiss")


def test_a_network_for_images_of_one_size_cannot_begin_with_smaller_ones(images: Path) -> None:
    settings = {"backbone": "vit_b_32", "width": 1.0, "image_size": 64, "progressive": True}
    with pytest.raises(UsageError, match=r"vit_b_32 runs on images of 64 pixels but not of 32.*`progressive=False`"):
        job_of(images, **settings)
    assert not job_of(images, **settings | {"progressive": False}).config.progressive


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"image_size": 16}, "give `precision`"),
        ({"image_size": 32, "progressive": True}, "give `progressive=False`, `prec"),
    ],
)
def test_a_network_of_which_torch_gets_gradients_wrong_in_bf16_is_refused(
    images: Path, settings: Mapping[str, object], cure: str
) -> None:
    network = {"backbone": "resnet18", "width": 1.0, **settings}
    with pytest.raises(UsageError, match=f"resnet18 shrinks images of 16 pixels to a single pixel .*{cure}"):
        job_of(images, precision="bf16", **network)
    assert job_of(images, precision="fp32", **network).config.backbone == "resnet18"
    assert job_of(images, precision="bf16", **network | {"image_size": 40}).config.image_size == 40


def test_overrides_go_before_the_preset(images: Path) -> None:
    assert job_of(images).config.episodes != 7
    assert job_of(images, episodes=7, k=2).config.episodes == 7


def test_the_same_job_has_the_same_key(images: Path) -> None:
    first, again = identify(job_of(images)), identify(job_of(images))
    assert first == again
    assert first["config"]["backbone"] == "cnn5"
    assert first["input"]["rows"] == 12


def test_whatever_changes_the_result_changes_the_key(images: Path, tmp_path: Path) -> None:
    keys = [identify(job)["key"] for job in (job_of(images), job_of(images, seed=1), job_of(images, k=2))]
    job = job_of(images)
    for table in (table_of(label=["a", "c", "b"] * 4), table_of(label=["a", "b", "d"] * 4)):
        changed = Job(table=table, images=images, files=job.files, truth=None, config=job.config)
        keys.append(identify(changed)["key"])
    keys.append(identify(Job(table=job.table, images=tmp_path, files=job.files, truth=None, config=job.config))["key"])
    os.utime(images / "00.png", (1, 1))
    keys.append(identify(job)["key"])
    (images / "00.png").unlink()
    keys.append(identify(job)["key"])
    assert len(set(keys)) == len(keys) == 8


def test_other_weights_under_the_same_name_make_another_run(images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    job = job_of(images)
    warm = Job(
        table=job.table, images=images, files=job.files, truth=None, config=Config(weights=str(weights), device="cpu")
    )
    weights.write_bytes(b"one")
    before = identify(warm)["key"]
    weights.write_bytes(b"another")
    assert identify(warm)["key"] != before
    assert warm.inputs() == [*job.inputs(), weights]


def test_true_labels_are_no_part_of_what_a_run_is(images: Path) -> None:
    job = job_of(images)
    told = Job(table=job.table, images=images, files=job.files, truth=np.zeros(12, dtype=np.int64), config=job.config)
    assert identify(told) == identify(job)


def test_a_run_goes_on_on_another_device_of_the_same_kind(images: Path) -> None:
    assert identify(job_of(images, device="auto", precision="fp32")) == identify(
        job_of(images, device="cpu", precision="fp32")
    )


def test_settings_without_effect_are_named(images: Path) -> None:
    table, listening = table_of(label=["a", "b", "c"] * 4), Listening()
    prepare(table, images, None, "auto", {"k": 2, "gamma": 0.5, "reference_step": 0.2}, listening)
    assert "settings without effect here: `gamma`, `reference_step`; remove them" in listening.notes
    listening.notes.clear()
    prepare(table, images, None, "auto", {"k": 2, "folds": 3}, listening)
    assert not any("without effect" in note for note in listening.notes)
