#!/usr/bin/env python3
"""Run a figure's script and save its output: keep_figure.py NAME TRAIN

NAME is fig2 to fig6, TRAIN the folder for its script. Writes NAME.png, NAME.csv and NAME.json (command, seconds,
commit, versions, hardware, date) into ../results.
"""

import datetime
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parents[1]
sys.path.append(str(EXAMPLES))
from record import hardware, output  # noqa: E402  # scripts, not a package


def main() -> None:
    """Run the script, then save its output."""
    scripts = {script.stem: script for script in Path(__file__).parent.glob("fig*.sh")}
    if len(sys.argv) != 3 or sys.argv[1] not in scripts:
        sys.exit(__doc__)
    name, train = sys.argv[1:]
    script, commit = scripts[name], output("git", "rev-parse", "HEAD")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        if code := subprocess.run(["bash", str(script), train, folder], check=False).returncode:
            sys.exit(code)  # the script has printed why
        seconds = time.perf_counter() - started
        for ending in ("png", "csv"):
            shutil.copyfile(Path(folder) / f"{name}.{ending}", EXAMPLES / "results" / f"{name}.{ending}")
    (command,) = re.findall(r"^noisyknn .*$", script.read_text(), flags=re.MULTILINE)
    record = {
        "script": f"examples/reproduce_paper/{script.name}",
        "command": command,
        "seconds": round(seconds, 1),
        "commit": commit,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    (EXAMPLES / "results" / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
