#!/usr/bin/env python3
"""Record the output of the commands, to show that a change of code leaves it unchanged.

    freeze.py RECORD.json [--cifar10 FOLDER]        then, after the change: freeze.py OTHER.json …; diff RECORD.json …

Every method cleans 600 of scikit-learn's digits and, with --cifar10, the first 2,000 images of FOLDER, which has
images/ and labels.csv (path, clean_label): in fp32, with one thread and two epochs an episode. The record has the
SHA-256 of each table, of the tables of inject-noise and the figures of evaluate, and the exit code of each bad input.
Digests differ between machines: record before and after on the same one.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from noisyknn.demo import write_digits

METHODS = ("crossfit", "selknn", "iterknn", "ce", "sl", "joint-optimization", "pencil", "deep-knn")
NOISES = {
    "symmetric": ["--noise", "symmetric", "--rate", "0.4"],
    "pairs": ["--noise", "asymmetric", "--rate", "0.3", "--map", "mnist"],
}
NOTHING = "nothing.csv"
BAD_TABLES = {
    "empty": "",
    "no rows": "path,label\n",
    "no column of labels": "path,class\n0000.png,1\n0001.png,2\n",
    "no column of paths": "name,label\n0000.png,1\n0001.png,2\n",
    "one class": "path,label\n0000.png,1\n0001.png,1\n",
    "a class of one row": "path,label\n0000.png,1\n0001.png,1\n0002.png,2\n",
    "a path twice": "path,label\n0000.png,1\n0000.png,1\n0001.png,2\n0002.png,2\n",
    "a path that leads out": "path,label\n../0000.png,1\n0001.png,1\n0002.png,2\n0003.png,2\n",
    "images that do not exist": "path,label\na.png,1\nb.png,1\nc.png,2\nd.png,2\n",
    "a column that clean writes": "path,label,status\n0000.png,1,\n0001.png,1,\n0002.png,2,\n0003.png,2,\n",
    "ragged": "path,label\n0000.png,1,2\n0001.png,1\n",
}
BAD_OPTIONS = {
    "a table that does not exist": ["--labels", NOTHING],
    "images that are a file": ["--images", "labels.csv"],
    "a column that does not exist": ["--label-column", "species"],
    "too many neighbours": ["--k", "600"],
    "a backbone that does not exist": ["--backbone", "cnn6"],
    "a layer that does not exist": ["--layer", "stage99"],
    "weights that do not exist": ["--weights", "none.safetensors"],
    "a device that does not exist": ["--device", "tpu"],
    "no episodes": ["--episodes", "0"],
    "one episode": ["--episodes", "1"],
    "more folds than episodes": ["--folds", "9", "--episodes", "3"],
    "too few epochs": ["--method", "pencil", "--epochs", "2"],
    "a rate that is not a number": ["--lr", "nan"],
    "an option that does not exist": ["--speed", "9"],
    "an output that is an input": ["--out", "labels.csv", "--overwrite"],
    "an output that exists": ["--out", "labels.csv"],
    "an output of no format": ["--out", "fixed.txt"],
    "a gate that fails": ["--method", "ce", "--epochs", "2", "--max-noise", "0", "--out", "gate.csv"],
}


def main() -> None:
    """Run everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--cifar10", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    found: dict[str, str | int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pd.read_csv(write_digits(folder)).head(600).to_csv(folder / "labels.csv", index=False)
        for name, options in NOISES.items():
            out, summary = folder / f"{name}.csv", folder / f"{name}.json"
            run("inject-noise", "--labels", folder / "labels.csv", *options, "--out", out, "--summary", summary)
            found[f"inject-noise {name}"] = digest(out)
            found[f"inject-noise {name}, summary"] = digest(summary)
        found |= cleaned("digits", folder / "images", folder / "symmetric.csv", folder)
        if chosen.cifar10 is not None:
            labels, noisy = folder / "cifar10.csv", folder / "noisy.csv"
            pd.read_csv(chosen.cifar10 / "labels.csv").head(2000).to_csv(labels, index=False)
            run("inject-noise", "--labels", labels, *NOISES["symmetric"], "--out", noisy)
            found |= cleaned("cifar10", chosen.cifar10 / "images", noisy, folder)
        found |= {f"bad input: {name}": code for name, code in refused(folder)}
    chosen.record.write_text(json.dumps(found, indent=1) + "\n")


def cleaned(data: str, images: Path, labels: Path, folder: Path) -> dict[str, str]:
    """Digests of the tables of every method, and of evaluate's figures for them."""
    found = {}
    for method in METHODS:
        out, chances = folder / f"{data}-{method}.csv", folder / f"{data}-{method}-chances.csv"
        epochs = 3 if method == "pencil" else 2  # its three stages need three
        options = ["--method", method, "--epochs", epochs, "--precision", "fp32", "--save-probabilities", chances]
        run("clean", "--images", images, "--labels", labels, "--out", out, *options)
        truth = ["--truth-column", "clean_label", "--probabilities", chances, "--json"]
        figures = run("evaluate", out, *truth).stdout
        found[f"{data} {method}"], found[f"{data} {method}, probabilities"] = digest(out), digest(chances)
        found[f"{data} {method}, evaluate"] = hashlib.sha256(figures).hexdigest()
        print(data, method, file=sys.stderr)
    return found


def refused(folder: Path) -> list[tuple[str, int]]:
    """The exit code for every bad input."""
    table = folder / "bad.csv"
    good = ["clean", "--images", folder / "images", "--labels", folder / "labels.csv", "--label-column", "clean_label"]
    codes = []
    for name, text in BAD_TABLES.items():
        table.write_text(text)
        options = ["clean", "--images", folder / "images", "--labels", table, "--out", folder / "none.csv"]
        codes.append((name, run(*options, check=False, cwd=folder).returncode))
    for name, own in BAD_OPTIONS.items():
        out = [] if "--out" in own else ["--out", folder / "none.csv"]
        codes.append((name, run(*good, *out, *own, check=False, cwd=folder).returncode))
    return codes


def run(*command: object, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a noisyknn command with one thread."""
    program = [sys.executable, "-m", "noisyknn", *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(program, check=False, cwd=cwd, env=environment, capture_output=True)
    if check and ran.returncode:
        sys.exit(ran.stderr.decode())
    return ran


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
