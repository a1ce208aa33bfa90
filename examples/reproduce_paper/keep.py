#!/usr/bin/env python3
"""Keep what a table's script has found: keep.py OUT NAME [--processes 1] [--commit COMMIT]

Reads OUT/cells.json and writes ../results/NAME.json: of each cell the paper's figure and ours, per cent, mean and
deviation over the trials, and the seconds of a trial; and what it was measured by.
"""

import argparse
import datetime
import json
import platform
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
    records = json.loads((chosen.out / "cells.json").read_text())
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
        cells.append(cell | {"seconds": round(sum(record["seconds"] for record in of_cell) / len(of_cell), 1)})
    table = {
        "data_set": records[0]["data_set"],
        "script": f"examples/reproduce_paper/{chosen.name}.sh",
        "hours": round(sum(record["seconds"] for record in records) / 3600 / chosen.processes, 2),
        "processes": chosen.processes,
        "cells": cells,
        "commit": chosen.commit or output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    target = EXAMPLES / "results" / f"{chosen.name}.json"
    target.write_text(json.dumps(table, indent=1) + "\n")
    for cell in cells:
        print(cell["method"], cell["noise"], *(f"{metric} {cell[metric]}" for metric in THEIRS), cell["seconds"])


if __name__ == "__main__":
    main()
