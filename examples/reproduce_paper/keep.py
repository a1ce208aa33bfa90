#!/usr/bin/env python3
"""Keep what a table's script has found: keep.py OUT NAME [--processes 1] [--commit COMMIT]

NAME is that of the script, without .sh, and OUT its folder, of one data set. Reads OUT/cells.json and writes
../results/NAME_DATASET.json: of each cell the paper's figure and ours, per cent, mean and deviation over the trials,
and the seconds of a trial that was not interrupted; and what it was measured by.
"""

import argparse
import datetime
import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any, get_args

import torch

from noisyknn.benchmark.grid import means
from noisyknn.benchmark.paper import LABEL_RECOVERY, TEST_ACCURACY, Metric

EXAMPLES = Path(__file__).parents[1]
sys.path.append(str(EXAMPLES))
from record import hardware, output  # noqa: E402  # no package: these are scripts

THEIRS = {"accuracy": TEST_ACCURACY, "recovery": LABEL_RECOVERY}


def main() -> None:
    """Read the cells, write and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("name")
    parser.add_argument("--processes", type=int, default=1, help="that shared the cells out, a thread each if several")
    parser.add_argument("--commit", help="of the code that ran them, where it is not this one")
    chosen = parser.parse_args()
    script = Path(__file__).with_name(f"{chosen.name}.sh")
    if not script.is_file():
        sys.exit(f"there is no {script}")
    kept = chosen.out / "cells.json"
    if not kept.is_file():
        sys.exit(f"{kept} is not there: {script.name} makes it")
    records = json.loads(kept.read_text())
    if len(data_sets := {record["data_set"] for record in records}) != 1:
        sys.exit(f"{kept} has cells of {len(data_sets)} data sets; give each a folder of its own")
    found = {metric: means(records, metric) for metric in get_args(Metric)}
    cells = []
    for method, noise in found["accuracy"]:
        of_cell = [record for record in records if (record["method"], record["noise"]) == (method, noise)]
        first = of_cell[0]
        cell: dict[str, Any] = {"method": method, "noise": noise, "trials": len(of_cell), "settings": first["settings"]}
        for metric, theirs in THEIRS.items():
            paper = theirs.get(first["data_set"], {}).get((method, noise))
            ours = found[metric].get((method, noise))  # None where the true labels are not known
            cell[metric] = {"paper": paper and str(paper), "ours": ours and str(ours)}
        whole = [record["seconds"] for record in of_cell if not record["resumed"]]
        cells.append(cell | {"seconds": round(statistics.fmean(whole), 1) if whole else None})
    table = {
        "data_set": records[0]["data_set"],
        "rows": sorted({record["rows"] for record in records}),
        "script": f"examples/reproduce_paper/{script.name}",
        "hours": round(sum(cell["trials"] * (cell["seconds"] or 0) for cell in cells) / 3600 / chosen.processes, 2),
        "processes": chosen.processes,
        "cells": cells,
        "commit": chosen.commit or output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    target = EXAMPLES / "results" / f"{chosen.name}_{table['data_set']}.json"
    target.write_text(json.dumps(table, indent=1) + "\n")
    for cell in cells:
        print(cell["method"], cell["noise"], *(f"{metric} {cell[metric]}" for metric in THEIRS), cell["seconds"])


if __name__ == "__main__":
    main()
