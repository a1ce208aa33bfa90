"""noisyknn benchmark: how fast, and how good, noisyknn is."""

import json
from typing import Annotated, Any, Literal

import typer

from noisyknn.cli.common import show_table
from noisyknn.cli.options import DebugOption, QuietOption
from noisyknn.cli.terminal import Terminal


def speed(
    rows: Annotated[
        list[int] | None,
        typer.Option(
            min=100,
            max=1_000_000,
            help="Number of pictures; give it several times to see how cost grows.",
            show_default="2000",
        ),
    ] = None,
    preset: Annotated[
        Literal["auto", "mnist", "cifar10", "cifar100", "clothing1m"],
        typer.Option(help="Where settings start from, as for clean."),
    ] = "auto",
    backbone: Annotated[str | None, typer.Option(help="A backbone that clean knows.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width in pixels that the network sees.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step of training.")] = None,
    search: Annotated[Literal["auto", "torch", "faiss"] | None, typer.Option(help="Who finds neighbours.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, typer.Option(help="Precision of training.")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Times that all is measured; medians are told.")] = 3,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Processes that load images for plain PyTorch.")] = 2,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the pictures and of the training.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
) -> None:
    """Measure each stage of clean on drawn pictures, beside what one would write with Pillow, PyTorch, scikit-learn."""
    from noisyknn.paper.speed import measure

    options: dict[str, object] = {
        "backbone": backbone,
        "image_size": image_size,
        "batch_size": batch_size,
        "search": search,
        "device": device,
        "precision": precision,
        "seed": seed,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    with Terminal(quiet=quiet) as observer:
        report = measure(rows or [2000], preset, chosen, repeats=repeats, workers=workers, observer=observer)
    found = report.as_dict()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    stages = Table("stage", "rows", "seconds", "a second", "beside", "takes times as long", title_justify="left")
    for stage in found["stages"]:
        ratio = "" if stage["ratio"] is None else f"{stage['ratio']:.2f}"
        stages.add_row(
            stage["name"],
            f"{stage['rows']:,}",
            f"{stage['seconds']:.3f}",
            f"{stage['per_second']:,}",
            stage["plain"] or "",
            ratio,
        )
    show_table(stages)
    step = Table("part of a training step", "share", title_justify="left")
    for part, share in found["step"].items():
        step.add_row(part, f"{share:.1%}")
    show_table(step)
