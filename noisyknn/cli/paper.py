"""noisyknn paper: tables and figures of the paper, from runs on the user's images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from noisyknn.cli.common import show_table
from noisyknn.cli.options import (
    BackboneOption,
    BatchSizeOption,
    DebugOption,
    DeviceOption,
    EpisodesOption,
    EpochsOption,
    ImageSizeOption,
    KOption,
    LrOption,
    OverwriteOption,
    PrecisionOption,
    QuietOption,
    WidthOption,
    given_settings,
)
from noisyknn.cli.terminal import Terminal

if TYPE_CHECKING:
    from noisyknn.paper.grid import Table
    from noisyknn.paper.published import Metric

PRESETS, PAPERS = "the preset's", "the paper's"
TABLE = "Table of their paths and true labels: CSV or Parquet."

DataSetOption = Annotated[
    Literal["mnist", "cifar10", "cifar100"], typer.Option(help="Data set of the paper, for its preset and figures.")
]
CellsOption = Annotated[Path, typer.Option(help="Folder for the cells, one folder each; a finished cell never reruns.")]
TrainImagesOption = Annotated[Path | None, typer.Option(help="Folder of the images to train on.")]
TrainLabelsOption = Annotated[Path | None, typer.Option(help=TABLE)]
TestImagesOption = Annotated[Path | None, typer.Option(help="Folder of the images to test on.")]
TestLabelsOption = Annotated[Path | None, typer.Option(help=TABLE)]
TorchvisionOption = Annotated[
    Path | None, typer.Option(help="Folder of torchvision's data set, instead of these four options.")
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Let torchvision download the data set.")]
MethodsOption = Annotated[
    list[str] | None, typer.Option(help="A method of clean; repeat the option for several.", show_default=PAPERS)
]
NoisesOption = Annotated[
    list[str] | None,
    typer.Option(help="symmetric-40 or asymmetric-40 (per cent); repeat the option for several.", show_default=PAPERS),
]
TrialsOption = Annotated[int, typer.Option(min=1, max=1000, help="Runs of each cell, with seeds 0, 1, …")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with every trial.")]
ClothingOption = Annotated[
    Path,
    typer.Option(
        help="Folder of Clothing1M as published: images/, category_names_eng.txt, noisy_label_kv.txt, "
        "clean_label_kv.txt, noisy_train_key_list.txt, clean_test_key_list.txt."
    ),
]

ImagesOption = Annotated[Path, typer.Option(help="Folder of the images.")]
LabelsOption = Annotated[Path, typer.Option(help=TABLE)]
FigureOption = Annotated[Path, typer.Option(help="Folder for the figure (PNG and SVG) and its points (CSV).")]
NoiseOption = Annotated[str, typer.Option(help="symmetric-60 or asymmetric-40 (per cent).")]
PresetOption = Annotated[
    Literal["mnist", "cifar10", "cifar100"], typer.Option(help="Settings of the paper to start from.")
]
EveryOption = Annotated[
    int | None, typer.Option(min=1, help="Epochs between two points (fig3, fig5, fig6).", show_default="1")
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the noise and of the training.")]

ColumnOption = Annotated[
    str | None, typer.Option(help="Column of true labels.", show_default="clean_label, true_label or label")
]
RowsOption = Annotated[int | None, typer.Option(min=4, help="Train on the first rows only.", show_default="all")]
WeightsOption = Annotated[
    str | None,
    typer.Option(help="A .safetensors file to start from.", show_default="torchvision's for ImageNet"),
]


def paper_table(metric: "Metric", help_text: str) -> Callable[..., None]:
    """The command of the table that shows `metric`."""

    def command(
        data_set: DataSetOption,
        out: CellsOption,
        images: TrainImagesOption = None,
        labels: TrainLabelsOption = None,
        test_images: TestImagesOption = None,
        test_labels: TestLabelsOption = None,
        torchvision: TorchvisionOption = None,
        download: DownloadOption = False,
        label_column: ColumnOption = None,
        methods: MethodsOption = None,
        noise: NoisesOption = None,
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
        debug: DebugOption = False,
    ) -> None:
        settings = given_settings(locals())
        source = _given(images=images, labels=labels, test_images=test_images, test_labels=test_labels, rows=rows)
        source |= _given(torchvision=torchvision, download=download, label_column=label_column)
        with Terminal(quiet=quiet) as observer:
            from noisyknn.paper.grid import make_table

            made = make_table(metric, data_set, source, methods, noise, trials, settings, out, observer)
        _show(made, as_json=as_json)

    command.__doc__ = help_text
    return command


def table3(
    clothing1m: ClothingOption,
    out: CellsOption,
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
    debug: DebugOption = False,
) -> None:
    """Table 3 of the paper: accuracy on Clothing1M's verified test images, by the recipe of Section 4.7."""
    settings = given_settings(locals())
    source = _given(images=clothing1m, rows=rows)
    with Terminal(quiet=quiet) as observer:
        from noisyknn.paper.grid import make_table

        made = make_table("accuracy", "clothing1m", source, methods, None, trials, settings, out, observer)
    _show(made, as_json=as_json)


def paper_figure(name: str, help_text: str, percent: int) -> Callable[..., None]:
    """The command that makes the figure `name`; in the paper, `percent` of the labels are wrong."""

    def command(
        images: ImagesOption,
        labels: LabelsOption,
        out: FigureOption,
        label_column: ColumnOption = None,
        noise: NoiseOption = f"symmetric-{percent}",
        preset: PresetOption = "cifar10",
        rows: RowsOption = None,
        backbone: BackboneOption = None,
        width: WidthOption = None,
        epochs: EpochsOption = None,
        episodes: EpisodesOption = None,
        batch_size: BatchSizeOption = None,
        every: EveryOption = None,
        k: KOption = None,
        seed: SeedOption = 0,
        device: DeviceOption = None,
        precision: PrecisionOption = None,
        overwrite: OverwriteOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        settings = given_settings(locals())
        with Terminal(quiet=quiet) as observer:
            from noisyknn.paper.figures import make_figure

            make_figure(
                name,
                images,
                labels,
                out,
                label_column=label_column,
                noise=noise,
                preset=preset,
                rows=rows,
                settings=settings,
                every=every,
                overwrite=overwrite,
                observer=observer,
            )

    command.__doc__ = help_text
    return command


def _given(**options: object) -> dict[str, object]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def _show(made: "Table", *, as_json: bool) -> None:
    """Print our figures beside the paper's, then raise the error of failed cells."""
    if as_json:
        typer.echo(json.dumps(made.as_dict(), indent=2))
    else:
        _print(made)
    made.check()


def _print(made: "Table") -> None:
    """Print the columns with figures of ours."""
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
