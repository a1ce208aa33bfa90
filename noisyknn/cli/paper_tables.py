"""noisyknn paper table1 to table3: tables of the paper, each cell a run of clean."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from noisyknn.cli.common import DebugOption, QuietOption, show_table
from noisyknn.cli.terminal import Terminal
from noisyknn.errors import NoisyKnnError, UsageError, counted, first_ten
from noisyknn.observer import Observer

if TYPE_CHECKING:
    from noisyknn.paper.cells import Cell
    from noisyknn.paper.published import Figures, Metric

THEIRS = "the preset's"
EpochsOption = Annotated[int | None, typer.Option(help="Passes over the images in each episode.", show_default=THEIRS)]
EpisodesOption = Annotated[int | None, typer.Option(help="Rounds of training and correcting.", show_default=THEIRS)]
BatchSizeOption = Annotated[int | None, typer.Option(help="Images per step of training.", show_default=THEIRS)]
ImageSizeOption = Annotated[
    int | None, typer.Option(help="Height and width in pixels that the network sees.", show_default=THEIRS)
]


def paper_table(metric: "Metric", help_text: str) -> Callable[..., None]:
    """The command of the table that shows `metric`."""

    def command(
        data_set: Annotated[
            Literal["mnist", "cifar10", "cifar100"], typer.Option(help="Whose preset, and whose figures of the paper.")
        ],
        out: Annotated[Path, typer.Option(help="Folder that keeps the cells; those that it has are not run again.")],
        images: Annotated[Path | None, typer.Option(help="Folder of the images to train on.")] = None,
        labels: Annotated[
            Path | None, typer.Option(help="Table of their paths and true labels: CSV or Parquet.")
        ] = None,
        test_images: Annotated[Path | None, typer.Option(help="Folder of the images to test on.")] = None,
        test_labels: Annotated[
            Path | None, typer.Option(help="Table of their paths and true labels: CSV or Parquet.")
        ] = None,
        torchvision: Annotated[
            Path | None, typer.Option(help="Instead of these four: a folder in which torchvision keeps the data set.")
        ] = None,
        download: Annotated[bool, typer.Option("--download", help="Let torchvision fetch it.")] = False,
        label_column: Annotated[
            str | None, typer.Option(help="Column of true labels; clean_label, true_label or label if not given.")
        ] = None,
        methods: Annotated[
            list[str] | None,
            typer.Option(help="A method of clean; give it several times.", show_default="the paper's"),
        ] = None,
        noise: Annotated[
            list[str] | None,
            typer.Option(
                help="symmetric-40 or asymmetric-40, per cent; give it several times.", show_default="the paper's"
            ),
        ] = None,
        trials: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each cell, of seeds 0, 1, …")] = 3,
        rows: Annotated[
            int | None, typer.Option(min=4, help="Train on the first rows only.", show_default="all")
        ] = None,
        epochs: EpochsOption = None,
        episodes: EpisodesOption = None,
        batch_size: BatchSizeOption = None,
        k: Annotated[int | None, typer.Option(help="Neighbours that vote.", show_default=THEIRS)] = None,
        image_size: ImageSizeOption = None,
        width: Annotated[
            float | None, typer.Option(help="Factor on the channels of the backbone.", show_default=THEIRS)
        ] = None,
        device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
        precision: Annotated[
            Literal["auto", "fp32", "bf16"] | None, typer.Option(help="Precision of training.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON, the trials included.")] = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
    ) -> None:
        from noisyknn.paper.cells import cells_of
        from noisyknn.paper.data_set import noise_name, read_data_set
        from noisyknn.paper.grid import check_methods, run_cells
        from noisyknn.paper.published import PRINTED, TEST_ACCURACY
        from noisyknn.paper.torchvision_data import write_parts

        theirs = PRINTED[metric].get(data_set, {})
        planned = theirs or TEST_ACCURACY[data_set]  # where the table has no such data set
        methods = methods or list(dict.fromkeys(method for method, _ in planned))
        noises = list(map(noise_name, noise or [name for _, name in planned]))
        check_methods(methods)
        if download and torchvision is None:
            raise UsageError("--download goes with --torchvision")
        options: dict[str, object] = {"epochs": epochs, "episodes": episodes, "batch_size": batch_size, "k": k}
        options |= {"image_size": image_size, "width": width, "device": device, "precision": precision}
        settings = {name: value for name, value in options.items() if value is not None}
        with Terminal(quiet=quiet) as observer:
            if torchvision is not None:
                if any(file is not None for file in (images, labels, test_images, test_labels)):
                    raise UsageError("give either --torchvision or --images, --labels, --test-images and --test-labels")
                train, test = write_parts(data_set, torchvision, out / "data", observer, download=download)
                files = (train / "images", train / "labels.csv", test / "images", test / "labels.csv")
            else:
                files = _all_given(images, labels, test_images, test_labels)
            data = read_data_set(data_set, *files, rows, label_column)
            cells = cells_of(data_set, methods, noises, trials)
            records, failed = run_cells(data, cells, settings, out, observer)
            _note_missing(cells, records, failed, observer)
        _report(data_set, metric, theirs, records, as_json=as_json)
        _check_all_ran(cells, failed)

    command.__doc__ = help_text
    return command


def table3(
    root: Annotated[
        Path,
        typer.Option(
            "--clothing1m",
            help="Folder of Clothing1M as it is published: images/, category_names_eng.txt, noisy_label_kv.txt, "
            "clean_label_kv.txt, noisy_train_key_list.txt, clean_test_key_list.txt.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder that keeps the cells; those that it has are not run again.")],
    methods: Annotated[
        list[str] | None,
        typer.Option(help="A method of clean; give it several times.", show_default="the paper's"),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each cell, of seeds 0, 1, …")] = 1,
    rows: Annotated[int | None, typer.Option(min=4, help="Train on the first rows only.", show_default="all")] = None,
    backbone: Annotated[str | None, typer.Option(help="A backbone that clean knows.", show_default="resnet50")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A .safetensors file to start from, as clean --save-model writes it.",
            show_default="torchvision's of ImageNet",
        ),
    ] = None,
    image_size: ImageSizeOption = None,
    epochs: EpochsOption = None,
    episodes: EpisodesOption = None,
    batch_size: BatchSizeOption = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default="the method's")] = None,
    k: Annotated[int | None, typer.Option(help="Neighbours that vote.", show_default="500")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, typer.Option(help="Precision of training.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, the trials included.")] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
) -> None:
    """Table 3 of the paper: accuracy on Clothing1M's verified test images, by the recipe of Section 4.7."""
    from noisyknn.paper.cells import cells_of
    from noisyknn.paper.data_set import read_clothing1m
    from noisyknn.paper.grid import check_methods, run_cells
    from noisyknn.paper.published import AS_GIVEN, CLOTHING1M

    methods = methods or [method for method, _ in CLOTHING1M]
    options: dict[str, object] = {"backbone": backbone, "weights": weights, "image_size": image_size, "k": k}
    options |= {"epochs": epochs, "episodes": episodes, "batch_size": batch_size, "lr": lr}
    options |= {"device": device, "precision": precision}
    settings = {name: value for name, value in options.items() if value is not None}
    check_methods(methods)
    data = read_clothing1m(root, rows)
    cells = cells_of(data.name, methods, [AS_GIVEN], trials)
    with Terminal(quiet=quiet) as observer:
        records, failed = run_cells(data, cells, settings, out, observer)
        _note_missing(cells, records, failed, observer)
    _report(data.name, "accuracy", CLOTHING1M, records, as_json=as_json)
    _check_all_ran(cells, failed)


