"""noisyknn demo: the main job on a small real data set, no download."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from noisyknn.cli.clean import clean
from noisyknn.cli.common import note
from noisyknn.cli.evaluate import evaluate
from noisyknn.cli.inject_noise import inject_noise
from noisyknn.cli.options import DebugOption
from noisyknn.errors import InterruptedRunError, UsageError


def demo(
    keep: Annotated[
        Path | None, typer.Option(help="New folder to keep images and tables in.", show_default="none, all is removed")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the noise and of the training.")] = 0,
    debug: DebugOption = False,
) -> None:
    """Make 40 % of 1,797 handwritten digits' labels wrong, clean them, and print what was recovered."""
    if keep is not None and keep.exists():
        raise UsageError(f"--keep {keep} exists already; name a new folder")
    with tempfile.TemporaryDirectory(prefix="noisyknn-demo-") as temporary:
        folder = keep or Path(temporary)
        labels, noisy, fixed = folder / "labels.csv", folder / "noisy.csv", folder / "fixed.parquet"

        from noisyknn.demo import write_digits

        write_digits(folder)
        note(f"$ noisyknn inject-noise --labels {labels} --out {noisy} --noise symmetric --rate 0.4 --seed {seed}")
        inject_noise(labels, noisy, "symmetric", rate=0.4, seed=seed, quiet=True, debug=debug)
        note(f"$ noisyknn clean --images {folder / 'images'} --labels {noisy} --out {fixed} --seed {seed}")
        try:
            clean(folder / "images", noisy, fixed, seed=seed, run_dir=Path(temporary) / "run", debug=debug)
        except InterruptedRunError as error:  # what could be resumed is removed
            raise InterruptedRunError("interrupted") from error
        note(f"$ noisyknn evaluate {fixed} --truth-column clean_label")
        evaluate(fixed, truth_column="clean_label", debug=debug)
