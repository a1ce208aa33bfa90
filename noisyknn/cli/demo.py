"""noisyknn demo: the main job on a small real data set, without a download."""

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
        Path | None, typer.Option(help="New folder for the images and tables.", show_default="a temporary one")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the noise and of the training.")] = 0,
    debug: DebugOption = False,
) -> None:
    """Make 40 % of the labels of 1,797 handwritten digits wrong, clean them, and print the recovery."""
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
        except InterruptedRunError as error:  # the run is removed, so it cannot resume
            raise InterruptedRunError("interrupted") from error
        note(f"$ noisyknn evaluate {fixed} --truth-column clean_label")
        evaluate(fixed, truth_column="clean_label", debug=debug)
