import csv
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import noisyknn
from noisyknn.demo import write_digits
from noisyknn.errors import InputError, MachineError, UsageError
from noisyknn.models.factory import build_backbone
from noisyknn.models.model_file import save_model
from noisyknn.observer import Silent
from noisyknn.paper import grid, torchvision_data
from noisyknn.paper.cells import Cell, CellFolder
from noisyknn.paper.held_out import accuracy
from noisyknn.paper.published import LABEL_RECOVERY, TEST_ACCURACY
from tests.cli.conftest import Cli, Result
from tests.small_data import draw

TRAIN, TEST = 300, 100
CUT = ["--epochs", "3", "--episodes", "2", "--batch-size", "50", "--k", "5", "--image-size", "20", "--width", "0.25"]
CUT += ["--precision", "fp32"]
FEW = ["--methods", "ce", "--methods", "selknn", "--noise", "symmetric-40", "--trials", "2"]
RECORD = {
    "cell": "mnist-symmetric-20-ce-0", "data_set": "mnist", "noise": "symmetric-20", "method": "ce", "trial": 0,
    "accuracy": 0.9, "recovery": 0.8, "rows": 300, "seconds": 1.0, "resumed": False,
    "version": "1", "data": "of sha256", "settings": {}, "config": {},
}  # fmt: skip
Table = Callable[..., Result]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    table = pd.read_csv(write_digits(folder))
    table[:TRAIN].to_csv(folder / "train.csv", index=False)
    table[-TEST:].to_csv(folder / "test.csv", index=False)
    return folder


@pytest.fixture
def table(cli: Cli, digits: Path, tmp_path: Path) -> Table:
    def run(command: str, *options: object) -> Result:
        files = ["--images", digits / "images", "--labels", digits / "train.csv"]
        files += ["--test-images", digits / "images", "--test-labels", digits / "test.csv", "--out", tmp_path / "out"]
        return cli("paper", command, "--data-set", "mnist", *files, *CUT, *options)

    return run


def trials_of(result: Result) -> list[dict[str, Any]]:
    """What --json tells of each cell's trials."""
    trials: list[dict[str, Any]] = json.loads(result.stdout)["cells"]
    return trials


