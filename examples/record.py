#!/usr/bin/env python3
"""Run a noisyknn clean command and save its figures: record.py NAME clean --images … --truth-column …

Writes results/NAME.json beside this file: command, whole-process seconds, figures, commit, versions, hardware, date.
"""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def main() -> None:
    """Run the command after NAME, with its own output and summary."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    name, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        extra = ["--out", f"{folder}/fixed.parquet", "--summary", str(summary)]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "noisyknn", *arguments, *extra], check=True)
        seconds = time.perf_counter() - started
        figures = json.loads(summary.read_text())
    record = {
        "command": shlex.join(["noisyknn", *arguments]),
        "seconds": round(seconds, 1),
        "rows": figures["rows"],
        "status": figures["status"],
        "truth": figures.get("truth"),
        "config": figures["config"],
        "commit": output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    target = Path(__file__).parent / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(target.read_text())


def hardware() -> str:
    """The machine, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores"
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    return f"{model}, {os.cpu_count()} cores, no GPU"


def output(*command: str) -> str:
    """The output of a command, run beside this file; exits if it fails."""
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent)
    if ran.returncode:
        sys.exit(f"{' '.join(command)} failed: {ran.stderr.strip()}")
    return ran.stdout.strip()


if __name__ == "__main__":
    main()
