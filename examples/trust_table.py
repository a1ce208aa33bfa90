#!/usr/bin/env python3
"""Measure noisyknn on clean, slightly noisy and very noisy labels, beside simple rules on the same run.

    trust_table.py DATA=FOLDER … [--seeds 0 1 2] [--only NAME …]

DATA is cifar10, mnist, digits, caltech, signs or trashnet. A FOLDER has ``images/`` and ``labels.csv`` with the columns
path and clean_label (label in caltech and signs); CIFAR-10's also aggre_label and random1_label (CIFAR-10N, Wei et al.
2022). Each row of the table is one whole-process run of ``noisyknn clean`` with default options; run nothing beside it
if its seconds matter. Each result goes to results/trust.json at once and does not run again. Needs cleanlab: pip
install 'noisyknn[bench]'.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from record import hardware, output

NOISYKNN = Path(sys.executable).with_name("noisyknn")
TABLE = Path(__file__).parent / "results" / "trust.json"
SYMMETRIC, ASYMMETRIC = ["--noise", "symmetric"], ["--noise", "asymmetric", "--map", "cifar10"]
TRUTH = {"caltech": "label", "signs": "label"}
"""The column of right labels, if it is not clean_label."""


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    data: str
    labels: str | list[str] = "clean"
    """Source of the given labels: the truth, a column, or the options of inject-noise."""
    classes: int | None = None
    """Number of classes, drawn with the seed; default: all."""
    rows: int | None = None
    """Number of rows per class, the first ones; default: all."""


def noisy(rate: float) -> list[str]:
    """Options of inject-noise for symmetric noise."""
    return [*SYMMETRIC, "--rate", str(rate)]


SUBSETS = {
    "caltech, 59 classes": Case("caltech"),
    "caltech, 20 classes": Case("caltech", classes=20),
    "caltech, 5 classes": Case("caltech", classes=5),
    "hand signs": Case("signs"),
    "trashnet": Case("trashnet"),
    "digits": Case("digits"),
    "digits, 30 rows a class": Case("digits", rows=30),
    "cifar10, 30 rows a class": Case("cifar10", rows=30),
    "cifar10, 100 rows a class": Case("cifar10", rows=100),
    "cifar10, 2 classes of 100 rows": Case("cifar10", classes=2, rows=100),
}
"""Data that the method was not tuned on: many classes, photographs, few rows."""
CASES = {
    "cifar10 clean": Case("cifar10"),
    "cifar10 symmetric 5 %": Case("cifar10", noisy(0.05)),
    "cifar10 people, aggregate": Case("cifar10", "aggre_label"),
    "cifar10 people, random1": Case("cifar10", "random1_label"),
    "cifar10 symmetric 40 %": Case("cifar10", noisy(0.4)),
    "cifar10 symmetric 60 %": Case("cifar10", noisy(0.6)),
    "cifar10 symmetric 80 %": Case("cifar10", noisy(0.8)),
    "cifar10 asymmetric 40 %": Case("cifar10", [*ASYMMETRIC, "--rate", "0.4"]),
    "mnist clean": Case("mnist"),
    "mnist symmetric 40 %": Case("mnist", noisy(0.4)),
    "mnist symmetric 80 %": Case("mnist", noisy(0.8)),
    **{
        name + suffix: dataclasses.replace(case, labels=labels)
        for name, case in SUBSETS.items()
        for suffix, labels in ((" clean", "clean"), (" symmetric 10 %", noisy(0.1)), (" symmetric 40 %", noisy(0.4)))
    },
}


def main() -> None:
    """Run the missing rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="DATA=FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    chosen = parser.parse_args()
    folders = dict(folder.split("=", 1) for folder in chosen.folders)
    for seed in chosen.seeds:
        for name in chosen.only:
            case = CASES[name]
            done = any(record["case"] == name and record["seed"] == seed for record in measured())
            if case.data in folders and not done:
                record = {"case": name, "seed": seed, **measure(Path(folders[case.data]), case, seed)}
                # read again: another process may have added rows
                TABLE.write_text(json.dumps([*measured(), record], indent=1) + "\n")
    show(measured())


