import dataclasses
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

import noisyknn
from noisyknn import api
from noisyknn.calibration.decide import Verdict, decide
from noisyknn.models.model_file import load_model
from noisyknn.output import NEW_COLUMNS
from noisyknn.training.plan import Eq7, Plan
from noisyknn.training.trainer import Trainer
from tests.cli.conftest import Cli
from tests.small_data import FAST_SETTINGS, as_options, contents

MAIN = "from noisyknn.cli import main; main()"
STATUSES = ("kept", "corrected", "uncertain", "filled", "unreadable")
AWKWARD = 'a "quoted", cell\nof two lines'


@pytest.fixture
def fixed(data: Path) -> Path:
    return data / "out" / "fixed.csv"


def test_the_table_comes_back_with_its_labels_mended(clean: Cli, data: Path, fixed: Path, cache: Path) -> None:
    before = contents(data)
    result = clean("--epochs", 24, "--loss", "sce", "--out", fixed)
    assert (result.code, result.stdout) == (0, b"")
    assert {name: raw for name, raw in contents(data).items() if name != "out/fixed.csv"} == before
    assert contents(cache) == {}
    given, table = pd.read_csv(data / "labels.csv"), pd.read_csv(fixed)
    assert list(table.columns) == [*given.columns, *NEW_COLUMNS]
    assert table[list(given.columns)].equals(given)
    assert (given["label"] == given["clean_label"]).mean() < 0.9
    assert (table["corrected_label"] == table["clean_label"]).mean() > 0.9
    assert (table["corrected_label"] == table["clean_label"])[given["label"] == given["clean_label"]].all()
    changed, issue = table["corrected_label"] != table["label"], table["is_label_issue"]
    assert (issue == (changed | (table["label_score"] < 0.5))).all()
    assert (table["status"] == np.select([changed, issue], ["corrected", "uncertain"], "kept")).all()
    assert table["confidence"].between(0, 1).all()
    assert table["label_score"].between(0, 1).all()
    wrong = given["label"] != given["clean_label"]
    assert table["label_score"][wrong].max() < table["label_score"][~wrong].median()
    assert table["cumulative_loss"].notna().all()


def test_what_is_told_on_the_way(clean: Cli, fixed: Path) -> None:
    told = clean("--truth-column", "clean_label").stderr
    assert "noisyknn: preset auto: 48 labels, 3 classes, colour images of about 12 pixels, on " in told
    assert "crossfit, k = 4, 2 folds" in told
    assert "cnn5 of width 0.25 at 16 pixels; 2 × 1 epochs" in told
    assert re.search(r"episode 2 of 2: 24 references, \d+ labels differ from the given ones, recovery \d+\.\d\d%", told)
    assert "│ unreadable" in told
    assert re.search(r"│ recovery \(truth\) +│ +│ \d+\.\d\d%", told)
    assert told.endswith(f"noisyknn: wrote {fixed}\n")


def test_quiet_is_silent(clean: Cli) -> None:
    assert clean("--quiet").stderr == ""


def test_the_same_seed_gives_the_same_bytes_and_another_others(clean: Cli, data: Path) -> None:
    outs = [data / "out" / f"{i}.csv" for i in range(3)]
    for out, seed in zip(outs, (5, 5, 6), strict=True):
        assert clean("--out", out, "--seed", seed).code == 0
    first, again, other = (out.read_bytes() for out in outs)
    assert first == again != other


def test_true_labels_are_never_learnt_from(clean: Cli, data: Path, fixed: Path) -> None:
    told = data / "out" / "told.csv"
    assert clean("--truth-column", "clean_label", "--out", told).code == clean().code == 0
    assert told.read_bytes() == fixed.read_bytes()


