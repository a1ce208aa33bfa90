import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from noisyknn import machine
from noisyknn.cli.doctor import doctor
from noisyknn.errors import InterruptedRunError
from tests.cli.conftest import Cli


def test_an_interrupted_demo_promises_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise InterruptedRunError("interrupted; run the same command again to resume from /somewhere")

    monkeypatch.setattr(sys.modules["noisyknn.cli.demo"], "clean", interrupted)
    result = cli("demo")
    assert result.code == 130
    assert result.stderr.endswith("noisyknn: interrupted\n")


def test_doctor_tells_what_the_machine_has_and_what_clean_would_choose(cli: Cli) -> None:
    result = cli("doctor", "--json")
    assert (result.code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["cpu"]["usable_cores"] == len(os.sched_getaffinity(0))
    assert report["cpu"]["torch_threads"] == torch.get_num_threads()
    assert 0 < report["memory_available_gib"] < 10_000
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    choices = report["choices"]
    assert choices["precision"] in ("bf16", "fp32")
    assert choices["search"] in ("faiss", "torch")
    assert choices["episodes"] >= 1
    assert choices["epochs"] >= 1


def test_doctor_tells_what_unfinished_runs_keep(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> tuple[dict[str, Any], str]:
        """In JSON, and in the table, in which a long path is broken."""
        text = re.sub(r"[\s│]+", "", cli("doctor").stdout.decode())
        found = re.search("unfinishedruns(.*)noisyknn0", text)
        assert found is not None
        return json.loads(cli("doctor", "--json").stdout)["unfinished_runs"], found[1]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "[/red]"))
    runs = tmp_path / "[/red]" / "noisyknn" / "runs"
    assert told() == ({"folder": str(runs), "count": 0, "bytes": 0}, f"nonein{runs}")
    for name in ("one", "other"):
        (runs / name).mkdir(parents=True)
        (runs / name / "manifest.json").write_text("{")  # damaged ones take space, too
    (runs / "stray").touch()
    with (runs / "one" / "images.u8").open("wb") as images:
        images.truncate(1_500_000_000)
    assert told() == ({"folder": str(runs), "count": 2, "bytes": 1_500_000_002}, f"2in{runs},1.5GB")
    shutil.rmtree(runs)
    runs.touch()
    assert told() == ({"folder": str(runs), "error": "Not a directory"}, f"{runs}cannotberead:Notadirectory")


def test_doctor_on_a_machine_without_gpu_bf16_and_faiss(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(machine, "bf16_features", list)
    monkeypatch.setattr("noisyknn.training.device.bf16_features", list)
    monkeypatch.setattr("noisyknn.knn.faiss_search.is_installed", lambda: False)
    monkeypatch.setattr(machine, "_PACKAGES", ("noisyknn", "no-such-package"))
    shown = cli("doctor").stdout.decode()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    for row in (
        ["bf16 instructions", "none: training uses fp32"],
        ["GPU", "none that torch can use"],
        ["no-such-package", "not installed"],
        ["device", "cpu"],
        ["precision", "fp32"],
        ["search", "torch"],
        ["backbone", "cnn8"],
    ):
        assert row in cells


def test_doctor_says_bf16_only_of_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # emulated, on the second
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(9, 0), (7, 5)][device.index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (machine.GIB, 2 * machine.GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rooms = {"memory_gib": 2.0, "free_gib": 1.0}
    assert machine.examine()["gpus"] == [
        {"name": "GPU 0", **rooms, "bf16": True},
        {"name": "GPU 1", **rooms, "bf16": False},
    ]


def test_doctor_names_every_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = [
        {"name": "A", "memory_gib": 8.0, "free_gib": 7.5, "bf16": True},
        {"name": "B", "memory_gib": 4.0, "free_gib": 1.0, "bf16": False},
    ]
    report = machine.examine() | {"gpus": gpus}
    monkeypatch.setattr(machine, "examine", lambda: report)
    doctor()
    assert "A, 7.5 of 8.0 GiB free, bf16 yes; B, 1.0 of 4.0 GiB free, bf16 no" in capsys.readouterr().out


def test_demo_keeps_its_files_in_a_new_folder_only(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    result = cli("demo", "--keep", tmp_path)
    assert (result.code, result.stdout) == (2, b"")
    assert f"--keep {tmp_path} exists already; name a new folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_demo_where_its_folder_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = cli("demo", "--keep", tmp_path / "file" / "demo")
    assert (result.code, result.stdout) == (1, b"")
    assert "Not a directory" in result.stderr
    assert "bug in noisyknn" not in result.stderr


@pytest.mark.parametrize("option", [["--seed", "-1"], ["--seed", "x"], ["--sead", "1"]])
def test_demo_refuses_wrong_options(cli: Cli, option: list[str]) -> None:
    assert cli("demo", *option).code == 2


@pytest.mark.slow
def test_demo_recovers_the_digits(cli: Cli, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "new" / "demo"
    result = cli("demo", "--keep", folder)
    assert result.code == 0
    recovery = re.search(r"recovery +│ (0\.\d{4}) ", result.stdout.decode())
    assert recovery is not None
    assert float(recovery[1]) >= 0.95
    assert sorted(path.name for path in folder.iterdir()) == ["fixed.parquet", "images", "labels.csv", "noisy.csv"]
    table = pd.read_parquet(folder / "fixed.parquet")
    assert len(table) == 1797
    assert 0.35 < (table["noisy_label"] != table["clean_label"]).mean() < 0.45
    assert (table["corrected_label"] == table["clean_label"]).mean() == pytest.approx(float(recovery[1]), abs=1e-4)
    assert list(cache.iterdir()) == []
    for command in ("inject-noise --labels", "clean --images", "evaluate"):
        assert f"noisyknn: $ noisyknn {command} " in result.stderr
