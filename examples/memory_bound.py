#!/usr/bin/env python3
"""Measure the memory of a run whose images do not fit in memory: memory_bound.py FOLDER [--rows 100000]

Draws photographs into FOLDER (many names for a few files), cleans them at 224 pixels, and watches the process. The
decoded images, 150 kB each, lie in a memory-mapped file in FOLDER. Only anonymous memory counts: the system takes back
pages of the file when it needs memory. The network is tiny and trains for one epoch, as this measures memory, not
speed. Linux only. Adds to results/memory.json.
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
    """Draw, clean, watch, and save the result."""
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
    """Draw a few photographs and link them under `rows` names."""
    distinct = write_pictures(images, 32, *PHOTOGRAPH, seed=0)
    for row in range(rows):
        os.link(distinct[row % len(distinct)], images / f"{row}.jpg")


def watched(command: list[object], store: Path) -> tuple[int, bool]:
    """Peak of a command's anonymous memory, in bytes, and whether it made the file `store`."""
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
