"""noisyknn clean: the main job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from noisyknn.cli.common import STANDARD_STREAM, note, show_table, sink, source
from noisyknn.cli.options import (
    CORRECTION,
    BackboneOption,
    BatchSizeOption,
    ConfigOption,
    DebugOption,
    DeviceOption,
    EpisodesOption,
    EpochsOption,
    FoldsOption,
    FormatOption,
    GammaDecayOption,
    ImageSizeOption,
    KOption,
    LayerOption,
    LossOption,
    LrOption,
    MethodOption,
    MinConfidenceOption,
    PolicyOption,
    PrecisionOption,
    PresetOption,
    ProgressiveOption,
    QuietOption,
    ReferenceStartOption,
    ReferenceStepOption,
    SearchOption,
    SeedOption,
    SelectorOption,
    WeightsOption,
    WidthOption,
    given_settings,
)
from noisyknn.cli.terminal import Terminal
from noisyknn.errors import GateError, MachineError, UsageError, one_line
from noisyknn.files import takes_bytes
from noisyknn.methods.spec import find_method

SHOWN_FLIPS = 10
RESULTS = "Results"  # a group of --help


def clean(
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    labels: Annotated[Path, typer.Option(help="Table of paths and labels: CSV, Parquet, or - for standard input.")],
    out: Annotated[Path, typer.Option(help="Output: the table with new columns; - for standard output.")],
    path_column: Annotated[
        str | None,
        typer.Option(help="Column of paths within --images; default: path, filename, file or image."),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of labels; default: noisy_label, given_label or label.")
    ] = None,
    truth_column: Annotated[
        str | None, typer.Option(help="Column of true labels, for benchmarks; training never uses it.")
    ] = None,
    table_format: FormatOption = None,
    method: MethodOption = None,
    policy: PolicyOption = None,
    min_confidence: MinConfidenceOption = None,
    max_noise: Annotated[
        float | None,
        typer.Option(
            help="Exit with code 4, after writing all results, if the estimated noise rate is higher, or the labels "
            "look random.",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    k: KOption = None,
    folds: FoldsOption = None,
    gamma_decay: GammaDecayOption = None,
    reference_start: ReferenceStartOption = None,
    reference_step: ReferenceStepOption = None,
    selector: SelectorOption = None,
    search: SearchOption = None,
    preset: PresetOption = "auto",
    config: ConfigOption = None,
    backbone: BackboneOption = None,
    width: WidthOption = None,
    weights: WeightsOption = None,
    layer: LayerOption = None,
    image_size: ImageSizeOption = None,
    progressive: ProgressiveOption = None,
    episodes: EpisodesOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    lr: LrOption = None,
    loss: LossOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run's manifest, history and state.",
            show_default="cache, until done",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    save_model: Annotated[
        Path | None,
        typer.Option(
            help="Save a network trained on the corrected labels, or the method's own (.safetensors).",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    save_probabilities: Annotated[
        Path | None,
        typer.Option(
            help="Write the probability of each class by the image alone: Parquet or CSV.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write the figures of the run as JSON.", rich_help_panel=RESULTS)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs, and a finished or different run in --run-dir.")
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Correct wrong labels: write the same table with corrected_label, confidence and more.

    After an interruption, run the same command again to resume.
    """
    settings = given_settings(locals())
    for option, file in (
        ("--save-model", save_model),
        ("--save-probabilities", save_probabilities),
        ("--summary", summary),
    ):
        if file == STANDARD_STREAM:
            raise UsageError(f"{option} cannot be standard output; name a file")
    if max_noise is not None and not 0 <= max_noise <= 1:
        raise UsageError(f"--max-noise {max_noise} is out of range (0 to 1)")
    target = sink(out)
    if out == STANDARD_STREAM and not takes_bytes(target):
        raise MachineError("standard output is closed or not writable; name a file with --out")
    with Terminal(quiet=quiet) as terminal:
        from noisyknn.api import clean as run  # imported late: torch takes a second or two

        result = run(
            images,
            source(labels),
            out=target,
            path_column=path_column,
            label_column=label_column,
            truth_column=truth_column,
            table_format=table_format,
            preset=preset,
            config=config,
            run_dir=run_dir,
            save_model=save_model,
            save_probabilities=save_probabilities,
            summary=summary,
            overwrite=overwrite,
            observer=terminal,
            **settings,
        )
    if not quiet:
        _show(result.summary, [out, save_model, save_probabilities, summary])
    rate, used = result.summary["estimated_noise_rate"], result.summary["config"]["method"]
    if not find_method(used).held_out and not quiet:
        note(
            f"--method {used} judges labels that it trained on: the noise rate may be too low and confidence is "
            "miscalibrated; for calibrated figures use --method crossfit"
        )
    if max_noise is not None and rate > max_noise:
        raise GateError(f"the estimated noise rate is {rate:.2%}, above --max-noise {max_noise:g}; check the labels")
    if max_noise is not None and (worst := _worst_rate(result.summary)) > max_noise:
        raise GateError(
            f"the labels look unrelated to the images; if they are random, {worst:.2%} of them are wrong, above "
            f"--max-noise {max_noise:g}; check the labels"
        )


def _worst_rate(summary: dict[str, Any]) -> float:
    """Noise rate if the given labels are random; 0 if that is unlikely."""
    from noisyknn.calibration.decide import DOUBTFUL

    counts = [one_class["given"] for one_class in summary["classes"]]
    return 1 - sum((count / sum(counts)) ** 2 for count in counts) if summary["doubt"] > DOUBTFUL else 0.0


def _show(summary: dict[str, Any], written: Sequence[Path | None]) -> None:
    """Print the rows by status, the estimates and the written files on standard error."""
    from rich.markup import escape
    from rich.table import Table

    title = f"{summary['rows']:,} rows in {summary['seconds']:.0f} s"
    table = Table("status", "rows", "share", title=title, title_justify="left")
    for status, count in summary["status"].items():
        table.add_row(status, f"{count:,}", f"{count / summary['rows']:.2%}")
    table.add_section()
    expected = summary["expected_right"]
    table.add_row("noise rate, estimated", "", f"{summary['estimated_noise_rate']:.2%}")
    table.add_row("labels right before, expected", "", f"{expected['before']:.2%}")
    table.add_row("labels right after, expected", "", f"{expected['after']:.2%}")
    outside = summary["no_class"]
    table.add_row("images of no class, expected", f"{outside:,.0f}", f"{outside / summary['rows']:.2%}")
    table.add_section()
    for name, value in summary.get("truth", {}).items():
        table.add_row(f"{name.replace('_', ' ')} (truth)", "", "–" if value is None else f"{value:.2%}")
    show_table(table, stderr=True)
    if summary["flips"]:
        flips = Table(
            "true", "given", "rows", "share of class", title="Commonest errors, estimated", title_justify="left"
        )
        for flip in summary["flips"][:SHOWN_FLIPS]:
            names = (escape(one_line(str(flip[side]))) for side in ("true", "given"))
            flips.add_row(*names, f"{flip['rows']:,.0f}", f"{flip['share']:.2%}")
        show_table(flips, stderr=True)
    for path in written:
        if path is not None and path != STANDARD_STREAM:
            note(f"wrote {path}")
