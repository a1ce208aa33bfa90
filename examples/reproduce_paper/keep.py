#!/usr/bin/env python3
"""Save the cells from a table's script: keep.py NAME OUT [OUT …] [--commit COMMIT] [--overwrite]

NAME is the script without .sh, OUT the folder of its cells; give all folders that ran at the same time. Writes
../results/NAME_DATASET.json: the paper's figure and ours for each cell (per cent, mean and deviation over the trials),
the seconds of an uninterrupted trial, commit, versions and hardware. Then rewrites TABLES.md from ../results.
"""

import argparse
import datetime
import json
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from noisyknn.errors import NoisyKnnError
from noisyknn.files import write_json
from noisyknn.paper.cells import DONE, Record, check_alike, describe, means, read_records
from noisyknn.paper.published import PRINTED, Figures, Metric

EXAMPLES = Path(__file__).parents[1]
sys.path.append(str(EXAMPLES))
from record import hardware, output  # noqa: E402  # scripts, not a package

RESULTS = EXAMPLES / "results"
TABLES = Path(__file__).with_name("TABLES.md")
TITLES: dict[Metric, str] = {"accuracy": "Test accuracy", "recovery": "Label recovery"}
HEAD = """# Tables 1 to 3: the paper's figures and ours

Per cent, mean and deviation over the trials; below each table what ours come from. Cells that were not run are empty.
Test accuracy is the paper's Table 1 and, on Clothing1M, its Table 3; label recovery is its Table 2. Written by
`keep.py`.
"""


def main() -> None:
    """Read the cells, and write the results and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "name", choices=sorted(path.stem for path in TABLES.parent.glob("*.sh") if "fig" not in path.stem)
    )
    parser.add_argument("out", type=Path, nargs="+")
    parser.add_argument("--commit", help="of the code that ran the cells; default: the current one")
    parser.add_argument("--overwrite", action="store_true", help="replace saved results of this name")
    chosen = parser.parse_args()
    try:
        found = [item for out in chosen.out for item in read_records(out, DONE).items()]
        check_alike(found)
    except NoisyKnnError as error:
        sys.exit(str(error))
    records = [record for _, record in found]
    data_sets = {record["data_set"] for record in records}
    if len(data_sets) != 1 or len({record["cell"] for record in records}) < len(records):
        sys.exit(f"found {len(records)} cells of {len(data_sets)} data sets; give each cell of one data set once")
    target = RESULTS / f"{chosen.name}_{data_sets.pop()}.json"
    if target.exists() and not chosen.overwrite:
        sys.exit(f"{target} exists already; add --overwrite to replace it")
    table = {
        "data_set": records[0]["data_set"],
        "script": f"examples/reproduce_paper/{chosen.name}.sh",
        "hours": round(sum(record["seconds"] for record in records) / 3600 / len(chosen.out), 2),
        "resumed": sum(record["resumed"] for record in records),
        "processes": len(chosen.out),
        "cells": cells_of(records),
        "commit": chosen.commit or output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    tables = markdown({target.name: table})  # fails if another file has the same cell
    write_json(target, table)
    TABLES.write_text(tables)
    print(f"wrote {target} and {TABLES}")


def cells_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The paper's figures and ours for each method and noise."""
    ours = {metric: means(records, metric) for metric in get_args(Metric)}
    cells = []
    for method, noise in ours["accuracy"]:
        trials = [record for record in records if (record["method"], record["noise"]) == (method, noise)]
        first = trials[0]
        cell = {"method": method, "noise": noise, "trials": len(trials)}
        cell |= {"rows": first["rows"], "settings": first["settings"]}
        for metric, theirs in PRINTED.items():
            pair = theirs.get(first["data_set"], {}).get((method, noise)), ours[metric].get((method, noise))
            cell[metric] = {"paper": pair[0] and str(pair[0]), "ours": pair[1] and str(pair[1])}
        whole = [record["seconds"] for record in trials if not record["resumed"]]
        cells.append(cell | {"seconds": round(statistics.fmean(whole), 1) if whole else None})
    return cells


def markdown(added: Mapping[str, dict[str, Any]] | None = None) -> str:
    """Tables 1 to 3 from the files in ../results and from those `added`, by name: the paper's figures above ours."""
    kept = {file.name: json.loads(file.read_text()) for file in RESULTS.glob("*.json")} | dict(added or {})
    tables = [kept[name] for name in sorted(kept) if "cells" in kept[name]]
    parts = [HEAD]
    for metric, title in TITLES.items():
        parts += [_table(f"{title}: {name}", theirs, metric, tables, name) for name, theirs in PRINTED[metric].items()]
    return "\n".join(parts)


def _table(title: str, theirs: Figures, metric: Metric, tables: list[dict[str, Any]], data_set: str) -> str:
    """A table, with the source of our figures below it."""
    tables = [table for table in tables if table["data_set"] == data_set]
    cells = [cell for table in tables for cell in table["cells"] if cell[metric]["ours"] is not None]
    ours = {(cell["method"], cell["noise"]): cell[metric]["ours"] for cell in cells}
    if len(ours) != len(cells):
        sys.exit(f"several files of {RESULTS} have the same cell of {data_set}; keep one")
    methods, noises = (list(dict.fromkeys(place[part] for place in (*theirs, *ours))) for part in (0, 1))
    lines = [f"## {title}\n", _line(["", "", *noises]), _line(["---"] * (2 + len(noises)))]
    for method in methods:
        lines.append(_line([method, "paper", *(str(theirs.get((method, noise), "")) for noise in noises)]))
        lines.append(_line(["", "ours", *(ours.get((method, noise), "") for noise in noises)]))
    lines += [_how(table) for table in tables] or ["\nNot run yet.\n"]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _how(table: dict[str, Any]) -> str:
    """Script, settings, time and hardware of our figures."""
    script = Path(table["script"]).name
    trials = " or ".join(str(trials) for trials in sorted({cell["trials"] for cell in table["cells"]}))
    processes = "" if table["processes"] == 1 else f", {table['processes']} processes at once"
    cut = f" (without the beginning of cells that were stopped: {table['resumed']})" if table.get("resumed") else ""
    return (
        f"\nOurs: [`{script}`]({script}), trials: {trials}; {describe(table['cells'])}. {table['hours']} hours{cut} on "
        f"{table['hardware']}{processes}; {table['date']}, commit {table['commit'][:7]}.\n"
    )


if __name__ == "__main__":
    main()
