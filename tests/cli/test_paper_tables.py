import csv
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import noisyknn
from noisyknn.config import Config
from noisyknn.data.table import read_labels
from noisyknn.demo import write_digits
from noisyknn.errors import InputError, MachineError, UsageError
from noisyknn.models.factory import build_backbone
from noisyknn.models.model_file import save_model
from noisyknn.observer import Silent
from noisyknn.paper import grid, torchvision_data
from noisyknn.paper.held_out import HeldOut, accuracy
from noisyknn.paper.published import LABEL_RECOVERY, TEST_ACCURACY
from tests.cli.conftest import Cli, Result
from tests.small_data import draw

TRAIN, TEST = 300, 100
CUT = ["--epochs", "3", "--episodes", "2", "--batch-size", "50", "--k", "5", "--image-size", "20", "--width", "0.25"]
CUT += ["--precision", "fp32"]
FEW = ["--methods", "ce", "--methods", "selknn", "--noise", "symmetric-40", "--trials", "2"]
ONE = ["--methods", "ce", "--noise", "symmetric-40", "--trials", "1"]
CELL = "mnist-symmetric-40-ce-0"
Table = Callable[..., Result]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    table = pd.read_csv(write_digits(folder))
    table[:TRAIN].to_csv(folder / "train.csv", index=False)
    table[-TEST:].to_csv(folder / "test.csv", index=False)
    table[-TEST:][::-1].to_csv(folder / "reversed.csv", index=False)
    return folder


@pytest.fixture
def table(cli: Cli, digits: Path, tmp_path: Path) -> Table:
    def run(command: str, *options: object) -> Result:
        files = ["--images", digits / "images", "--labels", digits / "train.csv"]
        files += ["--test-images", digits / "images", "--test-labels", digits / "test.csv", "--out", tmp_path / "out"]
        return cli("paper", command, "--data-set", "mnist", *files, *CUT, *options)

    return run


def trials_of(result: Result) -> list[dict[str, Any]]:
    """The trials of each cell, as --json prints them."""
    assert result.code == 0, result.stderr
    trials: list[dict[str, Any]] = json.loads(result.stdout)["cells"]
    return trials


def without_seconds(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in cell.items() if name not in ("seconds", "resumed")} for cell in cells]


def never(*_: object, **__: object) -> None:
    raise AssertionError("a cell was run")


def interrupted(*_: object, **__: object) -> float:
    raise KeyboardInterrupt


