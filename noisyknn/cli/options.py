"""Options of several commands, each declared once; settings keep their names in `noisyknn.config.Config`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from noisyknn.config import Config, LossName, PolicyName, Precision, PresetName, SearchName, SelectorName
from noisyknn.methods.spec import METHODS

CORRECTION, TRAINING = "Correction", "Training"  # how --help groups settings

FormatOption = Annotated[
    Literal["csv", "parquet"] | None,
    typer.Option("--format", help="Format of -, and of files that do not end in .csv, .parquet or .pq."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing output files.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print only errors on standard error.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

MethodOption = Annotated[
    str | None,
    typer.Option(
        help="; ".join(f"{name}: {words}" for name, (_, words) in METHODS.items()) + ".",
        show_default="crossfit; selknn in the paper's presets",
        rich_help_panel=CORRECTION,
    ),
]
PolicyOption = Annotated[
    PolicyName | None,
    typer.Option(
        help="careful: correct a label only when the correction is probably right; paper: apply every vote.",
        show_default="careful; paper in the paper's presets and baselines",
        rich_help_panel=CORRECTION,
    ),
]
MinConfidenceOption = Annotated[
    float | None,
    typer.Option(
        help="Smallest confidence of a careful correction, 0 to 1.", show_default="0.4", rich_help_panel=CORRECTION
    ),
]
KOption = Annotated[int | None, typer.Option(help="Number of neighbours that vote.", rich_help_panel=CORRECTION)]
FoldsOption = Annotated[
    int | None,
    typer.Option(
        help="Parts of the data that crossfit holds out in turn.",
        show_default="4; --episodes if fewer",
        rich_help_panel=CORRECTION,
    ),
]
GammaDecayOption = Annotated[
    float | None,
    typer.Option(help="Divides the weight of the given labels after each episode.", rich_help_panel=CORRECTION),
]
ReferenceStartOption = Annotated[
    float | None,
    typer.Option(
        help="Share of each class that votes in the first episode (selknn), 0 to 1.", rich_help_panel=CORRECTION
    ),
]
ReferenceStepOption = Annotated[
    float | None,
    typer.Option(help="Increase of that share after each episode, up to 1.", rich_help_panel=CORRECTION),
]
SelectorOption = Annotated[
    SelectorName | None,
    typer.Option(
        help="Loss that selects references (selknn): of the episode, or of a further cycle (o2u, O2U-Net).",
        show_default="loss",
        rich_help_panel=CORRECTION,
    ),
]
SearchOption = Annotated[
    SearchName | None,
    typer.Option(
        help="k-NN backend: auto uses faiss on a CPU if it is installed, else torch.",
        show_default="auto",
        rich_help_panel=CORRECTION,
    ),
]

PresetOption = Annotated[
    PresetName,
    typer.Option(
        help="Settings to start from: auto depends on data and device; the others are the paper's.",
        rich_help_panel=TRAINING,
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file of settings; overrides the preset.", rich_help_panel=TRAINING)
]
BackboneOption = Annotated[
    str | None,
    typer.Option(
        help="cnn5, cnn8, preact_resnet18, preact_resnet32, preact_resnet56 or a torchvision classifier.",
        rich_help_panel=TRAINING,
    ),
]
WidthOption = Annotated[
    float | None, typer.Option(help="Factor on the channels of noisyknn's own backbones.", rich_help_panel=TRAINING)
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="Weights to start from: DEFAULT (torchvision downloads them) or a .safetensors file.",
        rich_help_panel=TRAINING,
    ),
]
LayerOption = Annotated[
    str | None,
    typer.Option(
        help="Stage that gives the features.",
        show_default="last convolutional stage",
        rich_help_panel=TRAINING,
    ),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(help="Height and width of the network's input, in pixels.", rich_help_panel=TRAINING)
]
ProgressiveOption = Annotated[
    bool | None,
    typer.Option(
        "--progressive/--no-progressive",
        help="Start each episode with smaller images, for speed.",
        show_default="yes for crossfit in auto, from 24 pixels",
        rich_help_panel=TRAINING,
    ),
]
EpisodesOption = Annotated[
    int | None, typer.Option(help="Rounds of training and correcting.", rich_help_panel=TRAINING)
]
EpochsOption = Annotated[
    int | None, typer.Option(help="Passes over the images in each episode.", rich_help_panel=TRAINING)
]
BatchSizeOption = Annotated[int | None, typer.Option(help="Images per training step.", rich_help_panel=TRAINING)]
LrOption = Annotated[
    float | None,
    typer.Option(help="Learning rate: initial, or largest of a one-cycle.", rich_help_panel=TRAINING),
]
LossOption = Annotated[
    LossName | None, typer.Option(help="Cross-entropy, or symmetric cross-entropy.", rich_help_panel=TRAINING)
]
DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto", rich_help_panel=TRAINING)
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="auto uses bf16 if the device supports it natively.", show_default="auto", rich_help_panel=TRAINING
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Random seed.", show_default="0", rich_help_panel=TRAINING)]


def given_settings(values: Mapping[str, object]) -> dict[str, object]:
    """The settings among a command's parameters that the user gave."""
    names = [field.name for field in dataclasses.fields(Config)]
    return {name: values[name] for name in names if values.get(name) is not None}
