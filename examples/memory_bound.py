#!/usr/bin/env python3
"""How much memory a run takes whose images are more than memory holds: memory_bound.py FOLDER [--rows 100000]

Draws a set of photographs into FOLDER (many names for a few files), cleans it at 224 pixels, and watches the process
and its children. The decoded images, 150 kB each, lie in a memory-mapped file of the run directory in FOLDER; what
counts is the anonymous memory, for pages of the file are given back whenever others need the memory. Linux only. The
network is tiny and trains for a single epoch: memory is measured here, not speed. Writes results/memory.json.
"""

import argparse
import datetime
import json
import os
import platform
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch
from pictures import PHOTOGRAPH, write_pictures
from record import hardware, output

from noisyknn.data.store import available_memory

NOISYKNN = Path(sys.executable).with_name("noisyknn")
CLASSES = 10
OPTIONS = ["--method", "selknn", "--image-size", "224", "--backbone", "cnn5", "--width", "0.1"]
OPTIONS += ["--episodes", "1", "--epochs", "1", "--seed", "0"]


def main() -> None:
    """Draw, clean, watch, and keep what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    chosen = parser.parse_args()
    images = chosen.folder / "images"
    images.mkdir(parents=True)
    draw(images, chosen.rows)
    labels = chosen.folder / "labels.csv"
    drawn = random.Random(0)
    lines = [f"{row}.jpg,{drawn.randrange(CLASSES)}\n" for row in range(chosen.rows)]
    labels.write_text("path,label\n" + "".join(lines))
    free = available_memory()
    command = ["clean", "--images", images, "--labels", labels, "--out", chosen.folder / "fixed.parquet", *OPTIONS]
    command += ["--run-dir", chosen.folder / "run", "--overwrite", "--quiet"]
    started = time.perf_counter()
    peak, mapped = watched([NOISYKNN, *command], chosen.folder / "run" / "images.u8")
    record = {
        "command": shlex.join(["noisyknn", *map(str, command)]).replace(f"{chosen.folder}/", ""),
        "rows": chosen.rows,
        "images_gb": round(chosen.rows * 224 * 224 * 3 / 1e9, 2),
        "memory_mapped": mapped,
        "free_memory_gb": round(free / 1e9, 2),
        "peak_anonymous_gb": round(peak / 1e9, 3),
        "seconds": round(time.perf_counter() - started, 1),
        "commit": output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    table = Path(__file__).parent / "results" / "memory.json"
    kept = json.loads(table.read_text()) if table.exists() else []
    table.write_text(json.dumps([*kept, record], indent=1) + "\n")
    print(json.dumps(record, indent=1))


def draw(images: Path, rows: int) -> None:
    """Photographs under as many names as there are rows."""
    distinct = write_pictures(images, 32, *PHOTOGRAPH, seed=0)
    for row in range(rows):
        os.link(distinct[row % len(distinct)], images / f"{row}.jpg")


def watched(command: list[object], store: Path) -> tuple[int, bool]:
    """The largest anonymous memory, in bytes, that a command was seen to have, and whether it made the file `store`."""
    process = subprocess.Popen(list(map(str, command)))
    peak, stored = 0, False
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max(peak, *(int(kilobytes) * 1024 for kilobytes in found), 0)
        stored = stored or store.exists()
        time.sleep(0.2)
    if process.returncode:
        sys.exit(process.returncode)
    return peak, stored


if __name__ == "__main__":
    main()
