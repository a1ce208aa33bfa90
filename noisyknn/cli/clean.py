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
    out: Annotated[Path, typer.Option(help="Where the table goes with its new columns; - for standard output.")],
    path_column: Annotated[
        str | None,
        typer.Option(help="Column of paths within --images; path, filename, file or image if not given."),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of labels; noisy_label, given_label or label if not given.")
    ] = None,
    truth_column: Annotated[
        str | None, typer.Option(help="Column of true labels, for benchmarks: reported on, never learnt from.")
    ] = None,
    table_format: FormatOption = None,
    method: MethodOption = None,
    policy: PolicyOption = None,
    min_confidence: MinConfidenceOption = None,
    max_noise: Annotated[
        float | None,
        typer.Option(
            help="End with exit code 4 if the estimated noise rate is higher, or if the labels look random; everything "
            "is written all the same.",
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
            help="Write the probability of each class, without the given label: Parquet or CSV.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write the figures of the run as JSON.", rich_help_panel=RESULTS)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace output files, and start a finished --run-dir anew.")
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Correct wrong labels: the same table comes out with corrected_label, confidence and more.

    Killed or interrupted, the same command goes on where it stopped.
    """
    settings = given_settings(locals())
    for option, file in (
        ("--save-model", save_model),
        ("--save-probabilities", save_probabilities),
        ("--summary", summary),
    ):
        if file == STANDARD_STREAM:
            raise UsageError(f"{option} takes a file")
    if max_noise is not None and not 0 <= max_noise <= 1:
        raise UsageError(f"--max-noise {max_noise} is out of range (0 to 1)")
    target = sink(out)
    if out == STANDARD_STREAM and not takes_bytes(target):
        raise MachineError("standard output is closed or cannot be written; give --out FILE")
    with Terminal(quiet=quiet) as terminal:
        from noisyknn.api import clean as run  # torch takes a second or two: only now, when it is needed

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
            f"the networks of --method {used} have seen the labels: noise may be under-estimated, "
            "and confidence is not calibrated"
        )
    if max_noise is not None and rate > max_noise:
        raise GateError(f"an estimated {rate:.2%} of the given labels are wrong, more than --max-noise {max_noise:g}")
    if max_noise is not None and (worst := _worst_rate(result.summary)) > max_noise:
        raise GateError(
            f"the images tell next to nothing of the given labels; if these are at random, {worst:.2%} of them are "
            f"wrong, more than --max-noise {max_noise:g}"
        )


def _worst_rate(summary: dict[str, Any]) -> float:
    """Share of the given labels that is wrong if they are at random, 0 where they are surely not."""
    from noisyknn.calibration.decide import DOUBTFUL

    counts = [one_class["given"] for one_class in summary["classes"]]
    return 1 - sum((count / sum(counts)) ** 2 for count in counts) if summary["doubt"] > DOUBTFUL else 0.0


def _show(summary: dict[str, Any], written: Sequence[Path | None]) -> None:
    """Print what became of the rows, and which files were written, on standard error."""
    from rich.markup import escape
    from rich.table import Table

    title = f"{summary['rows']:,} rows in {summary['seconds']:.0f} s"
    table = Table("status", "rows", "share", title=title, title_justify="left")
    for status, count in summary["status"].items():
        table.add_row(status, f"{count:,}", f"{count / summary['rows']:.2%}")
    table.add_section()
    expected = summary["expected_right"]
    table.add_row("given labels wrong, estimated", "", f"{summary['estimated_noise_rate']:.2%}")
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
            "true", "given", "rows", "of the class", title="Commonest errors, estimated", title_justify="left"
        )
        for flip in summary["flips"][:SHOWN_FLIPS]:
            names = (escape(one_line(str(flip[side]))) for side in ("true", "given"))
            flips.add_row(*names, f"{flip['rows']:,.0f}", f"{flip['share']:.2%}")
        show_table(flips, stderr=True)
    for path in written:
        if path is not None and path != STANDARD_STREAM:
            note(f"wrote {path}")
