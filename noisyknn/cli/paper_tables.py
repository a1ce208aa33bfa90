"""noisyknn paper table1 to table3: tables of the paper, each cell a run of clean."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from noisyknn.cli.common import DebugOption, QuietOption, show_table
from noisyknn.cli.paper_options import (
    BatchSizeOption,
    DeviceOption,
    EpisodesOption,
    EpochsOption,
    KOption,
    LabelColumnOption,
    PrecisionOption,
    RowsOption,
    WidthOption,
    given,
)
from noisyknn.cli.terminal import Terminal

if TYPE_CHECKING:
    from noisyknn.paper.grid import Table
    from noisyknn.paper.published import Metric

PAPERS = "the paper's"
DataSetOption = Annotated[
    Literal["mnist", "cifar10", "cifar100"], typer.Option(help="Data set of the paper: its preset and its figures.")
]
OutOption = Annotated[Path, typer.Option(help="Folder of the cells, one folder each; finished cells do not run again.")]
ImagesOption = Annotated[Path | None, typer.Option(help="Folder of the images to train on.")]
LabelsOption = Annotated[Path | None, typer.Option(help="Table of their paths and true labels: CSV or Parquet.")]
TestImagesOption = Annotated[Path | None, typer.Option(help="Folder of the images to test on.")]
TestLabelsOption = Annotated[Path | None, typer.Option(help="Table of their paths and true labels: CSV or Parquet.")]
TorchvisionOption = Annotated[
    Path | None, typer.Option(help="Folder in which torchvision keeps the data set, instead of these four.")
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Let torchvision fetch the data set.")]
MethodsOption = Annotated[
    list[str] | None, typer.Option(help="A method of clean; repeat it for several.", show_default=PAPERS)
]
NoiseOption = Annotated[
    list[str] | None,
    typer.Option(help="symmetric-40 or asymmetric-40, per cent; repeat it for several.", show_default=PAPERS),
]
TrialsOption = Annotated[int, typer.Option(min=1, max=1000, help="Runs of each cell, with seeds 0, 1, …")]
ImageSizeOption = Annotated[
    int | None, typer.Option(help="Height and width in pixels that the network sees.", show_default="the preset's")
]
ClothingOption = Annotated[
    Path,
    typer.Option(
        "--clothing1m",
        help="Folder of Clothing1M as published: images/, category_names_eng.txt, noisy_label_kv.txt, "
        "clean_label_kv.txt, noisy_train_key_list.txt, clean_test_key_list.txt.",
    ),
]
BackboneOption = Annotated[str | None, typer.Option(help="A backbone of clean.", show_default="resnet50")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="A .safetensors file to start from, as clean --save-model writes it.",
        show_default="torchvision's of ImageNet",
    ),
]
LrOption = Annotated[float | None, typer.Option(help="Learning rate.", show_default="the method's")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, the trials included.")]


def paper_table(metric: "Metric", help_text: str) -> Callable[..., None]:
    """The command of the table that shows `metric`."""

    def command(
        data_set: DataSetOption,
        out: OutOption,
        images: ImagesOption = None,
        labels: LabelsOption = None,
        test_images: TestImagesOption = None,
        test_labels: TestLabelsOption = None,
        torchvision: TorchvisionOption = None,
        download: DownloadOption = False,
        label_column: LabelColumnOption = None,
        methods: MethodsOption = None,
        noise: NoiseOption = None,
        trials: TrialsOption = 3,
        rows: RowsOption = None,
        epochs: EpochsOption = None,
        episodes: EpisodesOption = None,
        batch_size: BatchSizeOption = None,
        k: KOption = None,
        image_size: ImageSizeOption = None,
        width: WidthOption = None,
        device: DeviceOption = None,
        precision: PrecisionOption = None,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
    ) -> None:
        settings = given(epochs=epochs, episodes=episodes, batch_size=batch_size, k=k, image_size=image_size)
        settings |= given(width=width, device=device, precision=precision)
        with Terminal(quiet=quiet) as observer:
            from noisyknn.paper.data_set import Files
            from noisyknn.paper.grid import table

            files = Files(
                images=images,
                labels=labels,
                test_images=test_images,
                test_labels=test_labels,
                torchvision=torchvision,
                download=download,
                label_column=label_column,
                rows=rows,
            )
            made = table(
                metric,
                data_set,
                files,
                methods=methods,
                noises=noise,
                trials=trials,
                settings=settings,
                out=out,
                observer=observer,
            )
        _show(made, as_json=as_json)

    command.__doc__ = help_text
    return command


def table3(
    clothing1m: ClothingOption,
    out: OutOption,
    methods: MethodsOption = None,
    trials: TrialsOption = 1,
    rows: RowsOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    image_size: ImageSizeOption = None,
    epochs: EpochsOption = None,
    episodes: EpisodesOption = None,
    batch_size: BatchSizeOption = None,
    lr: LrOption = None,
    k: KOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
) -> None:
    """Table 3 of the paper: accuracy on Clothing1M's verified test images, by the recipe of Section 4.7."""
    settings = given(backbone=backbone, weights=weights, image_size=image_size, epochs=epochs, episodes=episodes)
    settings |= given(batch_size=batch_size, lr=lr, k=k, device=device, precision=precision)
    with Terminal(quiet=quiet) as observer:
        from noisyknn.paper.grid import clothing1m_table

        made = clothing1m_table(
            clothing1m, rows, methods=methods, trials=trials, settings=settings, out=out, observer=observer
        )
    _show(made, as_json=as_json)


def _show(made: "Table", *, as_json: bool) -> None:
    """Print our figures beside the paper's, then raise the error of cells that failed."""
    if as_json:
        typer.echo(json.dumps(made.as_dict(), indent=2))
    else:
        _print(made)
    made.check()


def _print(made: "Table") -> None:
    """Print the columns that have figures of ours."""
    from rich.table import Table

    theirs, ours = made.theirs, made.ours
    methods, noises = (list(dict.fromkeys(place[part] for place in (*theirs, *ours))) for part in (0, 1))
    noises = [noise for noise in noises if any(place[1] == noise for place in ours)]
    shown = Table("method", "", *noises, title=f"{made.data_set}: {made.metric}, per cent", title_justify="left")
    for method in methods:
        for whose, figures in (("paper", theirs), ("ours", ours)):
            cells = [str(figures.get((method, noise), "")) for noise in noises]
            shown.add_row(method if whose == "paper" else "", whose, *cells, end_section=whose == "ours")
    show_table(shown)
    typer.echo(f"mean ± standard deviation (n - 1) of the trials; ours: {made.settings or 'none yet'}")
