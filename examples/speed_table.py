#!/usr/bin/env python3
"""Compare the speed of noisyknn with that of a plain script for the same job.

    speed_table.py --yardstick SCRIPT --cifar10 FOLDER --mnist FOLDER [--only NAME …] [--repeats 3]

A FOLDER has ``images/`` and ``labels.csv`` with the columns path and clean_label. The yardstick is a SelKNN script with
a DataLoader in float32. It takes --images, --labels, --label-column, --truth-column, --backbone, --episodes, --epochs,
--batch-size and --flip, and prints a JSON line with its recovery. Both run in turn, as whole processes; medians count.
Run nothing beside them. Results go to results/speed.json.
"""

import argparse
import datetime
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import hardware, output

NOISYKNN = Path(sys.executable).with_name("noisyknn")
TABLE = Path(__file__).parent / "results" / "speed.json"
CASES = {
    "preact_resnet32": ("cifar10", 5_000, ["--backbone", "preact_resnet32", "--epochs", "3", "--flip"],
                        ["--preset", "cifar10", "--epochs", "3", "--episodes", "1"]),
    "cnn5": ("mnist", 10_000, ["--backbone", "cnn5", "--epochs", "4", "--batch-size", "256"],
             ["--preset", "mnist", "--epochs", "4", "--episodes", "1"]),
    "recovery": ("cifar10", 10_000, ["--backbone", "cnn5", "--episodes", "4", "--epochs", "8", "--flip"], []),
}  # fmt: skip
"""Data, rows, and the options of the yardstick and of noisyknn; the yardstick's --episodes defaults to 1."""


def main() -> None:
    """Run the cases; save and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yardstick", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*CASES, "neighbours"], default=[*CASES, "neighbours"])
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    folders = {"cifar10": chosen.cifar10, "mnist": chosen.mnist}
    for name in chosen.only:
        if name == "neighbours":
            figures = neighbours(chosen.repeats)
        elif (folder := folders[CASES[name][0]]) is not None:
            figures = compare(name, folder.absolute(), chosen.yardstick.absolute(), chosen.repeats)
        else:
            continue
        about = {
            "commit": output("git", "rev-parse", "HEAD"),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "hardware": f"{hardware()}, {torch.get_num_threads()} used",
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        }
        kept = json.loads(TABLE.read_text()) if TABLE.exists() else []
        records = [record for record in kept if record["case"] != name]
        TABLE.write_text(json.dumps([*records, {"case": name, **figures, **about}], indent=1) + "\n")
        print(name, json.dumps(figures, indent=1))


def compare(name: str, data: Path, yardstick: Path, repeats: int) -> dict[str, object]:
    """Seconds and recovery of both programs, and when noisyknn reached the yardstick's recovery."""
    _, rows, theirs, ours = CASES[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        labels = folder / "labels.csv"
        labels.write_text("".join((data / "labels.csv").read_text().splitlines(keepends=True)[: rows + 1]))
        noisy = folder / "noisy.csv"
        noise = ["--label-column", "clean_label", "--noise", "symmetric", "--rate", "0.4", "--quiet"]
        subprocess.run([NOISYKNN, "inject-noise", "--labels", labels, "--out", noisy, *noise], check=True)
        shared = ["--label-column", "noisy_label", "--truth-column", "clean_label"]
        inputs = ["--images", data / "images", "--labels", noisy, *shared]
        episodes = [] if "--episodes" in theirs else ["--episodes", "1"]
        runs = []
        for turn in range(repeats):
            plain, printed = timed([sys.executable, yardstick, *inputs, *theirs, *episodes])
            aim = json.loads(printed.splitlines()[-1])["recovery"]
            files = ["--out", folder / f"{turn}.csv", "--run-dir", folder / f"run{turn}"]
            own, _ = timed([NOISYKNN, "clean", *inputs, *files, *ours, "--quiet"])
            history = json.loads((folder / f"run{turn}" / "history.json").read_text())
            ended = [(entry["recovery"], entry["seconds"]) for entry in history if "recovery" in entry]
            recoveries, seconds = zip(*ended, strict=True)
            reached = next((place for place, found in enumerate(recoveries) if found >= aim), None)
            runs.append(
                {
                    "yardstick_seconds": round(plain, 1),
                    "seconds": round(own, 1),
                    "yardstick_recovery": aim,
                    "recovery": round(recoveries[-1], 4),
                    "seconds_to_the_same": None if reached is None else round(own - sum(seconds[reached + 1 :]), 1),
                    "recovery_then": None if reached is None else round(recoveries[reached], 4),
                }
            )
    medians = {part: statistics.median(run[part] for run in runs) for part in ("yardstick_seconds", "seconds")}
    return {
        "rows": rows,
        "options": shlex.join(map(str, ours)),
        "yardstick_options": shlex.join(map(str, [*theirs, *episodes])),
        "ratio": round(medians["yardstick_seconds"] / medians["seconds"], 2),
        **medians,
        "runs": runs,
    }


def neighbours(repeats: int, rows: int = 50_000, dimensions: int = 64, k: int = 100) -> dict[str, object]:
    """Seconds of the k nearest of all rows among all: ours, scikit-learn's brute force and faiss's flat index."""
    import faiss
    from sklearn.neighbors import NearestNeighbors

    from noisyknn.knn.search import find_search, nearest

    torch.manual_seed(0)
    features = torch.randn(rows, dimensions) + 1.5 * torch.randn(10, dimensions)[torch.arange(rows) % 10]
    host, search = features.numpy(), find_search("auto", features.device)

    def flat_index() -> None:
        index = faiss.IndexFlatL2(dimensions)
        index.add(host)
        index.search(host, k)

    ways: dict[str, Callable[[], object]] = {
        "noisyknn": lambda: list(nearest(features, torch.arange(rows), k, search)),
        "scikit-learn": lambda: NearestNeighbors(n_neighbors=k, algorithm="brute").fit(host).kneighbors(host),
        "faiss IndexFlatL2": flat_index,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(round(time.perf_counter() - started, 2))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    ratios = {name: round(taken / medians["noisyknn"], 2) for name, taken in medians.items()}
    return {"rows": rows, "dimensions": dimensions, "k": k, "seconds": seconds, "ratio": ratios}


def timed(command: list[object]) -> tuple[float, str]:
    """Seconds of a whole process, and its output."""
    started = time.perf_counter()
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