def measured() -> list[dict]:
    """The results so far, sorted by row of the table and seed."""
    records = json.loads(TABLE.read_text()) if TABLE.exists() else []
    return sorted(records, key=lambda record: (list(CASES).index(record["case"]), record["seed"]))


def measure(data: Path, case: Case, seed: int) -> dict[str, object]:
    """Figures of a run on the images of `data`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table, fixed, probabilities = folder / "labels.csv", folder / "fixed.parquet", folder / "p.parquet"
        commands: list[list[object]] = []  # as run in the folder of the data
        summary, column, truth = folder / "summary.json", "given_label", "clean_label"
        rows = taken(pd.read_csv(data / "labels.csv").rename(columns={TRUTH.get(case.data, truth): truth}), case, seed)
        rows.assign(given_label=rows[truth]).to_csv(table, index=False)
        if isinstance(case.labels, list):
            column, wrong = "noisy_label", folder / "noisy.csv"
            labels = ["--labels", table, "--label-column", truth, "--out", wrong]
            run("inject-noise", *labels, *case.labels, "--seed", seed, "--quiet")
            shown = ["--labels", table.name, "--label-column", truth, "--out", wrong.name]
            commands.append(["inject-noise", *shown, *case.labels, "--seed", seed])
            table = wrong
        elif case.labels != "clean":
            column = case.labels
        options = ["--images", data / "images", "--labels", table, "--label-column", column, "--seed", seed]
        shown = ["--images", "images", "--labels", table.name, "--label-column", column, "--seed", seed]
        commands.append(["clean", *shown, "--out", fixed.name])
        started = time.perf_counter()
        options += ["--run-dir", folder / "run"]  # a stopped run would resume, and take less time
        run("clean", *options, "--out", fixed, "--save-probabilities", probabilities, "--summary", summary, "--quiet")
        seconds = time.perf_counter() - started
        judge = ["--label-column", column, "--truth-column", truth, "--probabilities", probabilities, "--json"]
        figures = json.loads(run("evaluate", fixed, *judge))
        told = json.loads(summary.read_text())
    return {
        **{name: figures[name] for name in ("given_accuracy", "recovery", "broken", "fixed", "calibration_error")},
        **{name: figures[name] for name in ("f1", "auroc", "rules", "reliability")},
        "estimated_noise_rate": told["estimated_noise_rate"],
        "expected_right": told["expected_right"],
        "status": told["status"],
        "config": told["config"],
        "seconds": round(seconds, 1),
        "command": " && ".join(shlex.join(map(str, ["noisyknn", *command])) for command in commands),
        "commit": output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": f"{hardware()}, {torch.get_num_threads()} used",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def taken(rows: pd.DataFrame, case: Case, seed: int) -> pd.DataFrame:
    """The rows of the case."""
    if case.classes is not None:
        classes = np.sort(rows["clean_label"].unique())
        rows = rows[rows["clean_label"].isin(np.random.default_rng(seed).permutation(classes)[: case.classes])]
    return rows if case.rows is None else rows.groupby("clean_label").head(case.rows)


def run(*command: object) -> str:
    """The output of a noisyknn command in this environment."""
    return subprocess.run([NOISYKNN, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def show(records: list[dict]) -> None:
    """Print all results."""
    print(f"{'given labels':44} seed  before   after  broken    ECE  noise  argmax    vote cleanlab  seconds")
    for one in records:
        rules = {rule["rule"]: 100 * rule["recovery"] for rule in one["rules"]}
        _, _, argmax, vote, cleanlab = rules.values()
        print(
            f"{one['case']:44} {one['seed']:4} {100 * one['given_accuracy']:7.2f} {100 * one['recovery']:7.2f} "
            f"{100 * one['broken']:7.2f} {one['calibration_error']:6.3f} "
            f"{100 * one['estimated_noise_rate']:6.2f} {argmax:7.2f} {vote:7.2f} {cleanlab:8.2f} "
            f"{one['seconds']:8.0f}"
        )


if __name__ == "__main__":
    main()