def _all_given(*files: Path | None) -> tuple[Path, Path, Path, Path]:
    given = tuple(file for file in files if file is not None)
    if len(given) != 4:
        raise UsageError("give --images, --labels, --test-images and --test-labels, or --torchvision")
    return given


def _note_missing(
    cells: Sequence["Cell"], records: Sequence[Mapping[str, Any]], failed: Mapping[str, Exception], observer: Observer
) -> None:
    """Tell how much of a table is another process's to fill in."""
    told = {record["cell"] for record in records} | failed.keys()
    if missing := sum(cell.name not in told for cell in cells):
        observer.note(
            f"{missing} of {counted(len(cells), 'cell is', 'cells are')} not there yet: other processes run them"
        )


def _check_all_ran(cells: Sequence["Cell"], failed: Mapping[str, NoisyKnnError]) -> None:
    """Raise, once all is shown, where cells failed: what they failed for if it is the same for all."""
    if failed:
        told = first_ten([f"{name}: {why}" for name, why in failed.items()])
        kinds = {type(why) for why in failed.values()}
        kind = kinds.pop() if len(kinds) == 1 else NoisyKnnError
        raise kind(f"{len(failed)} of {counted(len(cells), 'cell', 'cells')} failed: {told}")


def _report(
    data_set: str, metric: "Metric", theirs: "Figures", records: Sequence[Mapping[str, Any]], *, as_json: bool
) -> None:
    """Print what the trials come to, beside the paper's figures."""
    from noisyknn.paper.cells import describe, means

    ours = means(records, metric)
    if not as_json:
        _show(f"{data_set}: {metric}", theirs, ours, describe(records))
        return
    table = []
    for method, noise in dict.fromkeys((*theirs, *ours)):
        paper, own = theirs.get((method, noise)), ours.get((method, noise))
        cell = {"paper": paper and paper._asdict(), "ours": own and own._asdict()}
        table.append({"method": method, "noise": noise, **cell})
    typer.echo(json.dumps({"data_set": data_set, "metric": metric, "table": table, "cells": records}, indent=2))


def _show(subject: str, theirs: "Figures", ours: "Figures", how: str) -> None:
    """All that was run, in the paper's order, and how; what was not is left empty."""
    from rich.table import Table

    ran, noises = (list(dict.fromkeys(place[part] for place in (*theirs, *ours))) for part in (0, 1))
    noises = [noise for noise in noises if any(place[1] == noise for place in ours)]
    shown = Table("method", "", *noises, title=f"{subject}, per cent", title_justify="left")
    for method in ran:
        for whose, figures in (("paper", theirs), ("ours", ours)):
            cells = [str(figures[method, noise]) if (method, noise) in figures else "" for noise in noises]
            shown.add_row(method if whose == "paper" else "", whose, *cells, end_section=whose == "ours")
    show_table(shown)
    typer.echo(f"mean ± standard deviation (n - 1) of the trials; ours: {how or 'none yet'}")
