#!/usr/bin/env python3
"""Keep what a table's script has found: keep.py OUT NAME [--processes 1] [--commit COMMIT] [--overwrite]

NAME is that of the script, without .sh, and OUT its folder, of one data set. Reads OUT/cells.json and writes
../results/NAME_DATASET.json: of each cell the paper's figure and ours, per cent, mean and deviation over the trials,
and the seconds of a trial that was not interrupted; and what it was measured by. Then writes TABLES.md anew from all
that ../results holds.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from noisyknn.config import Config
from noisyknn.errors import NoisyKnnError
from noisyknn.files import write_json
from noisyknn.paper.cells import CellFolder, describe, means
from noisyknn.paper.published import PRINTED, Figures, Metric

EXAMPLES = Path(__file__).parents[1]
sys.path.append(str(EXAMPLES))
from record import hardware, output  # noqa: E402  # no package: these are scripts

RESULTS = EXAMPLES / "results"
TABLES = Path(__file__).with_name("TABLES.md")
SETTINGS = [field.name for field in dataclasses.fields(Config)]
WHOLE = {"mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000, "clothing1m": 1_000_000}
"""Rows to train on of each data set."""
TITLES: dict[Metric, str] = {"accuracy": "Test accuracy", "recovery": "Label recovery"}
HEAD = """# Tables 1 to 3: the paper's figures and ours

Per cent, mean and deviation over the trials; below each table what ours come from. Cells that were not run are empty.
Test accuracy is the paper's Table 1 and, on Clothing1M, its Table 3; label recovery is its Table 2. Written by
`keep.py`.
"""


def main() -> None:
    """Read the cells, write and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("name")
    parser.add_argument("--processes", type=int, default=1, help="that shared the cells out, a thread each if several")
    parser.add_argument("--commit", help="of the code that ran them, where it is not this one")
    parser.add_argument("--overwrite", action="store_true", help="replace what was kept under this name")
    chosen = parser.parse_args()
    scripts = {
        script.stem: script for script in Path(__file__).parent.glob("*.sh") if not script.stem.startswith("fig")
    }
    if chosen.name not in scripts:
        sys.exit(f"{chosen.name} is not one of {', '.join(sorted(scripts))}")
    script = scripts[chosen.name]
    if chosen.processes < 1:
        sys.exit(f"--processes {chosen.processes} is less than 1")
    if not (chosen.out / "cells.json").is_file():
        sys.exit(f"{chosen.out / 'cells.json'} is not there: {script.name} makes it")
    try:
        records = CellFolder(chosen.out).read()
    except NoisyKnnError as error:
        sys.exit(str(error))
    if not records:
        sys.exit(f"{chosen.out} has no cells yet")
    if len(data_sets := {record["data_set"] for record in records}) != 1:
        sys.exit(f"{chosen.out} has cells of {len(data_sets)} data sets; give each a folder of its own")
    commands = _commands(script, records[0]["data_set"])
    for record in records:
        if stranger := _stranger(record, commands):
            sys.exit(f"{record['cell']} was run with {stranger}, which {script.name} does not give")
    found = {metric: means(records, metric) for metric in get_args(Metric)}
    cells = []
    for method, noise in found["accuracy"]:
        of_cell = [record for record in records if (record["method"], record["noise"]) == (method, noise)]
        first = of_cell[0]
        cell: dict[str, Any] = {
            "method": method,
            "noise": noise,
            "trials": len(of_cell),
            "rows": first["rows"],
            "settings": first["settings"],
        }
        for metric, theirs in PRINTED.items():
            paper = theirs.get(first["data_set"], {}).get((method, noise))
            ours = found[metric].get((method, noise))  # None where the true labels are not known
            cell[metric] = {"paper": paper and str(paper), "ours": ours and str(ours)}
        whole = [record["seconds"] for record in of_cell if not record["resumed"]]
        cells.append(cell | {"seconds": round(statistics.fmean(whole), 1) if whole else None})
    table = {
        "data_set": records[0]["data_set"],
        "script": f"examples/reproduce_paper/{script.name}",
        "hours": round(sum(record["seconds"] for record in records) / 3600 / chosen.processes, 2),
        "resumed": sum(record["resumed"] for record in records),
        "processes": chosen.processes,
        "cells": cells,
        "commit": chosen.commit or output("git", "rev-parse", "HEAD"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    target = RESULTS / f"{chosen.name}_{table['data_set']}.json"
    if target.exists() and not chosen.overwrite:
        sys.exit(f"{target} exists already; add --overwrite to replace it")
    tables = markdown({target.name: table})  # before anything is written: it may be refused
    write_json(target, table)
    TABLES.write_text(tables)
    print(f"wrote {target} and {TABLES}")


def _stranger(record: Mapping[str, Any], commands: Iterable[argparse.Namespace]) -> str | None:
    """What a cell was run with that none of its script's `commands` gives, if anything."""
    data_set, method, noise = record["data_set"], record["method"], record["noise"]
    for given in commands:
        if (given.data_set or data_set) != data_set:
            return f"--data-set {data_set}"
        if method not in (given.methods or [method]):
            continue
        if noise not in (given.noise or [noise]):
            return f"--noise {noise}"
        if record["trial"] >= given.trials:
            return f"trial {record['trial']}"
        if record["rows"] != (given.rows or WHOLE[data_set]):
            return f"--rows {record['rows']}"
        theirs, own = {name: str(value) for name, value in record["settings"].items()}, given.settings
        names = sorted(name for name in theirs.keys() | own.keys() if theirs.get(name) != own.get(name))
        return next((f"--{name.replace('_', '-')} {theirs.get(name, 'as it is')}" for name in names), None)
    return f"--methods {method}"


def _commands(script: Path, data_set: str) -> list[argparse.Namespace]:
    """What a script would run, as it tells a stand-in for noisyknn."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--methods", "--noise"):
        parser.add_argument(option, action="append")
    parser.add_argument("--data-set")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--trials", type=int, required=True)
    for name in SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS)
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "noisyknn"
        stand_in.write_text('#!/bin/sh\necho "$*"\n')
        stand_in.chmod(0o755)
        path = {"PATH": f"{folder}:{os.environ['PATH']}"}
        told = subprocess.run(  # whatever it takes: some take the data set
            ["bash", script, *[data_set] * 3], env=os.environ | path, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    commands = []
    for line in told.splitlines():
        given, _ = parser.parse_known_args(line.split())
        given.settings = {name: value for name, value in vars(given).items() if name in SETTINGS}
        commands.append(given)
    return commands


def markdown(added: Mapping[str, dict[str, Any]] | None = None) -> str:
    """Tables 1 to 3, the paper's figures above ours, of the files in results and of those `added`, by their names.

    Cells that were not run are empty.
    """
    kept = {file.name: json.loads(file.read_text()) for file in RESULTS.glob("*.json")} | dict(added or {})
    tables = [kept[name] for name in sorted(kept) if "cells" in kept[name]]
    parts = [HEAD]
    for metric, title in TITLES.items():
        parts += [_table(f"{title}: {name}", theirs, metric, tables, name) for name, theirs in PRINTED[metric].items()]
    return "\n".join(parts)


def _table(title: str, theirs: Figures, metric: Metric, tables: list[dict[str, Any]], data_set: str) -> str:
    """One of them, and how our figures were obtained."""
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
    """What a table's own figures were obtained by."""
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
