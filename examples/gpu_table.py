#!/usr/bin/env python3
"""Time noisyknn on one GPU: gpu_table.py --cifar10 FOLDER --yardstick SCRIPT [--only NAME …] [--out FILE]

FOLDER has ``images/`` and ``labels.csv`` with the columns path, clean_label and aggre_label (CIFAR-10N), for all 50,000
training images of CIFAR-10. Cases: whole processes with default options, on 40 % symmetric noise and on human labels;
an epoch of the paper's CIFAR-10 preset, beside the yardstick's (see speed_table.py); exact neighbours of random
features. Results go to results/gpu.json; a case replaces its earlier result.
"""

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import hardware, output
from torch import Tensor

from noisyknn.knn.search import find_search, nearest

CLEAN = {"symmetric-40": "noisy_label", "aggregate": "aggre_label"}
NEIGHBOURS = {"neighbours": (50_000, 50_000, 64, 100), "many-neighbours": (1_000_000, 140_000, 2048, 500)}
"""Samples, references, dimensions and k."""
NOISYKNN = [sys.executable, "-m", "noisyknn"]


def main() -> None:
    """Run the cases; save and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*CLEAN, "epoch", *NEIGHBOURS]
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--yardstick", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--commit", help="of this code, if git cannot tell")
    chosen = parser.parse_args()
    about = {
        "commit": chosen.commit or output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    for name in chosen.only:
        if name in CLEAN:
            figures = cleaned(chosen.cifar10, CLEAN[name])
        elif name in NEIGHBOURS:
            figures = neighbours(*NEIGHBOURS[name])
        else:
            figures = epoch(chosen.cifar10, chosen.yardstick)
        kept = json.loads(chosen.out.read_text()) if chosen.out.exists() else []
        records = [record for record in kept if record["case"] != name]
        chosen.out.write_text(json.dumps([*records, {"case": name, **figures, **about}], indent=1) + "\n")
        print(name, json.dumps(figures), flush=True)


def cleaned(data: Path, column: str) -> dict[str, object]:
    """Seconds of a whole process with default options, and the accuracy of its labels."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        labels = data / "labels.csv"
        if column == "noisy_label":
            labels = folder / "noisy.csv"
            noise = ["--label-column", "clean_label", "--noise", "symmetric", "--rate", "0.4", "--quiet"]
            source = ["--labels", str(data / "labels.csv"), "--out", str(labels)]
            subprocess.run([*NOISYKNN, "inject-noise", *source, *noise], check=True)
        options = ["--label-column", column, "--truth-column", "clean_label", "--quiet"]
        files = [
            "--out",
            f"{folder}/fixed.parquet",
            "--summary",
            f"{folder}/summary.json",
            "--run-dir",
            f"{folder}/run",
        ]
        inputs = ["--images", str(data / "images"), "--labels", str(labels)]
        started = time.perf_counter()
        subprocess.run([*NOISYKNN, "clean", *inputs, *options, *files], check=True)
        seconds = time.perf_counter() - started
        summary = json.loads((folder / "summary.json").read_text())
        history = json.loads((folder / "run" / "history.json").read_text())
    return {
        "command": f"noisyknn clean --images images --labels labels --label-column {column}",
        "seconds": round(seconds, 1),
        "truth": summary["truth"],
        "estimated_noise_rate": summary["estimated_noise_rate"],
        "seconds_of_episodes": [round(entry["seconds"], 1) for entry in history if "recovery" in entry],
        "config": summary["config"],
    }


def epoch(data: Path, yardstick: Path) -> dict[str, object]:
    """Seconds of an epoch of the paper's CIFAR-10 preset on 50,000 images, and of the yardstick's on the same GPU."""
    inputs = ["--images", str(data / "images"), "--labels", str(data / "labels.csv"), "--label-column", "clean_label"]
    with tempfile.TemporaryDirectory() as folder:
        preset = ["--preset", "cifar10", "--method", "selknn", "--episodes", "1", "--epochs", "6"]
        files = ["--out", f"{folder}/fixed.csv", "--run-dir", f"{folder}/run", "--quiet"]
        subprocess.run([*NOISYKNN, "clean", *inputs, *preset, *files], check=True)
        history = json.loads(Path(folder, "run", "history.json").read_text())
    own = [round(entry["seconds"], 3) for entry in history if "epoch" in entry]
    ways = ["--backbone", "preact_resnet32", "--episodes", "1", "--epochs", "1", "--flip", "--device", "cuda"]
    done = subprocess.run([sys.executable, yardstick, *inputs, *ways], check=True, stdout=subprocess.PIPE, text=True)
    theirs = json.loads(done.stdout.splitlines()[-1])["seconds_per_epoch"]
    settled = statistics.median(own[2:])  # the first two capture the CUDA graphs
    return {
        "command": f"noisyknn clean … {' '.join(preset)}",
        "seconds": settled,
        "epochs": own,
        "yardstick_options": " ".join(ways),
        "yardstick_seconds": theirs,
        "ratio": round(theirs / settled, 1),
    }


def neighbours(samples: int, references: int, dimensions: int, k: int) -> dict[str, object]:
    """Seconds to find the k nearest references of every sample, and the recall for 100 samples."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    centres = 1.5 * torch.randn(10, dimensions, device=device)
    features = torch.randn(samples, dimensions, device=device)
    for part in features.split(100_000):
        part += centres[torch.arange(len(part), device=device) % 10]
    rows = torch.arange(0, samples, samples // references, device=device)[:references]
    search = find_search("auto", device)

    def search_all() -> Tensor:
        last = None
        for near in nearest(features, rows, k, search):
            last = near
        if last is None:
            raise AssertionError("there are samples")
        return torch.cat([last.samples[-100:, None], last.rows[-100:]], 1)

    seconds = []
    for _ in range(3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        found = search_all().cpu()
        seconds.append(round(time.perf_counter() - started, 3))
    pool, asked = features[rows].double(), features[found[:, 0].to(device)].double()
    far = torch.cdist(asked, pool, compute_mode="donot_use_mm_for_euclid_dist")
    far[rows[None] == found[:, :1].to(device)] = torch.inf
    exact = rows[far.topk(k, largest=False).indices].cpu()
    same = [len(set(a) & set(b)) / k for a, b in zip(exact.tolist(), found[:, 1:].tolist(), strict=True)]
    sizes = {"samples": samples, "references": references, "dimensions": dimensions, "k": k}
    return {**sizes, "seconds": seconds, "recall_of_100_samples": statistics.mean(same)}


if __name__ == "__main__":
    main()
