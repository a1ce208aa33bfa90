"""noisyknn paper fig2 to fig6: figures of the paper, drawn from a run on one's own images."""

import tempfile
from collections.abc import Callable, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from noisyknn.cli.common import DebugOption, OverwriteOption, QuietOption
from noisyknn.cli.terminal import Terminal
from noisyknn.errors import UsageError
from noisyknn.files import atomic_file, check_outputs, make_folder

if TYPE_CHECKING:
    from noisyknn.paper.figures import Study


def paper_figure(name: str, help_text: str, percent: int) -> Callable[..., None]:
    """The command that makes the figure of that name, whose labels are as many per cent wrong in the paper."""

    def command(
        images: Annotated[Path, typer.Option(help="Folder of the images.")],
        labels: Annotated[Path, typer.Option(help="Table of their paths and true labels: CSV or Parquet.")],
        out: Annotated[Path, typer.Option(help=f"Folder that {name}.csv, .png and .svg are written into.")],
        label_column: Annotated[
            str | None, typer.Option(help="Column of true labels; clean_label, true_label or label if not given.")
        ] = None,
        noise: Annotated[str, typer.Option(help="symmetric-60 or asymmetric-40, per cent.")] = f"symmetric-{percent}",
        preset: Annotated[
            Literal["mnist", "cifar10", "cifar100"], typer.Option(help="The paper's settings to start from.")
        ] = "cifar10",
        rows: Annotated[int | None, typer.Option(min=4, help="The first rows only.", show_default="all")] = None,
        backbone: Annotated[str | None, typer.Option(help="A backbone that clean knows.")] = None,
        width: Annotated[float | None, typer.Option(help="Factor on the channels of the backbone.")] = None,
        epochs: Annotated[int | None, typer.Option(help="Passes over the images in each episode.")] = None,
        episodes: Annotated[int | None, typer.Option(help="Rounds of training and correcting (fig4).")] = None,
        batch_size: Annotated[int | None, typer.Option(help="Images per step of training.")] = None,
        every: Annotated[
            int | None,
            typer.Option(min=1, help="Epochs from one point to the next (fig3, fig5, fig6).", show_default="1"),
        ] = None,
        k: Annotated[
            int | None, typer.Option(help="Neighbours that vote (fig3, fig4, fig6).", show_default="100")
        ] = None,
        seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the noise and of the training.")] = 0,
        device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
        precision: Annotated[
            Literal["auto", "fp32", "bf16"] | None, typer.Option(help="Precision of training.")
        ] = None,
        overwrite: OverwriteOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,  # noqa: ARG001  # read by guarded()
    ) -> None:
        options: dict[str, object] = {"backbone": backbone, "width": width, "epochs": epochs, "episodes": episodes}
        options |= {"batch_size": batch_size, "k": k, "seed": seed, "device": device, "precision": precision}
        settings = {option: value for option, value in options.items() if value is not None}
        with Terminal(quiet=quiet) as observer:
            from noisyknn.data.table import write_table
            from noisyknn.paper.drawing import check_matplotlib, draw
            from noisyknn.paper.figures import FIGURES, prepare

            kind = FIGURES[name]
            for option, value in (("every", every), ("k", k), ("episodes", episodes)):
                if value is not None and option not in kind.uses:
                    raise UsageError(f"--{option} does nothing in {name}; remove it")
            if "k" not in kind.uses:
                settings["k"] = 1  # of no effect: never too many
            if "episodes" not in kind.uses:
                settings["episodes"] = 1
            check_matplotlib()
            make_folder("--out", out)
            files = [out / f"{name}.{ending}" for ending in ("csv", "png", "svg")]
            outputs = {f"--out ({file.name})": file for file in files}
            study = prepare(
                images,
                labels,
                column=label_column,
                rows=rows,
                noise=noise,
                preset=preset,
                settings=settings,
                loss=kind.loss,
                every=every or 1,
                outputs=outputs,
                overwrite=overwrite,
                out=out,
                observer=observer,
            )
            points = kind.points(study)
            with tempfile.TemporaryDirectory() as folder:  # so that there are all files or none
                drawn = [Path(folder) / file.name for file in files]
                write_table(points, drawn[0])
                draw(name, points, f"{kind.subject}\n{_settings(study, noise, kind.uses)}", drawn[1:], observer)
                check_outputs(outputs, [], overwrite=overwrite)  # some may have been made meanwhile
                for source, file in zip(drawn, files, strict=True):
                    with atomic_file(file) as target:
                        target.write(source.read_bytes())
                    observer.note(f"wrote {file}")

    command.__doc__ = help_text
    return command


def _settings(study: "Study", noise: str, uses: Set[str]) -> str:
    """What a figure was made with, in words."""
    config = study.trainer.config
    epochs = f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"
    loss = {"ce": "cross-entropy", "sce": "symmetric cross-entropy"}[config.loss]
    noise = f"{noise.replace('-', ' ')} %"
    batches = f"batches of {config.batch_size}"
    votes = [f"k = {config.k}"] if "k" in uses else []
    lines = (f"{len(study.truth):,} images", noise, config.network), (epochs, batches, loss, *votes)
    return "\n".join(map(", ".join, lines))