def test_standard_streams(clean: Cli, data: Path, fixed: Path) -> None:
    raw = (data / "labels.csv").read_bytes()
    piped = clean("--labels", "-", "--out", "-", "--quiet", stdin=raw)
    assert (piped.code, piped.stderr) == (0, "")
    clean()
    assert piped.stdout == fixed.read_bytes()
    assert piped.stdout.startswith(b"path,label,clean_label,corrected_label,")
    parquet = clean("--out", "-", "--format", "parquet")
    assert pd.read_parquet(io.BytesIO(parquet.stdout))["path"].tolist() == pd.read_csv(fixed)["path"].tolist()
    from_parquet = clean("--labels", "-", "--out", "-", stdin=_to_parquet(pd.read_csv(data / "labels.csv")))
    assert from_parquet.stdout == piped.stdout


def _to_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def test_parquet_keeps_the_types_of_all_columns(clean: Cli, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    columns = {
        "id": pa.array(range(len(table)), pa.uint64()),
        "image": pa.array(table["path"], pa.large_string()),
        "day": pa.array(np.arange(len(table)).astype("datetime64[D]")),
        "given_label": pa.array(table["label"].map({"blue": 30, "green": 4, "red": 100}), pa.int16()),
        "note": pa.array([AWKWARD, None] * 24),
        "tags": pa.array([["a"], []] * 24),
    }
    source, out = data / "labels.PARQUET", data / "out" / "fixed.pq"
    pq.write_table(pa.table(columns), source)
    assert clean("--labels", source, "--out", out).code == 0
    before, after = pq.read_table(source), pq.read_table(out)
    assert after.column_names == [*columns, *NEW_COLUMNS]
    for name in columns:
        assert after.column(name).to_pylist() == before.column(name).to_pylist()
    assert [after.schema.field(name).type for name in ("id", "day", "given_label", "tags")] == [
        before.schema.field(name).type for name in ("id", "day", "given_label", "tags")
    ]
    assert after.schema.field("corrected_label").type == pa.int16()
    assert set(after.column("corrected_label").to_pylist()) <= {30, 4, 100}
    types = {name: str(after.schema.field(name).type) for name in NEW_COLUMNS[1:5]}
    assert types == {
        "confidence": "double",
        "cumulative_loss": "double",
        "label_score": "double",
        "is_label_issue": "bool",
    }


def test_columns_and_cells_of_any_kind_pass_through_a_csv(clean: Cli, data: Path, fixed: Path) -> None:
    table = pd.read_csv(data / "labels.csv").drop(columns="clean_label")
    table = table.rename(columns={"path": "My File", "label": 'the "class"'})[::-1]
    table.insert(0, "zip", "00420")
    table.insert(1, "note", AWKWARD)
    text = table.replace("red", "rød, dark").to_csv(index=False)
    (data / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    options = ["--path-column", "My File", "--label-column", 'the "class"']
    assert clean(*options).code == 0
    after = pd.read_csv(fixed, dtype={"zip": str})
    assert after[list(table.columns)].to_csv(index=False) == text
    assert set(after["corrected_label"]) == {"blue", "green", "rød, dark"}


def test_rows_without_a_label_get_one(clean: Cli, data: Path, fixed: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    missing = {4: "", 11: "nan", 20: "NaN", 33: " "}
    for row, cell in missing.items():
        table.loc[row, "label"] = cell
    table.to_csv(data / "labels.csv", index=False)
    result = clean("--epochs", 8)
    assert result.code == 0
    after = pd.read_csv(fixed, keep_default_na=False)
    filled = after.iloc[list(missing)]
    assert (after["status"] == "filled").tolist() == [row in missing for row in range(48)]
    assert filled["label"].tolist() == list(missing.values())
    assert (filled["corrected_label"] == filled["clean_label"]).mean() >= 0.75
    assert (filled["label_score"] == "").all()
    assert (filled["confidence"] != "").all()
    assert not (filled["is_label_issue"] == "True").any()
    assert after["corrected_label"].isin(["blue", "green", "red"]).all()


def test_null_labels_of_a_parquet_file_are_filled(clean: Cli, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    numbers = pa.array([None if row == 9 else row % 3 for row in range(48)], pa.int8())
    pq.write_table(pa.table({"path": table["path"].tolist(), "label": numbers}), data / "labels.parquet")
    out = data / "out" / "fixed.parquet"
    assert clean("--labels", data / "labels.parquet", "--out", out).code == 0
    after = pq.read_table(out)
    assert after.column("label")[9].as_py() is None
    assert after.column("status")[9].as_py() == "filled"
    assert after.column("corrected_label").null_count == 0


def test_the_summary_holds_the_figures_of_the_run(clean: Cli, data: Path, fixed: Path) -> None:
    file = data / "out" / "summary.json"
    result = clean("--summary", file, "--truth-column", "clean_label", "--seed", 3)
    assert result.code == 0
    summary, table = json.loads(file.read_text()), pd.read_csv(fixed)
    assert summary["rows"] == 48
    assert summary["config"]["seed"] == 3
    assert summary["config"]["backbone"] == "cnn5"
    assert summary["seconds"] >= 0
    counts = table["status"].value_counts()
    assert summary["status"] == {name: counts.get(name, 0) for name in STATUSES}
    assert summary["classes"] == [
        {"label": c, "given": int((table["label"] == c).sum()), "corrected": int((table["corrected_label"] == c).sum())}
        for c in ("blue", "green", "red")
    ]
    given, corrected = (table[name] == table["clean_label"] for name in ("label", "corrected_label"))
    scores = table["label_score"]
    assert summary["estimated_noise_rate"] == pytest.approx(1 - scores.mean(), abs=1e-5)
    assert summary["expected_right"] == pytest.approx(
        {"before": scores.mean(), "after": table["confidence"].mean()}, abs=1e-5
    )
    assert 0 <= summary["no_class"] < 5
    flipped = sum(flip["rows"] for flip in summary["flips"])
    assert flipped + summary["no_class"] <= 48 * summary["estimated_noise_rate"] + 0.5  # none counts twice
    assert 0 <= summary["doubt"] <= 0.5
    assert f"images of no class, expected  │ {summary['no_class']:,.0f} " in result.stderr
    assert 0 <= summary["truth"].pop("calibration_error") < 0.5
    assert summary["truth"] == pytest.approx(
        {
            "given_accuracy": given.mean(),
            "recovery": corrected.mean(),
            "broken": (given & ~corrected).mean(),
            "fixed": (~given & corrected).mean(),
        }
    )


def test_truth_that_is_known_of_some_rows_only(clean: Cli, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    table.loc[5:, "clean_label"] = ""
    table.loc[0:1, "clean_label"] = "purple"
    table.to_csv(data / "labels.csv", index=False)
    for row in range(5):
        (data / "images" / f"{row:02d}.png").unlink()
    file = data / "out" / "summary.json"
    result = clean("--truth-column", "clean_label", "--summary", file)
    assert result.code == 0
    assert json.loads(file.read_text())["truth"] == {
        "given_accuracy": 0.6,
        "recovery": 0.6,
        "broken": 0,
        "fixed": 0,
        "calibration_error": None,
    }


def test_a_dataframe_gives_the_result_of_the_command_line(clean: Cli, data: Path) -> None:
    frame = pd.read_csv(data / "labels.csv").set_index(pd.Index(range(100, 148)))
    before = frame.copy(deep=True)
    result = noisyknn.clean(data / "images", frame, **FAST_SETTINGS)
    assert frame.equals(before)
    assert clean("--out", data / "out" / "fixed.parquet").code == 0
    table = pd.read_parquet(data / "out" / "fixed.parquet")
    assert result.table.index.equals(frame.index)
    pd.testing.assert_frame_equal(result.table.reset_index(drop=True), table, check_dtype=False)
    assert result.summary["rows"] == 48
    assert [entry.get("epoch") for entry in result.history] == [0, 1, None] * 2  # half of the rows, twice as often


def test_probabilities_are_written_row_by_row(clean: Cli, data: Path, fixed: Path) -> None:
    file = data / "out" / "p.parquet"
    (data / "images" / "05.png").unlink()
    assert clean("--save-probabilities", file).code == 0
    frame, table = pd.read_parquet(file), pd.read_csv(fixed)
    assert list(frame.columns) == ["path", "vote", "p(blue)", "p(green)", "p(red)"]
    assert frame["path"].equals(table["path"])
    readable = table["status"] != "unreadable"
    assert readable.tolist() == [row != 5 for row in range(48)]
    numbers = frame[["p(blue)", "p(green)", "p(red)"]]
    assert (numbers.isna().all(axis=1) == ~readable).all()
    np.testing.assert_allclose(numbers[readable].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(("limit", "code"), [(1, 0), (0, 4)])
def test_too_much_noise_ends_with_a_code_of_its_own(clean: Cli, fixed: Path, limit: float, code: int) -> None:
    file = fixed.with_name("summary.json")
    result = clean("--max-noise", limit, "--summary", file)
    assert result.code == code
    assert len(pd.read_csv(fixed)) == 48  # written all the same
    rate = json.loads(file.read_text())["estimated_noise_rate"]
    told = f"the estimated noise rate is {rate:.2%}, above --max-noise 0; check the labels\n"
    assert result.stderr.endswith(told) == (code == 4)


def test_labels_that_images_tell_nothing_of_pass_no_limit_that_random_ones_would_exceed(clean: Cli, data: Path) -> None:
    table = pd.read_csv(data / "labels.csv")
    table["label"] = np.random.default_rng(0).permutation(table["label"].to_numpy())
    table.to_csv(data / "labels.csv", index=False)
    result = clean("--max-noise", 0.6)
    assert result.code == 4
    shares = table["label"].value_counts(normalize=True)
    assert f"if they are random, {1 - (shares**2).sum():.2%} of them are wrong, above" in result.stderr
    assert clean("--max-noise", 0.7, "--overwrite").code == 0


def test_what_is_estimated_is_qualified_where_networks_have_seen_the_labels(clean: Cli) -> None:
    doubt = (
        "--method ce judges labels that it trained on: the noise rate may be too low and confidence is miscalibrated; "
        "for calibrated figures use --method crossfit\n"
    )
    told = clean("--method", "ce", "--max-noise", 1).stderr
    assert doubt in told
    assert "episode 1 of 1: 48 labels trained on, " in told
    assert doubt in clean("--method", "ce", "--overwrite").stderr
    assert clean("--method", "ce", "--max-noise", 1, "--overwrite", "--quiet").stderr == ""
    assert "under-estimated" not in clean("--overwrite").stderr


def test_every_vote_is_applied_where_the_paper_is_followed(clean: Cli, data: Path, fixed: Path) -> None:
    file = data / "out" / "p.parquet"
    assert clean("--policy", "paper", "--save-probabilities", file).code == 0
    assert pd.read_csv(fixed)["corrected_label"].equals(pd.read_parquet(file)["vote"])


def test_without_the_confidence_no_label_is_changed(clean: Cli, fixed: Path) -> None:
    assert clean("--min-confidence", 1).code == 0
    table = pd.read_csv(fixed)
    assert table["corrected_label"].equals(table["label"])
    assert {"kept", "uncertain"} >= set(table["status"])


def test_a_saved_model_can_be_loaded_and_started_from(clean: Cli, data: Path, fixed: Path) -> None:
    file = data / "out" / "model.safetensors"
    result = clean("--save-model", file)
    assert result.code == 0
    model, metadata = load_model(file)
    assert (model.spec.name, model.spec.classes, model.spec.width) == ("cnn5", 3, 0.25)
    assert metadata["classes"] == ["blue", "green", "red"]
    assert len(metadata["mean"]) == len(metadata["std"]) == 3
    assert clean("--weights", file, "--out", data / "out" / "warm.csv").code == 0
    assert (data / "out" / "warm.csv").read_bytes() != fixed.read_bytes()
    assert "does not fit cnn5" in clean("--weights", file, "--width", 1, "--out", data / "out" / "x.csv").stderr


@pytest.mark.parametrize("options", [[], ["--method", "iterknn"], ["--policy", "paper"]])
def test_a_saved_model_learns_the_labels_of_the_table(
    clean: Cli, data: Path, fixed: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = []

    def remember(trainer: Trainer, plan: Plan) -> object:
        if isinstance(plan.objective, Eq7):
            learnt.append((plan.objective.labels, plan.objective.gamma, plan.episode))
        return train(trainer, plan)

    train = Trainer.train
    monkeypatch.setattr(Trainer, "train", remember)
    # one label is changed by hand in each, so that what is learnt cannot be what an episode ended with
    monkeypatch.setattr("noisyknn.run.decide", lambda *arguments: swapped(decide(*arguments)))
    assert clean(*options, "--save-model", data / "out" / "model.safetensors").code == 0
    labels, gamma, episode = learnt[-1]
    names = pd.read_csv(fixed)["corrected_label"]
    assert [["blue", "green", "red"][label] for label in labels.tolist()] == names.tolist()
    assert (gamma, episode) == (0, 2)


def swapped(verdict: Verdict) -> Verdict:
    """With another label for the first sample."""
    labels = verdict.labels.clone()
    labels[0] = (labels[0] + 1) % 3
    return dataclasses.replace(verdict, labels=labels)


def test_a_model_is_the_same_for_the_same_seed(clean: Cli, data: Path) -> None:
    files = [data / "out" / f"{i}.safetensors" for i in range(2)]
    for file in files:
        assert clean("--save-model", file, "--overwrite").code == 0
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "selknn"],
        ["--method", "iterknn"],
        ["--method", "ce"],
        ["--method", "sl"],
        ["--method", "joint-optimization"],
        ["--method", "deep-knn"],
        ["--method", "selknn", "--selector", "o2u"],
        ["--folds", "3", "--episodes", "3"],
        ["--layer", "stage1"],
        ["--precision", "bf16"],
        ["--loss", "sce"],
        ["--k", "2"],
        ["--method", "selknn", "--gamma-decay", "9"],
        ["--method", "selknn", "--reference-start", "0.9"],
        ["--method", "selknn", "--reference-step", "0.5"],
        ["--batch-size", "7"],
        ["--lr", "0.5"],
        ["--image-size", "20"],
        ["--width", "0.5"],
    ],
)
def test_every_setting_acts(clean: Cli, options: list[str]) -> None:
    base = options[:2] if options[0] == "--method" and len(options) > 2 else []
    plain, other = (clean("--quiet", "--out", "-", *extra).stdout for extra in (base, options))
    assert plain != other
    assert b"" not in (plain, other)


def test_pencil_needs_an_epoch_for_each_of_its_stages(clean: Cli) -> None:
    refused = clean("--method", "pencil", "--epochs", "2", "--out", "-")
    assert refused.code == 2
    assert "--epochs 2 is too few for pencil" in refused.stderr
    assert clean("--method", "pencil", "--epochs", "3", "--out", "-").code == 0


@pytest.mark.parametrize(
    ("preset", "backbone", "image_size"),
    [("mnist", "cnn5", 28), ("cifar10", "preact_resnet32", 32), ("cifar100", "preact_resnet56", 32)],
)
def test_a_preset_of_the_paper_cut_down(cli: Cli, data: Path, preset: str, backbone: str, image_size: int) -> None:
    file = data / "out" / "summary.json"
    own = ["--images", data / "images", "--labels", data / "labels.csv", "--out", data / "out" / "x.csv"]
    cut = ["--epochs", 1, "--episodes", 1, "--k", 3, "--width", 0.25]
    result = cli("clean", *own, *cut, "--preset", preset, "--summary", file)
    assert result.code == 0
    assert f"preset {preset}, as in the paper\n" in result.stderr
    assert f"{backbone} of width 0.25 at {image_size} pixels; 1 × 1 epochs" in result.stderr
    config = json.loads(file.read_text())["config"]
    assert (config["loss"], config["optimizer"], config["reference_start"]) == ("sce", "adam", 0.2)


def test_the_preset_of_clothing1m_cut_down(clean: Cli, data: Path) -> None:
    small = ["--backbone", "resnet18", "--width", 1, "--image-size", 32]
    weights, file = data / "out" / "resnet18.safetensors", data / "out" / "summary.json"
    assert clean(*small, "--save-model", weights, "--method", "selknn", "--episodes", 1).code == 0
    options = [*small, "--weights", weights, "--episodes", 1, "--k", 3, "--summary", file, "--overwrite"]
    assert clean("--preset", "clothing1m", *options).code == 0
    config = json.loads(file.read_text())["config"]
    assert (config["fit"], config["references_per_class"], config["batch_size"]) == ("crop", 10_000, 64)


def test_a_file_overrides_the_preset_and_options_override_the_file(clean: Cli, data: Path) -> None:
    (data / "c.toml").write_text("k = 2\nlabel-smoothing = 0.3\ncrop_padding = 3\n")
    file = data / "out" / "summary.json"
    assert clean("--config", data / "c.toml", "--summary", file).code == 0
    config = json.loads(file.read_text())["config"]
    assert config["k"] == 4  # of the options
    assert (config["label_smoothing"], config["crop_padding"]) == (0.3, 3)  # of the file
    assert (config["optimizer"], config["schedule"]) == ("muon", "one-cycle")  # of the preset


def test_sub_folders_absolute_paths_and_upper_case_endings(clean: Cli, data: Path, fixed: Path) -> None:
    table, images = pd.read_csv(data / "labels.csv"), data / "images"
    (images / "a b" / "ü").mkdir(parents=True)
    (images / "00.png").rename(images / "a b" / "ü" / "00.PNG")
    table.loc[0, "path"] = "./a b/ü/00.PNG"
    table.loc[1, "path"] = str(images / "01.png")
    table.to_csv(data / "labels.csv", index=False)
    assert clean().code == 0
    assert "unreadable" not in pd.read_csv(fixed)["status"].tolist()


def test_names_that_are_not_utf8(clean: Cli, data: Path, fixed: Path, cache: Path) -> None:
    odd, out = os.fsdecode(b"\xff"), data / "out" / os.fsdecode(b"\xe9.csv")
    assert clean().code == 0
    (data / "images").rename(data / f"images{odd}")
    (data / "labels.csv").rename(data / f"labels{odd}.csv")
    others = [
        "--run-dir",
        data / f"run{odd}",
        "--summary",
        data / f"{odd}.json",
        "--save-model",
        data / f"{odd}.safetensors",
    ]
    result = clean("--images", data / f"images{odd}", "--labels", data / f"labels{odd}.csv", "--out", out, *others)
    assert result.code == 0, result.stderr
    assert out.read_bytes() == fixed.read_bytes()
    manifest = json.loads((data / f"run{odd}" / "manifest.json").read_text())
    assert manifest["input"]["table"] == str(data / f"labels{odd}.csv")
    assert contents(cache) == {}


def test_the_commands_fit_into_one_pipe(data: Path) -> None:
    python = f"{shlex.quote(sys.executable)} -c {shlex.quote(MAIN)}"
    script = (
        f"cut -d, -f1,3 labels.csv"
        f" | {python} inject-noise --labels - --out - --noise symmetric --rate 0.2 --quiet"
        f" | {python} clean --images images --labels - --out - --quiet {' '.join(as_options(FAST_SETTINGS))}"
        f" | {python} evaluate - --truth-column clean_label --json"
    )
    done = subprocess.run(["sh", "-c", script], cwd=data, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    figures = json.loads(done.stdout)
    assert figures["rows"] == figures["evaluated_rows"] == 48
    assert figures["given_accuracy"] == pytest.approx(0.8, abs=0.05)
    assert figures["recovery"] >= figures["given_accuracy"]  # of so few images not every network learns enough to mend


def read_all(descriptor: int) -> bytes:
    """Everything that is written to a terminal until its other end is closed."""
    parts = []
    try:
        while part := os.read(descriptor, 4096):
            parts.append(part)
    except OSError:  # how Linux tells that the other end is closed
        pass
    return b"".join(parts)


def test_a_terminal_is_shown_a_bar_and_nothing_else_is(clean: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    drawn: list[bytes] = []
    reader = threading.Thread(target=lambda: drawn.append(read_all(master)))
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch, os.fdopen(slave, "w") as terminal:
        patch.setattr(sys, "stderr", terminal)
        result = clean()
    reader.join()
    os.close(master)
    assert (result.code, result.stdout) == (0, b"")
    shown = drawn[0].decode()
    assert "━" in shown
    assert "images/s" in shown
    assert "\x1b[" in shown
    assert "episode 2 of 2: 24 references" in shown
    plain = clean("--overwrite").stderr
    assert "episode 2 of 2: 24 references" in plain
    assert "images/s" not in plain
    assert "\x1b" not in plain


def test_a_run_directory_keeps_what_the_run_was(clean: Cli, data: Path, fixed: Path, cache: Path) -> None:
    run = data / "out" / "run"
    assert clean("--run-dir", run).code == 0
    assert sorted(path.name for path in run.iterdir() if path.name != "run.lock") == [
        "episode-0000.safetensors",
        "episode-0001.safetensors",
        "history.json",
        "manifest.json",
    ]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["config"]["seed"] == 0
    assert manifest["versions"]["noisyknn"] == noisyknn.__version__
    assert manifest["input"]["rows"] == 48
    assert len(manifest["input"]["sha256"]) == 64
    assert manifest["results"]["rows"] == 48
    history = json.loads((run / "history.json").read_text())
    assert [(entry["episode"], entry.get("epoch")) for entry in history] == [
        *[(0, 0), (0, 1), (0, None)],
        *[(1, 0), (1, 1), (1, None)],
    ]
    for *epochs, episode in (history[:3], history[3:]):
        assert sum(epoch["seconds"] for epoch in epochs) <= episode["seconds"] + 0.01
    assert sum(entry["seconds"] for entry in history if "epoch" not in entry) <= manifest["results"]["seconds"] + 0.1
    assert contents(cache) == {}
    in_cache = data / "out" / "other.csv"
    clean("--out", in_cache)
    assert in_cache.read_bytes() == fixed.read_bytes()


def test_a_finished_run_is_no_result_until_it_is_started_anew(clean: Cli, data: Path, fixed: Path) -> None:
    run, out = data / "out" / "run", data / "out" / "again.csv"
    assert clean("--run-dir", run).code == 0
    before = contents(data)
    result = clean("--run-dir", run, "--out", out)
    assert result.code == 2
    assert f"the run in {run} is finished; add --overwrite to start anew, or name another --run-dir" in result.stderr
    assert contents(data) == before
    result = clean("--run-dir", run, "--out", out, "--overwrite")
    assert result.code == 0
    assert "episode 1 of 2" in result.stderr
    assert out.read_bytes() == fixed.read_bytes()


def test_a_run_of_other_settings_or_input_is_refused_naming_the_difference(clean: Cli, data: Path) -> None:
    run, out = data / "out" / "run", data / "out" / "again.csv"
    assert clean("--run-dir", run).code == 0
    result = clean("--run-dir", run, "--out", out, "--seed", 7, "--k", 3)
    assert result.code == 2
    assert f"the run in {run} belongs to another run (k was 4, is 3, seed was 0, is 7); add --" in result.stderr
    (data / "images" / "00.png").write_bytes((data / "images" / "01.png").read_bytes())
    result = clean("--run-dir", run, "--out", out)
    assert result.code == 2
    assert re.search(r"belongs to another run \(sha256 was '\w+\.\.\.\w+', is '\w+\.\.\.\w+'\)", result.stderr)
    assert not out.exists()
    assert clean("--run-dir", run, "--out", out, "--overwrite", "--seed", 7).code == 0


@pytest.mark.parametrize("name", ["episode-0001.safetensors", "history.json"])
def test_a_damaged_run_is_told_and_goes_on_without_the_file(clean: Cli, data: Path, fixed: Path, name: str) -> None:
    run = data / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_before_writing(patch)
        assert clean("--run-dir", run).code == 130
    saved = {"labels": torch.full((48,), 99), "cumulative_loss": torch.zeros(48)}
    content = b'{"a": 1}' if name == "history.json" else safetensors.torch.save(saved)
    (run / name).write_bytes(content)
    result = clean("--run-dir", run)
    assert result.code == 1
    assert re.search(rf"{run / name} is damaged \(.*\); delete it and rerun; that part is recomputed", result.stderr)
    (run / name).unlink()
    assert clean("--run-dir", run).code == 0
    clean("--out", data / "out" / "undisturbed.csv")
    assert fixed.read_bytes() == (data / "out" / "undisturbed.csv").read_bytes()


def stop_before_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "write_table", stop)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("in_cache", [True, False])
def test_an_unfinished_run_goes_on_even_with_overwrite(
    clean: Cli, data: Path, cache: Path, fixed: Path, overwrite: list[str], in_cache: bool
) -> None:
    run_dir = [] if in_cache else ["--run-dir", data / "run"]
    with pytest.MonkeyPatch.context() as patch:
        stop_before_writing(patch)
        result = clean(*run_dir)
    assert result.code == 130
    folder = next((cache / "noisyknn" / "runs").iterdir()) if in_cache else data / "run"
    assert f"noisyknn: interrupted; run the same command again to resume from {folder}\n" in result.stderr
    assert contents(data / "out") == {}
    result = clean(*run_dir, *overwrite)
    assert result.code == 0
    assert "episode 1 of 2" not in result.stderr
    assert contents(cache) == {}
    clean("--out", data / "out" / "undisturbed.csv")
    assert fixed.read_bytes() == (data / "out" / "undisturbed.csv").read_bytes()


def test_a_gpu_that_is_too_small_is_told_with_its_cure(clean: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("noisyknn.training.trainer.Trainer.train", fill)
    result = clean()
    assert result.code == 1
    assert "noisyknn: the GPU has too little free memory; delete " in result.stderr
    assert "and start again with a smaller --batch-size" in result.stderr


def test_a_run_directory_in_use_is_refused(clean: Cli, data: Path) -> None:
    run = data / "out" / "run"
    run.mkdir()
    with filelock.FileLock(run / "run.lock"):
        result = clean("--run-dir", run)
    assert result.code == 1
    assert f"another noisyknn is running in {run}; wait for it, or name another --run-dir" in result.stderr
    assert not (data / "out" / "fixed.csv").exists()


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_folder_of_something_else_is_no_run_directory(clean: Cli, data: Path, overwrite: list[str]) -> None:
    before = contents(data)
    result = clean("--run-dir", data / "images", *overwrite)
    assert result.code == 2
    assert f"{data / 'images'} contains files that are not of a run (00.png, 01.png" in result.stderr
    result = clean("--run-dir", data / "labels.csv", *overwrite)
    assert result.code == 2
    assert "is not a folder; name a new or empty one" in result.stderr
    assert contents(data) == before


def test_existing_outputs_are_replaced_when_asked(clean: Cli, data: Path, fixed: Path) -> None:
    others = [data / "out" / "s.json", data / "out" / "m.safetensors"]
    for file in (fixed, *others):
        file.write_text("old")
    options = ["--summary", others[0], "--save-model", others[1], "--overwrite"]
    assert clean(*options).code == 0
    assert all(file.stat().st_size > 100 for file in (fixed, *others))


def test_every_search_gives_the_same_table(clean: Cli) -> None:
    pytest.importorskip("faiss", reason="needs faiss")
    tables = {clean("--quiet", "--out", "-", "--search", search).stdout for search in ("torch", "faiss", "auto")}
    assert len(tables) == 1
    assert tables != {b""}
