"""The methods that the paper compares with, over whole runs."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import noisyknn
from noisyknn.data.noise import inject, transition_rows
from noisyknn.demo import write_digits
from noisyknn.errors import InterruptedRunError
from noisyknn.training.trainer import Trainer
from tests.small_data import FAST_SETTINGS, draw

BASELINES = ("ce", "sl", "joint-optimization", "pencil", "deep-knn")
SETTINGS: dict[str, Any] = {name: value for name, value in FAST_SETTINGS.items() if name != "loss"} | {"epochs": 4}


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")} for entry in history]


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("stopped_after", ["the first epochs", "its episode", "its network"])
def test_stopped_anywhere_it_ends_the_same(
    method: str, stopped_after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noisyknn.training.trainer.SECONDS_BETWEEN_CHECKPOINTS", -1)
    table = draw(tmp_path / "images")
    whole = noisyknn.clean(
        tmp_path / "images", table, method=method, save_model=tmp_path / "whole.safetensors", **SETTINGS
    )
    epochs = 0
    train_epoch = Trainer._train_epoch

    def counting(*arguments: Any) -> None:
        nonlocal epochs
        epochs += 1
        if stopped_after == "the first epochs" and epochs == 4:
            raise KeyboardInterrupt
        train_epoch(*arguments)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    settings = {
        "method": method,
        "save_model": tmp_path / "resumed.safetensors",
        "run_dir": tmp_path / "run",
        **SETTINGS,
    }
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_epoch", counting)
        if stopped_after == "its episode":
            patched.setattr("noisyknn.run.final_network", interrupted)
        elif stopped_after == "its network":
            patched.setattr("noisyknn.run.write_model", interrupted)
        with pytest.raises(InterruptedRunError):
            noisyknn.clean(tmp_path / "images", table, **settings)
    before, epochs = epochs, 0
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_epoch", lambda *arguments: counting(*arguments))
        stopped_after = "nothing"
        resumed = noisyknn.clean(tmp_path / "images", table, **settings)
    assert before > 0
    assert epochs < sum("epoch" in entry for entry in whole.history)  # not everything was trained again
    assert resumed.table.equals(whole.table)
    assert without_times(resumed.history) == without_times(whole.history)
    assert (tmp_path / "resumed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_the_filter_keeps_labels_and_calls_what_it_leaves_out_uncertain(tmp_path: Path) -> None:
    table = draw(tmp_path / "images", rows=120)
    table.loc[[50, 51], "label"] = None
    fixed = noisyknn.clean(tmp_path / "images", table, **{**SETTINGS, "method": "deep-knn", "epochs": 12}).table
    given = table["label"].notna()
    wrong = given & (table["label"] != table["clean_label"])
    assert (fixed["corrected_label"] == table["label"])[given].all()
    assert fixed["status"][~given].tolist() == ["filled", "filled"]
    assert fixed["corrected_label"][~given].tolist() == table["clean_label"][~given].tolist()
    assert set(fixed["status"][given]) == {"kept", "uncertain"}
    assert (fixed["status"] == "uncertain")[wrong].mean() > 0.9
    assert (fixed["status"] == "uncertain")[given & ~wrong].mean() < 0.1
    assert fixed["is_label_issue"].tolist() == (fixed["status"] == "uncertain").tolist()


@pytest.mark.slow
def test_on_digits_all_of_them_recover_more_than_cross_entropy(tmp_path: Path) -> None:
    digits = pd.read_csv(write_digits(tmp_path))
    noise = inject(digits["clean_label"].to_numpy(), transition_rows("symmetric", list(range(10)), 0.4), seed=0)
    table = digits.assign(label=noise)
    recovery = {}
    for method in BASELINES:
        fixed = noisyknn.clean(tmp_path / "images", table, method=method).table
        right = fixed["corrected_label"] == fixed["clean_label"]
        if method == "deep-knn":  # which corrects nothing: of what it keeps
            right = right[fixed["status"] == "kept"]
        recovery[method] = right.mean()
    assert recovery["ce"] < 0.75
    assert min(recovery[method] for method in BASELINES[1:]) > 0.95
