"""noisyknn clean: the main job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from noisyknn.cli.common import (
    STANDARD_STREAM,
    DebugOption,
    FormatOption,
    QuietOption,
    note,
    show_table,
    sink,
    source,
)
from noisyknn.cli.terminal import Terminal
from noisyknn.errors import GateError, MachineError, UsageError, one_line
from noisyknn.files import takes_bytes
from noisyknn.methods.spec import METHODS, find_method

SHOWN_FLIPS = 10
CORRECTION, TRAINING, RESULTS = "Correction", "Training", "Results"  # how --help groups what may be left out


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
    method: Annotated[
        str | None,
        typer.Option(
            help="; ".join(f"{name}: {words}" for name, (_, words) in METHODS.items()) + ".",
            show_default="crossfit; selknn in the paper's presets",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    policy: Annotated[
        Literal["careful", "paper"] | None,
        typer.Option(
            help="careful: correct what is likely enough right; paper: apply every vote, or all that a network says.",
            show_default="careful; paper in the paper's presets and what it compares with",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            help="Probability of being right that a careful correction needs, 0 to 1.",
            show_default="0.4",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    max_noise: Annotated[
        float | None,
        typer.Option(
            help="End with exit code 4 if the estimated share of wrong labels is larger, or would be if labels that "
            "images tell nothing of are at random; all is written.",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    preset: Annotated[
        Literal["auto", "mnist", "cifar10", "cifar100", "clothing1m"],
        typer.Option(
            help="Where settings start from: auto looks at data and device, the others are the paper's.",
            rich_help_panel=TRAINING,
        ),
    ] = "auto",
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; overrides the preset.", rich_help_panel=TRAINING)
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="cnn5, cnn8, preact_resnet18, preact_resnet32, preact_resnet56 or a torchvision classifier.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="Factor on the channels of noisyknn's own backbones.", rich_help_panel=TRAINING)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="DEFAULT (torchvision's download) or a .safetensors file to start from.", rich_help_panel=TRAINING
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Stage that features are taken from.",
            show_default="last convolutional stage",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Height and width in pixels that the network sees.", rich_help_panel=TRAINING)
    ] = None,
    progressive: Annotated[
        bool | None,
        typer.Option(
            "--progressive/--no-progressive",
            help="Begin each episode with smaller images, which is faster.",
            show_default="yes for crossfit in auto, from 24 pixels",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Rounds of training and correcting.", rich_help_panel=TRAINING)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the images in each episode.", rich_help_panel=TRAINING)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per training step.", rich_help_panel=TRAINING)] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate: the initial, or a one-cycle's largest.", rich_help_panel=TRAINING),
    ] = None,
    loss: Annotated[
        Literal["ce", "sce"] | None,
        typer.Option(help="Cross-entropy, or symmetric cross-entropy.", rich_help_panel=TRAINING),
    ] = None,
    k: Annotated[int | None, typer.Option(help="Neighbours that vote.", rich_help_panel=CORRECTION)] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Parts of the data that crossfit judges in turn.",
            show_default="4; --episodes if fewer",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    gamma_decay: Annotated[
        float | None,
        typer.Option(
            help="What the weight of the given labels is divided by after each episode.", rich_help_panel=CORRECTION
        ),
    ] = None,
    reference_start: Annotated[
        float | None,
        typer.Option(
            help="Share of each class that votes in the first episode (selknn), 0 to 1.", rich_help_panel=CORRECTION
        ),
    ] = None,
    reference_step: Annotated[
        float | None,
        typer.Option(help="What that share grows by after each episode, until 1.", rich_help_panel=CORRECTION),
    ] = None,
    selector: Annotated[
        Literal["loss", "o2u"] | None,
        typer.Option(
            help="Whose loss tells who votes (selknn): the episode's, or that of a further cycle, as O2U-Net has it.",
            show_default="loss",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    search: Annotated[
        Literal["auto", "torch", "faiss"] | None,
        typer.Option(
            help="k-NN backend: auto takes faiss, if installed, on a CPU; torch elsewhere.",
            show_default="auto",
            rich_help_panel=CORRECTION,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto", rich_help_panel=TRAINING)
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        typer.Option(
            help="auto takes bf16 where the device computes it natively.", show_default="auto", rich_help_panel=TRAINING
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random.", show_default="0", rich_help_panel=TRAINING)
    ] = None,
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
            help="Save a network that learnt the corrected labels, or the method's own (.safetensors).",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    save_probabilities: Annotated[
        Path | None,
        typer.Option(
            help="Write the probability of each class, given label left out: Parquet or CSV.", rich_help_panel=RESULTS
        ),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write the figures of the run as JSON.", rich_help_panel=RESULTS)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace output files, and start a finished --run-dir anew.")
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
) -> None:
    """Correct wrong labels: the same table comes out with corrected_label, confidence and more.

    Killed or interrupted, the same command goes on where it stopped.
    """
    given: dict[str, Any] = {
        "method": method,
        "policy": policy,
        "min_confidence": min_confidence,
        "backbone": backbone,
        "width": width,
        "weights": weights,
        "layer": layer,
        "image_size": image_size,
        "progressive": progressive,
        "episodes": episodes,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "loss": loss,
        "k": k,
        "folds": folds,
        "gamma_decay": gamma_decay,
        "reference_start": reference_start,
        "reference_step": reference_step,
        "selector": selector,
        "search": search,
        "device": device,
        "precision": precision,
        "seed": seed,
    }
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
    settings = {name: value for name, value in given.items() if value is not None}
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