def test_cells_are_run_once_and_shown_beside_the_papers(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table("table1", *FEW)
    assert first.code == 0
    assert "cell 4 of 4: mnist-symmetric-40-selknn-1" in first.stderr
    told = first.stdout.decode()
    assert "68.75 ± 0.04" in told
    assert "97.79 ± 0.19" in told
    cut = "image size 20, width 0.25, precision fp32"
    assert f"ours: ce: 300 rows, epochs 3, batch size 50, {cut}; selknn: " in told
    assert f"; selknn: 300 rows, epochs 3, episodes 2, batch size 50, k 5, {cut}\n" in told
    assert re.search(r"40-selknn-1: accuracy \d+\.\d\d%, recovery \d+\.\d\d%, \d+ s", first.stderr)
    assert "taken from" not in first.stderr
    records = json.loads((tmp_path / "out" / "cells.json").read_text())
    cells = ["ce-0", "selknn-0", "ce-1", "selknn-1"]
    assert [record["cell"] for record in records] == [f"mnist-symmetric-40-{cell}" for cell in cells]
    with (tmp_path / "out" / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [record["cell"] for record in records]
    assert all(0.3 < record["realised_rate"] < 0.5 for record in records)
    assert all(record["config"]["batch_size"] == 50 for record in records)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cells.csv", "cells.json", "cells.lock"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a cell that is done was run again")

    monkeypatch.setattr(grid, "clean", never)
    again = table("table1", *FEW, "--json")
    assert trials_of(again) == records
    told_again = json.loads(again.stdout)
    assert (told_again["data_set"], told_again["metric"]) == ("mnist", "accuracy")
    figures = {(cell["method"], cell["noise"]): cell for cell in told_again["table"]}
    assert figures.keys() == TEST_ACCURACY["mnist"].keys()
    first_cell, other_cell = (figures[method, "symmetric-40"] for method in ("ce", "sl"))
    of_ce = [100 * record["accuracy"] for record in records if record["method"] == "ce"]
    assert first_cell["paper"] == {"mean": 68.75, "deviation": 0.04}
    assert first_cell["ours"] == pytest.approx({"mean": sum(of_ce) / 2, "deviation": abs(of_ce[0] - of_ce[1]) / 2**0.5})
    assert (other_cell["paper"]["mean"], other_cell["ours"]) == (97.65, None)
    recovery = table("table2", *FEW)
    assert recovery.code == 0
    assert f"4 of 4 cells taken from {tmp_path / 'out'}\n" in recovery.stderr
    assert "recovery" in recovery.stdout.decode()


def test_a_stopped_table_goes_on(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = trials_of(table("table1", *FEW, "--out", tmp_path / "other", "--json"))
    tested = []

    def interrupted(*arguments: object) -> float:
        tested.append(arguments)
        if len(tested) == 3:
            raise KeyboardInterrupt
        return accuracy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "accuracy", interrupted)
    assert table("table1", *FEW).code == 130
    assert len(json.loads((tmp_path / "out" / "cells.json").read_text())) == 2
    monkeypatch.setattr(grid, "accuracy", accuracy)
    found = trials_of(table("table1", *FEW, "--json"))
    assert [without_seconds(cell) for cell in found] == [without_seconds(cell) for cell in undisturbed]
    assert [cell["resumed"] for cell in found] == [False, False, True, False]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cells.csv", "cells.json", "cells.lock"]


def stop_before_the_test(table: Table, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    def stopped(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(grid, "accuracy", stopped)
    assert table("table1", *options).code == 130
    monkeypatch.setattr(grid, "accuracy", accuracy)


def test_a_cell_that_is_stopped_before_its_test_is_not_trained_again(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ["--methods", "selknn", "--noise", "symmetric-40", "--trials", "1", "--json"]
    stop_before_the_test(table, monkeypatch, *one)
    monkeypatch.setattr(grid, "clean", None)
    (found,) = trials_of(table("table1", *one))
    assert found["resumed"]
    assert 0 <= found["accuracy"] <= 1


def test_a_cell_that_was_stopped_under_other_settings_begins_anew_and_says_so(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ["--methods", "ce", "--noise", "symmetric-40", "--trials", "1", "--json"]
    stop_before_the_test(table, monkeypatch, *one)
    result = table("table1", *one, "--epochs", "2")
    assert "mnist-symmetric-40-ce-0 was stopped, and begins anew: " in result.stderr
    assert "epochs was 3, is 2" in result.stderr
    (found,) = trials_of(result)
    assert (found["resumed"], found["config"]["epochs"]) == (False, 2)


def test_a_cell_that_is_killed_while_it_is_tidied_away_is_done(table: Table, tmp_path: Path) -> None:
    one = ["--methods", "ce", "--noise", "symmetric-40", "--trials", "1", "--json"]
    first = table("table1", *one)
    left = tmp_path / "out" / "mnist-symmetric-40-ce-0.run"
    left.mkdir()
    (left / "run.lock").touch()
    left.with_suffix(".safetensors").touch()
    assert table("table1", *one).stdout == first.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cells.csv", "cells.json", "cells.lock"]
    left.mkdir()
    (left / "notes.txt").write_text("mine")
    left.with_suffix(".safetensors").touch()
    assert table("table1", *one).stdout == first.stdout
    assert (left / "notes.txt").exists()
    assert left.with_suffix(".safetensors").exists()


@pytest.mark.parametrize("name", ["mnist-symmetric-40-ce-0.safetensors", "mnist-symmetric-40-ce-0.run/notes.txt"])
def test_files_of_the_users_own_where_a_cell_is_run_are_left_alone(table: Table, tmp_path: Path, name: str) -> None:
    own = tmp_path / "out" / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    refused = table("table1", "--methods", "ce", "--noise", "symmetric-40", "--trials", "1")
    assert refused.code == 2
    assert "was written by something else" in refused.stderr
    assert own.read_text() == "mine"


def test_a_damaged_network_of_a_stopped_cell_is_told_with_its_cure(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ["--methods", "ce", "--noise", "symmetric-40", "--trials", "1"]
    stop_before_the_test(table, monkeypatch, *one)
    network = tmp_path / "out" / "mnist-symmetric-40-ce-0.safetensors"
    network.write_bytes(network.read_bytes()[:100])
    refused = table("table1", *one)
    assert refused.code == 1
    assert re.search("is damaged .*; remove it, and mnist-symmetric-40-ce-0 is trained again", refused.stderr)
    network.unlink()
    assert table("table1", *one).code == 0


def test_a_table_that_moves_goes_on(
    table: Table, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ["--methods", "ce", "--noise", "symmetric-40", "--trials", "1"]
    first = table("table1", *one)
    shutil.copytree(digits / "images", tmp_path / "moved")
    (tmp_path / "out").rename(tmp_path / "new")
    monkeypatch.setattr(grid, "clean", None)
    moved = ["--images", tmp_path / "moved", "--test-images", tmp_path / "moved", "--out", tmp_path / "new"]
    assert table("table1", *one, *moved).stdout == first.stdout
    shutil.copyfile(tmp_path / "moved" / "0001.png", tmp_path / "moved" / "0000.png")
    assert "would mix trials" in table("table1", *one, *moved).stderr  # other images


def test_an_input_is_not_taken_for_an_output(table: Table, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cells.json").write_text("[]")
    labels = shutil.copyfile(digits / "train.csv", tmp_path / "out" / "cells.csv")
    refused = table("table1", "--labels", labels, *FEW)
    assert refused.code == 2
    assert "is also an input" in refused.stderr
    assert labels.read_bytes() == (digits / "train.csv").read_bytes()


def test_an_input_is_not_taken_for_an_output_of_a_table_that_is_done(
    table: Table, digits: Path, tmp_path: Path
) -> None:
    labels, few = shutil.copyfile(digits / "train.csv", tmp_path / "train.csv"), FEW[:2] + FEW[4:6] + ["--trials", "1"]
    assert table("table1", *few).code == 0
    (tmp_path / "out" / "cells.csv").unlink()
    (tmp_path / "out" / "cells.csv").symlink_to(labels)
    os.utime(labels, (0, 0))  # older than cells.json, as where writing it was cut off
    refused = table("table1", "--labels", labels, *few)
    assert refused.code == 2
    assert "is also an input" in refused.stderr
    assert labels.read_bytes() == (digits / "train.csv").read_bytes()


def test_a_cell_that_is_stopped_goes_on(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ["--methods", "selknn", "--noise", "symmetric-40", "--trials", "1", "--json"]

    def stopped(*arguments: Any, **options: Any) -> object:
        start = options["observer"].start

        def starts(stage: str, total: int, unit: str) -> None:
            if stage.startswith("episode 2"):
                raise KeyboardInterrupt
            start(stage, total, unit)

        options["observer"].start = starts
        return noisyknn.clean(*arguments, **options)

    monkeypatch.setattr(grid, "clean", stopped)
    assert table("table1", *one).code == 130
    monkeypatch.setattr(grid, "clean", noisyknn.clean)
    (found,) = trials_of(table("table1", *one))
    assert found["resumed"]


def without_seconds(cell: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in cell.items() if name not in ("seconds", "resumed")}


def test_a_cell_that_fails_stops_no_other(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> object:
        if (options["method"], options["seed"]) == ("ce", 0):
            raise MachineError("training diverged")
        return noisyknn.clean(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "clean", fails)
    result = table("table1", *FEW)
    assert result.code == 1
    assert "1 of 4 cells failed: mnist-symmetric-40-ce-0: training diverged" in result.stderr
    assert "68.75" in result.stdout.decode()  # what ran is shown
    records = json.loads((tmp_path / "out" / "cells.json").read_text())
    assert [record["method"] for record in records] == ["selknn", "ce", "selknn"]


def test_two_processes_that_fill_one_folder_lose_no_cell(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    other: list[Result] = []

    def meanwhile(*arguments: object, **options: object) -> object:
        if not started:
            started.append(True)
            # the same command again, while the first cell is being run: it leaves that cell and runs the others
            other.append(table("table1", *FEW, "--json"))
        return noisyknn.clean(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "clean", meanwhile)
    result = table("table1", *FEW, "--json")
    assert result.code == 0
    assert [cell["cell"][-8:] for cell in trials_of(other[0])] == ["selknn-0", "-40-ce-1", "selknn-1"]
    assert "mnist-symmetric-40-ce-0: another process runs it" in other[0].stderr
    assert "1 of 4 cells are not there yet: other processes run them" in other[0].stderr
    assert "not there yet" not in result.stderr
    assert len(trials_of(result)) == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cells.csv", "cells.json", "cells.lock"]


def test_processes_of_other_settings_do_not_mix_their_trials(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--methods", "ce", "--noise", "symmetric-40"]
    other: list[Result] = []

    def meanwhile(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(grid, "clean", noisyknn.clean)
        # it knows nothing of the first cell, which is being run, and is sooner done with the second one
        other.append(table("table1", *few, "--trials", "2", "--epochs", "2"))
        return noisyknn.clean(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "clean", meanwhile)
    result = table("table1", *few, "--trials", "1")
    assert other[0].code == 0
    assert result.code == 2
    assert "would mix trials of mnist-symmetric-40-ce of other settings" in result.stderr
    (kept,) = json.loads((tmp_path / "out" / "cells.json").read_text())
    assert (kept["trial"], kept["config"]["epochs"]) == (1, 2)


def test_a_class_that_noise_leaves_no_label_is_never_told_right(table: Table) -> None:
    """All of 2, 3 are called 7, 8: no network can learn these names."""
    few = ["--methods", "ce", "--noise", "asymmetric-100", "--trials", "1", "--json"]
    (cell,) = trials_of(table("table1", *few))
    assert cell["accuracy"] < 0.9


def test_cells_of_other_settings_are_not_mixed(table: Table, digits: Path) -> None:
    few = ["--methods", "ce", "--noise", "asymmetric-40", "--trials", "1"]
    assert table("table1", *few).code == 0
    pd.read_csv(digits / "test.csv")[::-1].to_csv(digits / "reversed.csv", index=False)
    for other in (["--epochs", "2"], ["--rows", "200"], ["--test-labels", digits / "reversed.csv"]):
        refused = table("table1", *few, *other)
        assert refused.code == 2
        assert "would mix trials of mnist-asymmetric-40-ce of other " in refused.stderr
        assert "name another --out" in refused.stderr
    refused = table("table1", *few, "--epochs", "2")
    assert re.search("of other settings .*'epochs': 3.* and .*'epochs': 2", refused.stderr)
    other_trials = table("table1", *few, "--trials", "2", "--epochs", "2")
    assert other_trials.code == 2
    assert table("table1", *few, "--device", "cpu").code == 0  # whatever it is, it is the same cell
    unused = table("table1", *few, "--k", "7", "--episodes", "9")  # by ce
    assert unused.code == 0
    assert "1 of 1 cell taken from" in unused.stderr
    shown = table("table1", "--methods", "sl", "--noise", "symmetric-20", "--trials", "1", "--epochs", "2")
    assert shown.code == 0  # another cell may have other settings, and all of them are shown
    assert "symmetric-20" in shown.stdout.decode()
    assert "asymmetric-40" in shown.stdout.decode()


def test_accuracy_is_that_of_the_saved_network_on_the_test_images(table: Table, digits: Path, tmp_path: Path) -> None:
    """A network that has learnt clean digits for longer is mostly right, and never on shuffled ones."""
    pd.read_csv(digits / "test.csv").assign(clean_label=lambda frame: (frame["clean_label"] + 1) % 10).to_csv(
        digits / "shifted.csv", index=False
    )
    options = ["--methods", "ce", "--noise", "symmetric-0", "--trials", "1", "--epochs", "40", "--json"]
    options += ["--image-size", "28", "--width", "1"]
    right, wrong = (
        trials_of(table("table1", *options, "--out", tmp_path / name, "--test-labels", digits / name))
        for name in ("test.csv", "shifted.csv")
    )
    assert right[0]["accuracy"] > 0.85
    assert wrong[0]["accuracy"] < 0.1
    assert right[0]["recovery"] == 1.0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--methods", "elr"], 2, "--methods elr: there are crossfit, iterknn, selknn, ce"),
        (["--noise", "uniform-20"], 2, "--noise 'uniform-20' is not of the form symmetric-40"),
        (["--noise", "symmetric-٤٠"], 2, "is not of the form symmetric-40"),
        (["--noise", "symmetric-200"], 2, "--noise symmetric-200: more than 100 per cent"),
        (["--label-column", "truth"], 3, "has no column 'truth'"),
        (["--rows", "5"], 3, "has classes that no row to train on has"),
        (["--rows", "20", "--noise", "symmetric-90"], 3, r"the noise leaves a single row of the classes \d"),
        (["--test-labels", "nowhere.csv"], 3, "nowhere.csv: no such file"),
        (["--noise", "as-given"], 2, "is not of the form symmetric-40"),
        (["--download"], 2, "--download goes with --torchvision"),
        (["--test-images", "."], 3, "100 files do not exist: 1697.png"),
        (
            ["--methods", "ce", "--methods", "selknn", "--k", "60"],
            3,
            "selknn, symmetric-20: .*train.csv: too few rows for 60 neighbours",
        ),
        (["--methods", "ce", "--methods", "pencil", "--epochs", "2"], 2, "--epochs 2 is too few for --method pencil"),
        (["--torchvision", "nowhere"], 2, "give either --torchvision or --images"),
    ],
)
def test_what_cannot_be_run_is_told_first(
    table: Table, options: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "clean", None)
    refused = table("table1", *options)
    assert refused.code == code
    assert re.search(message, refused.stderr)


@pytest.mark.parametrize(
    "content",
    [
        '{"a": 1}',
        "[1, 2]",
        '[{"cell": "../../x"}]',
        "[",
        "",
        "[" * 100_000,
        json.dumps([RECORD | {"accuracy": "high"}]),
        json.dumps([RECORD | {"settings": None}]),
        json.dumps([RECORD | {"trial": True}]),
        json.dumps([RECORD | {"accuracy": float("nan")}]),
        json.dumps([RECORD | {"seconds": float("inf")}]),
        json.dumps([RECORD | {"accuracy": 9}]),
        json.dumps([RECORD | {"method": "[/blue]", "cell": "mnist-symmetric-20-[/blue]-0"}]),
        json.dumps([RECORD | {"method": "vote", "cell": "mnist-symmetric-20-vote-0"}]),
        json.dumps([RECORD, RECORD]),
    ],
)
def test_a_folder_of_something_else_is_refused_first(
    table: Table, tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "clean", None)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cells.json").write_text(content)
    refused = table("table1", *FEW)
    assert refused.code == 3
    assert "cells.json" in refused.stderr
    assert "name another --out" in refused.stderr
    assert (tmp_path / "out" / "cells.json").read_text() == content
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "in it"):
        refused = table("table1", *FEW, "--out", place)
        assert refused.code == 2
        assert "is not a folder" in refused.stderr


def test_a_table_of_something_else_is_left_alone(table: Table, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cells.csv").write_text("mine")
    refused = table("table1", *FEW)
    assert refused.code == 2
    assert "cells.csv was written by something else" in refused.stderr
    assert (tmp_path / "out" / "cells.csv").read_text() == "mine"


def test_records_are_kept_in_both_files(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    folder.add(RECORD)
    folder.add(RECORD | {"cell": "mnist-symmetric-20-ce-1", "trial": 1})
    folder.add(RECORD | {"accuracy": 0.7})  # a cell that two processes have run is kept once
    assert sorted((record["trial"], record["accuracy"]) for record in CellFolder(tmp_path).read()) == [
        (0, 0.7),
        (1, 0.9),
    ]
    with pytest.raises(UsageError, match="would mix trials"):
        folder.add(RECORD | {"cell": "mnist-symmetric-20-ce-2", "trial": 2, "version": "2"})
    assert len(folder.read()) == 2
    (tmp_path / "cells.csv").unlink()  # as where it was killed in between
    folder.repair()
    assert pd.read_csv(tmp_path / "cells.csv")["cell"].tolist() == [record["cell"] for record in folder.read()]


def test_a_table_that_is_done_is_shown_where_nothing_can_be_written(table: Table, tmp_path: Path) -> None:
    few = ["--methods", "ce", "--noise", "symmetric-20", "--trials", "1"]
    first = table("table1", *few)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert table("table1", *few).stdout == first.stdout
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_noise_has_one_name(table: Table) -> None:
    noises = ["symmetric-20", "symmetric-20.0", "symmetric-020", "symmetric-0.000001"]
    options = [f"--noise={noise}" for noise in noises]
    cells = trials_of(table("table1", "--methods", "ce", *options, "--trials", "1", "--json"))
    assert [cell["noise"] for cell in cells] == ["symmetric-20", "symmetric-0.000001"]


def test_the_users_own_file_is_named(table: Table, digits: Path, tmp_path: Path) -> None:
    pd.read_csv(digits / "train.csv").rename(columns={"path": "where"}).to_csv(tmp_path / "odd.csv")
    pd.read_csv(digits / "train.csv").assign(path=lambda rows: "../" + rows["path"]).to_csv(tmp_path / "out.csv")
    assert (
        f"{tmp_path / 'odd.csv'} has none of the columns path"
        in table("table1", "--labels", tmp_path / "odd.csv").stderr
    )
    assert f"{tmp_path / 'out.csv'}: 300 paths lead out" in table("table1", "--labels", tmp_path / "out.csv").stderr
    refused = table("table1", "--test-labels", tmp_path / "out.csv")
    assert f"{tmp_path / 'out.csv'}: 300 paths lead out of the folder" in refused.stderr
    assert "give --test-images a folder" in refused.stderr


def test_where_all_cells_fail_for_their_data_so_does_the_table(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> object:
        raise InputError("none of the images can be read")

    monkeypatch.setattr(grid, "clean", fails)
    assert table("table1", *FEW).code == 3


def test_an_image_to_test_on_that_cannot_be_read_is_told_first(
    table: Table, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits / "images", tmp_path / "broken")
    (tmp_path / "broken" / "1700.png").write_bytes(b"no image")
    monkeypatch.setattr(grid, "clean", None)
    refused = table("table1", *FEW, "--test-images", tmp_path / "broken")
    assert refused.code == 3
    assert "test.csv: 1 image cannot be read: row 4 '1700.png' (" in refused.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


def test_options_without_effect_are_named(table: Table) -> None:
    told = table("table1", *FEW, "--trials", "1").stderr
    assert "without effect on ce: episodes, k" in told
    assert "on selknn" not in told


def test_all_four_files_are_needed(cli: Cli, digits: Path, tmp_path: Path) -> None:
    refused = cli("paper", "table2", "--data-set", "cifar10", "--out", tmp_path, "--images", digits)
    assert refused.code == 2
    assert "give --images, --labels, --test-images and --test-labels, or --torchvision" in refused.stderr


def test_a_data_set_that_torchvision_does_not_have(cli: Cli, tmp_path: Path) -> None:
    refused = cli("paper", "table1", "--data-set", "cifar10", "--out", tmp_path, "--torchvision", tmp_path / "x")
    assert refused.code == 3
    assert "--download fetches it" in refused.stderr


def test_table_2_of_another_data_set_has_the_cells_of_table_1(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Cell] = []

    def run(_: object, cells: list[Cell], *__: object) -> tuple[list[dict[str, object]], dict[str, str]]:
        asked.extend(cells)
        return [], {}

    monkeypatch.setattr(grid, "run_cells", run)
    assert table("table2", "--trials", "1").code == 0
    assert len(asked) == 42


def test_a_method_that_is_named_twice_is_run_once(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        grid, "run_cells", lambda _, cells, *__: ([{**RECORD, "cell": cell.name} for cell in cells], {})
    )
    assert len(trials_of(table("table1", *FEW, *FEW, "--json"))) == 4


def test_asymmetric_noise_has_the_settings_of_the_sources(table: Table) -> None:
    few = ["--methods", "joint-optimization", "--methods", "pencil", "--trials", "1", "--json"]
    few += ["--noise", "asymmetric-20", "--noise", "symmetric-20"]
    found = {(cell["noise"], cell["method"]): cell["config"] for cell in trials_of(table("table1", *few))}
    assert found["asymmetric-20", "joint-optimization"]["entropy_weight"] == 0.4
    assert found["symmetric-20", "joint-optimization"]["entropy_weight"] == 0.8
    assert found["asymmetric-20", "pencil"]["label_rate"] == 4000
    last = {
        place: config["lr"] * config["later_rate"] for place, config in found.items() if place[0] == "asymmetric-20"
    }
    assert list(last.values()) == pytest.approx([0.2, 0.2])  # whatever the first rate is


def test_a_data_set_of_torchvision(cli: Cli, tmp_path: Path) -> None:
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, rows in (("train", 60), ("t10k", 20)):
        labels = (np.arange(rows) % 10).astype(np.uint8)
        images = generator.integers(0, 60, (rows, 28, 28)).astype(np.uint8)
        images[np.arange(rows), labels * 2] = 255  # a line at the height of the digit
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, rows, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, rows) + labels.tobytes())
    few = ["--methods", "sl", "--noise", "asymmetric-40", "--trials", "1", "--torchvision", tmp_path / "root"]
    result = cli("paper", "table1", "--data-set", "mnist", "--out", tmp_path / "out", *few, *CUT)
    assert result.code == 0
    table = pd.read_csv(tmp_path / "out" / "data" / "mnist-train" / "labels.csv")
    assert table["clean_label"].tolist() == [row % 10 for row in range(60)]
    assert len(list((tmp_path / "out" / "data" / "mnist-test" / "images").iterdir())) == 20


def test_junk_in_place_of_a_data_set_of_torchvision(cli: Cli, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"junk that is no idx file")
    refused = cli("paper", "table1", "--data-set", "mnist", "--out", tmp_path / "out", "--torchvision", tmp_path)
    assert refused.code == 3
    assert "MNIST cannot be had" in refused.stderr
    (tmp_path / "file").touch()
    refused = cli("paper", "table1", "--data-set", "mnist", "--out", tmp_path / "file", "--torchvision", tmp_path)
    assert refused.code == 2


def test_the_papers_figures() -> None:
    assert {name: len(figures) for name, figures in TEST_ACCURACY.items()} == dict.fromkeys(
        ("mnist", "cifar10", "cifar100"), 42
    )
    assert TEST_ACCURACY["cifar100"]["selknn", "asymmetric-40"] == (63.32, 1.39)
    assert TEST_ACCURACY["mnist"]["ce", "symmetric-80"] == (24.77, 0.37)
    assert LABEL_RECOVERY["cifar10"]["selknn", "symmetric-40"] == (91.32, 0.22)


@pytest.fixture
def clothing(tmp_path: Path) -> Path:
    """Drawn images in the layout of Clothing1M: 48 noisy ones to train on, 12 verified ones to test on."""
    root = tmp_path / "clothing"
    table = draw(root / "images", rows=60)
    classes = ["blue", "green", "red"]
    keys = [f"images/{path}" for path in table["path"]]

    def lines(column: str) -> list[str]:
        return [f"{key} {classes.index(label)}" for key, label in zip(keys, table[column], strict=True)]

    for name, content in {
        "category_names_eng.txt": classes,
        "noisy_label_kv.txt": lines("label"),
        "clean_label_kv.txt": lines("clean_label"),
        "noisy_train_key_list.txt": keys[:48],
        "clean_test_key_list.txt": keys[48:],
    }.items():
        (root / name).write_text("\n".join(content) + "\n")
    return root


def test_clothing1m_by_the_recipe_of_the_paper_cut_down(cli: Cli, clothing: Path, tmp_path: Path) -> None:
    backbone = build_backbone("resnet18", classes=3, image_size=32, seed=0)
    save_model(tmp_path / "weights.safetensors", backbone, {})
    cut = ["--backbone", "resnet18", "--weights", tmp_path / "weights.safetensors", "--image-size", "32"]
    cut += ["--epochs", "8", "--episodes", "2", "--k", "5", "--lr", "0.001", "--precision", "fp32"]
    few = [f"--methods={method}" for method in ("selknn", "ce", "pencil", "joint-optimization")]
    few += ["--out", str(tmp_path / "out")]
    result = cli("paper", "table3", "--clothing1m", clothing, *few, *cut)
    assert result.code == 0
    assert "76.78" in result.stdout.decode()
    selknn, ce, pencil, joint = json.loads((tmp_path / "out" / "cells.json").read_text())
    assert {cell["config"]["optimizer"] for cell in (selknn, ce, pencil, joint)} == {"adam"}
    assert joint["config"]["batch_size"] == 64
    assert pencil["config"]["compatibility_weight"] == pytest.approx(0.112)
    assert (selknn["config"]["references_per_class"], selknn["config"]["store_size"]) == (10_000, 256)
    assert (selknn["config"]["episodes"], ce["config"]["episodes"], ce["config"]["loss"]) == (2, 1, "ce")
    assert selknn["accuracy"] > 0.6
    assert selknn["recovery"] is None
    assert cli("paper", "table3", "--clothing1m", tmp_path, "--out", tmp_path / "x").code == 3


def test_files_of_the_users_own_are_not_removed_for_a_data_set(tmp_path: Path) -> None:
    own = tmp_path / "out" / "data" / "cifar10-train" / "images" / "mine.png"
    own.parent.mkdir(parents=True)
    own.touch()
    with pytest.raises(UsageError, match="holds something else; name another --out"):
        torchvision_data._write([], own.parents[1], Silent())
    assert own.exists()


def test_a_data_set_whose_writing_is_killed_is_written_anew(tmp_path: Path) -> None:
    class Killed:
        classes = ("0 - zero",)

        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
            yield Image.new("L", (4, 4)), 0
            raise KeyboardInterrupt

    target = tmp_path / "mnist-train"
    with pytest.raises(KeyboardInterrupt):
        torchvision_data._write(Killed(), target, Silent())
    assert not target.exists()

    class Whole(Killed):
        def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
            yield from [(Image.new("L", (4, 4)), 0)] * 2

    torchvision_data._write(Whole(), target, Silent())
    assert pd.read_csv(target / "labels.csv")["path"].tolist() == ["00000.png", "00001.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["mnist-train"]
