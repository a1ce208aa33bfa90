#!/usr/bin/env python3
"""What noisyknn does to labels that are right, a little wrong and very wrong, beside simple rules on the same run.

    trust_table.py --cifar10 FOLDER --mnist FOLDER [--seeds 0 1 2] [--only NAME …]

A FOLDER has ``images/`` and ``labels.csv`` with the columns path and clean_label; CIFAR-10's also aggre_label and
random1_label (CIFAR-10N, Wei et al. 2022). Each row of the table is one whole-process run of ``noisyknn clean`` with
default options; nothing should run beside it where its seconds are to count. Results are kept in results/trust.json as
they come; what is there is not run again. Needs cleanlab: pip install 'noisyknn[bench]'.
"""

import argparse
import datetime
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import hardware, output

NOISYKNN = Path(sys.executable).with_name("noisyknn")
TABLE = Path(__file__).parent / "results" / "trust.json"
SYMMETRIC, ASYMMETRIC = ["--noise", "symmetric"], ["--noise", "asymmetric", "--map", "cifar10"]
CASES: dict[str, tuple[str, str | list[str]]] = {
    "cifar10 clean": ("cifar10", "clean_label"),
    "cifar10 symmetric 5 %": ("cifar10", [*SYMMETRIC, "--rate", "0.05"]),
    "cifar10 people, aggregate": ("cifar10", "aggre_label"),
    "cifar10 people, random1": ("cifar10", "random1_label"),
    "cifar10 symmetric 40 %": ("cifar10", [*SYMMETRIC, "--rate", "0.4"]),
    "cifar10 asymmetric 40 %": ("cifar10", [*ASYMMETRIC, "--rate", "0.4"]),
    "mnist clean": ("mnist", "clean_label"),
    "mnist symmetric 40 %": ("mnist", [*SYMMETRIC, "--rate", "0.4"]),
}
"""Name, and where the given labels come from: a column, or the options of inject-noise."""


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    chosen = parser.parse_args()
    folders = {"cifar10": chosen.cifar10, "mnist": chosen.mnist}
    for seed in chosen.seeds:
        for name in chosen.only:
            data, source = CASES[name]
            done = any(record["case"] == name and record["seed"] == seed for record in measured())
            if folders[data] is not None and not done:
                record = {"case": name, "seed": seed, **measure(folders[data], source, seed)}
                # Read again: another process may have measured other rows meanwhile.
                TABLE.write_text(json.dumps([*measured(), record], indent=1) + "\n")
    show(measured())


def measured() -> list[dict]:
    """What was measured so far, row by row of the table, seed by seed."""
    records = json.loads(TABLE.read_text()) if TABLE.exists() else []
    return sorted(records, key=lambda record: (list(CASES).index(record["case"]), record["seed"]))


def measure(data: Path, source: str | list[str], seed: int) -> dict[str, object]:
    """Figures of one run on the images of `data`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table, fixed, probabilities = data / "labels.csv", folder / "fixed.parquet", folder / "p.parquet"
        commands: list[list[object]] = []  # as they would be given where the data lie
        summary, column, truth = folder / "summary.json", "clean_label", "clean_label"
        if isinstance(source, list):
            table, column = folder / "noisy.csv", "noisy_label"
            labels = ["--labels", data / "labels.csv", "--label-column", "clean_label", "--out", table]
            run("inject-noise", *labels, *source, "--seed", seed, "--quiet")
            shown = ["--labels", "labels.csv", "--label-column", "clean_label", "--out", table.name]
            commands.append(["inject-noise", *shown, *source, "--seed", seed])
        elif source == truth:  # the truth as it is given: a column of its own for each
            table, column = folder / "clean.csv", "given_label"
            header, *lines = (data / "labels.csv").read_text().splitlines()
            place = [name.strip('"') for name in header.split(",")].index(truth)
            copied = [f"{header},{column}", *(f"{line},{line.split(',')[place]}" for line in lines)]
            table.write_text("\n".join(copied) + "\n")
        else:
            column = source
        options = ["--images", data / "images", "--labels", table, "--label-column", column, "--seed", seed]
        shown = ["--images", "images", "--labels", table.name, "--label-column", column, "--seed", seed]
        commands.append(["clean", *shown, "--out", fixed.name])
        started = time.perf_counter()
        options += ["--run-dir", folder / "run"]  # or one that was stopped would be gone on with, in less time
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


def run(*command: object) -> str:
    """What the noisyknn of this environment prints."""
    return subprocess.run([NOISYKNN, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def show(records: list[dict]) -> None:
    """Print all that was measured."""
    print(f"{'given labels':28} seed  before   after  broken    ECE  argmax    vote cleanlab  seconds")
    for one in records:
        rules = {rule["rule"]: 100 * rule["recovery"] for rule in one["rules"]}
        _, _, argmax, vote, cleanlab = rules.values()
        print(
            f"{one['case']:28} {one['seed']:4} {100 * one['given_accuracy']:7.2f} {100 * one['recovery']:7.2f} "
            f"{100 * one['broken']:7.2f} {one['calibration_error']:6.3f} {argmax:7.2f} {vote:7.2f} {cleanlab:8.2f} "
            f"{one['seconds']:8.0f}"
        )


if __name__ == "__main__":
    main()