def test_cells_run_once_and_stand_beside_the_papers(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table("table1", *FEW)
    assert first.code == 0
    assert "cell 4 of 4: mnist-symmetric-40-selknn-1" in first.stderr
    assert "without effect on ce: --episodes, --k" in first.stderr
    assert re.search(r"40-selknn-1: accuracy \d+\.\d\d%, recovery \d+\.\d\d%, \d+ s", first.stderr)
    printed = first.stdout.decode()
    assert "68.75 ± 0.04" in printed
    assert "97.79 ± 0.19" in printed
    cut = "300 rows, width 0.25, image size 20"
    assert f"ours: ce: {cut}, epochs 3, batch size 50, precision fp32; selknn: " in printed
    assert f"; selknn: {cut}, episodes 2, epochs 3, batch size 50, k 5, precision fp32\n" in printed
    names = [f"mnist-symmetric-40-{cell}" for cell in ("ce-0", "ce-1", "selknn-0", "selknn-1")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cells.csv", *names]
    assert sorted(path.name for path in (tmp_path / "out" / CELL).iterdir()) == ["cell.json", "settings.json"]
    with (tmp_path / "out" / "cells.csv").open() as file:
        assert [row["cell"] for row in csv.DictReader(file)] == names

    monkeypatch.setattr(grid, "clean", never)
    again = table("table1", *FEW, "--json")
    records = trials_of(again)
    assert [record["cell"] for record in records] == names
    assert all(0.3 < record["realised_rate"] < 0.5 and record["config"]["batch_size"] == 50 for record in records)
    figures = {(cell["method"], cell["noise"]): cell for cell in json.loads(again.stdout)["table"]}
    assert figures.keys() == TEST_ACCURACY["mnist"].keys()
    of_ce = [100 * record["accuracy"] for record in records if record["method"] == "ce"]
    spread = abs(of_ce[0] - of_ce[1]) / 2**0.5
    assert figures["ce", "symmetric-40"]["paper"] == {"mean": 68.75, "deviation": 0.04}
    assert figures["ce", "symmetric-40"]["ours"] == pytest.approx({"mean": sum(of_ce) / 2, "deviation": spread})
    assert figures["sl", "symmetric-40"]["ours"] is None
    recovery = table("table2", *FEW)
    assert f"4 of 4 cells taken from {tmp_path / 'out'}\n" in recovery.stderr
    assert "recovery" in recovery.stdout.decode()


def test_a_stopped_table_resumes(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within the second cell's training, then before its test, it ends as if undisturbed."""
    few = [*FEW[:-2], "--trials", "1", "--json"]
    undisturbed = trials_of(table("table1", *few, "--out", tmp_path / "other"))

    def stopped(*arguments: Any, **options: Any) -> object:
        start = options["observer"].start

        def starts(stage: str, total: int, unit: str) -> None:
            if stage.startswith("episode 2"):
                raise KeyboardInterrupt
            start(stage, total, unit)

        options["observer"].start = starts
        return noisyknn.clean(*arguments, **options)

    monkeypatch.setattr(grid, "clean", stopped)
    assert table("table1", *few).code == 130
    refused = table("table1", *few, "--batch-size", "40", "--trials", "1")
    assert f"{tmp_path / 'out' / CELL} ran with batch size 50, not 40" in refused.stderr
    assert (tmp_path / "out" / CELL / "cell.json").exists()
    monkeypatch.setattr(grid, "clean", noisyknn.clean)
    monkeypatch.setattr(grid, "accuracy", interrupted)
    assert table("table1", *few).code == 130
    monkeypatch.setattr(grid, "clean", never)
    monkeypatch.setattr(grid, "accuracy", accuracy)
    found = trials_of(table("table1", *few))
    assert without_seconds(found) == without_seconds(undisturbed)
    assert [cell["resumed"] for cell in found] == [False, True]


def test_trials_of_other_settings_are_refused(table: Table, digits: Path, tmp_path: Path) -> None:
    assert table("table1", *ONE).code == 0
    folder = tmp_path / "out" / CELL
    for other, difference in (
        (["--epochs", "2"], "epochs 3, not 2"),
        (["--epochs", "2", "--trials", "2"], "epochs 3, not 2"),
        (["--rows", "200"], "other data"),
        (["--test-labels", digits / "reversed.csv"], "other data"),
    ):
        refused = table("table1", *ONE, *other)
        assert refused.code == 2
        assert f"{folder} ran with {difference}; delete that folder or name another --out" in refused.stderr
    moved = shutil.copytree(digits / "images", tmp_path / "moved")
    for same in (["--device", "cpu"], ["--k", "7", "--episodes", "9"], ["--images", moved, "--test-images", moved]):
        assert "1 of 1 cell taken from" in table("table1", *ONE, *same).stderr  # ce uses neither k nor episodes
    record = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(record | {"version": "0.0.1"}))
    assert "ran with noisyknn 0.0.1, not " in table("table1", *ONE).stderr
    (folder / "settings.json").write_text("{")
    damaged = table("table1", *ONE)
    assert (damaged.code, "settings.json is damaged" in damaged.stderr) == (3, True)


@pytest.mark.parametrize(("failing", "code"), [(MachineError("training diverged"), 1), (InputError("no images"), 3)])
def test_a_cell_that_fails_does_not_stop_the_others(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Exception, code: int
) -> None:
    def fails(*arguments: object, **options: object) -> object:
        if options["method"] == "ce":
            raise failing
        return noisyknn.clean(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "clean", fails)
    result = table("table1", *FEW, "--trials", "1")
    assert result.code == code
    assert f"1 cell failed: {CELL}: {failing}" in result.stderr
    assert "68.75" in result.stdout.decode()  # the table of the others
    assert [path.parent.name for path in (tmp_path / "out").glob("*/cell.json")] == ["mnist-symmetric-40-selknn-0"]


def test_accuracy_is_that_of_the_saved_network_on_the_test_images(
    table: Table, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that learnt clean digits is mostly right, and nearly never on labels that are one too large."""
    shifted = pd.read_csv(digits / "test.csv").assign(clean_label=lambda frame: (frame["clean_label"] + 1) % 10)
    wrong: list[float] = []

    def twice(network: Path, tests: HeldOut, config: Config) -> float:
        other = read_labels(shifted, label_column="clean_label")
        wrong.append(accuracy(network, HeldOut(digits / "images", other, tmp_path, Silent()), config))
        return accuracy(network, tests, config)

    monkeypatch.setattr(grid, "accuracy", twice)
    options = ["--methods", "ce", "--noise", "symmetric-0", "--trials", "1", "--epochs", "20", "--json"]
    (right,) = trials_of(table("table1", *options, "--width", "0.5"))
    assert right["accuracy"] > 0.6
    assert wrong[0] < 0.1
    assert right["recovery"] > 0.95


def test_asymmetric_noise_has_the_settings_of_the_sources(table: Table) -> None:
    few = ["--methods", "joint-optimization", "--methods", "pencil", "--trials", "1", "--json"]
    few += ["--noise", "asymmetric-100", "--noise", "symmetric-20"]  # the first leaves classes without labels
    found = {(cell["noise"], cell["method"]): cell["config"] for cell in trials_of(table("table1", *few))}
    assert found["asymmetric-100", "joint-optimization"]["entropy_weight"] == 0.4
    assert found["symmetric-20", "joint-optimization"]["entropy_weight"] == 0.8
    assert found["asymmetric-100", "pencil"]["label_rate"] == 4000
    assert found["asymmetric-100", "pencil"]["lr"] * found["asymmetric-100", "pencil"]["later_rate"] == pytest.approx(
        0.2
    )


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--methods", "elr"], 2, "--methods elr: choose from crossfit, selknn, iterknn, ce"),
        (["--noise", "uniform-20"], 2, "--noise 'uniform-20' is not of the form symmetric-40"),
        (["--noise", "symmetric-200"], 2, "per cent .0 to 100"),
        (["--label-column", "truth"], 3, "has no column 'truth'"),
        (["--rows", "5"], 3, "has classes without training rows"),
        (["--rows", "20", "--noise", "symmetric-90"], 3, r"the noise leaves a single row of the classes \d"),
        (["--test-labels", "nowhere.csv"], 3, "nowhere.csv: no such file"),
        (["--download"], 2, "give either --torchvision or|--download needs --torchvision"),
        (["--test-images", "."], 3, "100 files do not exist: 1697.png"),
        (["--methods", "selknn", "--k", "60"], 3, "selknn, symmetric-20: .*train.csv: too few rows for 60 neighbours"),
        (["--methods", "pencil", "--epochs", "2"], 2, "--epochs 2 is too few for pencil"),
        (["--torchvision", "nowhere"], 2, "give either --torchvision or --images"),
        (["--out", __file__], 2, "is not a folder"),
    ],
)
def test_what_cannot_run_is_refused_before_the_first_run(
    table: Table, options: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "clean", never)
    refused = table("table1", *options)
    assert refused.code == code
    assert re.search(message, refused.stderr)


def test_a_test_image_that_cannot_be_read_is_refused_before_the_first_run(
    table: Table, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits / "images", tmp_path / "broken")
    (tmp_path / "broken" / "1700.png").write_bytes(b"no image")
    monkeypatch.setattr(grid, "clean", never)
    refused = table("table1", *ONE, "--test-images", tmp_path / "broken")
    assert refused.code == 3
    assert "test.csv: 1 image cannot be read: row 4 '1700.png' (" in refused.stderr


def test_a_table_of_the_user_is_not_overwritten(table: Table, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    own = tmp_path / "out" / "cells.csv"
    own.write_text("mine")
    refused = table("table1", *ONE)
    assert (refused.code, own.read_text()) == (2, "mine")
    assert "cells.csv is not a table of this command; name another --out" in refused.stderr


def test_all_four_files_are_needed(cli: Cli, digits: Path, tmp_path: Path) -> None:
    refused = cli("paper", "table2", "--data-set", "cifar10", "--out", tmp_path, "--images", digits)
    assert refused.code == 2
    assert "give --images, --labels, --test-images and --test-labels, or --torchvision" in refused.stderr


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
    out = tmp_path / "out"
    few = ["--data-set", "mnist", "--methods", "sl", "--noise", "asymmetric-40", "--trials", "1", "--out", out, *CUT]
    assert cli("paper", "table1", *few, "--torchvision", tmp_path / "root").code == 0
    table = pd.read_csv(out / "data" / "mnist-train" / "labels.csv")
    assert table["clean_label"].tolist() == [row % 10 for row in range(60)]
    assert len(list((out / "data" / "mnist-test" / "images").iterdir())) == 20
    missing = cli("paper", "table1", *few, "--torchvision", tmp_path, "--out", tmp_path / "other")
    assert missing.code == 3
    assert "add --download to fetch it" in missing.stderr
    with pytest.raises(UsageError, match="contains something else; name another `out`"):
        torchvision_data._write([], out / "data" / "mnist-test", Silent())


def test_clothing1m_by_the_recipe_of_the_paper_cut_down(cli: Cli, tmp_path: Path) -> None:
    """Drawn images in the layout of Clothing1M: 48 noisy ones to train on, 12 verified ones to test on."""
    root, classes = tmp_path / "clothing", ["blue", "green", "red"]
    table = draw(root / "images", rows=60)
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
    backbone = build_backbone("resnet18", classes=3, image_size=32, seed=0)
    save_model(tmp_path / "weights.safetensors", backbone, {})
    cut = ["--backbone", "resnet18", "--weights", tmp_path / "weights.safetensors", "--image-size", "32"]
    cut += ["--epochs", "3", "--episodes", "2", "--k", "5", "--lr", "0.001", "--precision", "fp32"]
    few = [f"--methods={method}" for method in ("selknn", "ce", "pencil", "joint-optimization")]
    result = cli("paper", "table3", "--clothing1m", root, "--out", tmp_path / "out", *few, *cut, "--json")
    ce, joint, pencil, selknn = trials_of(result)
    assert json.loads(result.stdout)["table"][3]["paper"]["mean"] == 76.78
    assert {cell["config"]["optimizer"] for cell in (selknn, ce, pencil, joint)} == {"adam"}
    assert joint["config"]["batch_size"] == 64
    assert pencil["config"]["compatibility_weight"] == pytest.approx(0.112)
    assert (selknn["config"]["references_per_class"], selknn["config"]["store_size"]) == (10_000, 256)
    assert (selknn["config"]["episodes"], ce["config"]["episodes"], ce["config"]["loss"]) == (2, 1, "ce")
    assert selknn["recovery"] is None
    assert cli("paper", "table3", "--clothing1m", tmp_path, "--out", tmp_path / "x").code == 3


def test_the_papers_figures() -> None:
    assert [len(TEST_ACCURACY[name]) for name in ("mnist", "cifar10", "cifar100")] == [42] * 3
    assert TEST_ACCURACY["cifar100"]["selknn", "asymmetric-40"] == (63.32, 1.39)
    assert LABEL_RECOVERY["cifar10"]["selknn", "symmetric-40"] == (91.32, 0.22)
