"""Options that the commands of noisyknn paper share."""

from typing import Annotated, Literal

import typer

THEIRS = "the preset's"
LabelColumnOption = Annotated[
    str | None, typer.Option(help="Column of true labels.", show_default="clean_label, true_label or label")
]
RowsOption = Annotated[int | None, typer.Option(min=4, help="Train on the first rows only.", show_default="all")]
EpochsOption = Annotated[int | None, typer.Option(help="Passes over the images in each episode.", show_default=THEIRS)]
EpisodesOption = Annotated[int | None, typer.Option(help="Rounds of training and correcting.", show_default=THEIRS)]
BatchSizeOption = Annotated[int | None, typer.Option(help="Images per step of training.", show_default=THEIRS)]
KOption = Annotated[int | None, typer.Option(help="Neighbours that vote.", show_default=THEIRS)]
WidthOption = Annotated[float | None, typer.Option(help="Factor on the channels of the backbone.", show_default=THEIRS)]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16"] | None, typer.Option(help="Precision of training.", show_default="auto")
]


def given(**options: object) -> dict[str, object]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}
