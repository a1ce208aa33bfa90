"""noisyknn doctor: what this machine offers, what `clean` would choose on it, and unfinished runs."""

import json
from typing import Annotated, Any

import typer

from noisyknn.cli.common import show_table
from noisyknn.cli.options import DebugOption
from noisyknn.errors import one_line


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
) -> None:
    """Show processor, memory, GPUs, libraries, unfinished runs and the settings that clean would choose."""
    from noisyknn.machine import examine

    report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return

    from rich.table import Table

    table = Table("what", "found", title="This machine", title_justify="left")
    cpu = report["cpu"]
    table.add_row("processor", f"{cpu['machine']}, {cpu['usable_cores']} cores, {cpu['vector_instructions']}")
    table.add_row("bf16 instructions", ", ".join(cpu["bf16_instructions"]) or "none: training uses fp32")
    table.add_row("memory", f"{report['memory_available_gib']} GiB available")
    table.add_row("GPU", "; ".join(map(_gpu, report["gpus"])) or "none that torch can use")
    table.add_row("unfinished runs", _unfinished_runs(report["unfinished_runs"]))
    for name, version in report["versions"].items():
        table.add_row(name, version or "not installed")
    show_table(table)
    choices = Table("setting", "choice", title="clean on 20,000 colour images of 32 pixels", title_justify="left")
    for name, choice in report["choices"].items():
        choices.add_row(name, str(choice))
    show_table(choices)


def _unfinished_runs(found: dict[str, Any]) -> str:
    from rich.filesize import decimal
    from rich.markup import escape

    where = escape(one_line(found["folder"]))
    if "error" in found:
        return f"{where} cannot be read: {found['error']}"
    return f"{found['count']} in {where}, {decimal(found['bytes'])}" if found["count"] else f"none in {where}"


def _gpu(gpu: dict[str, Any]) -> str:
    return f"{gpu['name']}, {gpu['free_gib']} of {gpu['memory_gib']} GiB free, bf16 {'yes' if gpu['bf16'] else 'no'}"
