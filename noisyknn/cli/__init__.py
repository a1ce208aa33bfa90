"""The command line: each command declares its options, calls the library once, and prints."""

import os
import sys
from typing import Annotated

import typer

from noisyknn.cli.clean import clean
from noisyknn.cli.common import guarded
from noisyknn.cli.demo import demo
from noisyknn.cli.doctor import doctor
from noisyknn.cli.evaluate import evaluate
from noisyknn.cli.inject_noise import inject_noise
from noisyknn.cli.paper import paper_figure, paper_table, table3
from noisyknn.version import __version__

EXIT_CODES = (
    "Exit codes: 0 done; 1 a fault of the tool or the machine; 2 wrong usage; 3 the input data cannot be used; "
    "4 more noise than --max-noise allows; 130 interrupted."
)

app = typer.Typer(
    name="noisyknn",
    help="Correct wrong labels in image data sets with KNN-enhanced deep learning.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("clean", epilog=EXIT_CODES)(guarded(clean))
app.command("inject-noise", epilog=EXIT_CODES)(guarded(inject_noise))
app.command("evaluate", epilog=EXIT_CODES)(guarded(evaluate))
app.command("demo", epilog=EXIT_CODES)(guarded(demo))
app.command("doctor", epilog=EXIT_CODES)(guarded(doctor))

paper_app = typer.Typer(help="Reproduce the paper's tables and figures.", no_args_is_help=True, epilog=EXIT_CODES)
paper_app.command("table1", epilog=EXIT_CODES)(
    guarded(paper_table("accuracy", "Table 1 of the paper: accuracy on the test set after the last epoch."))
)
paper_app.command("table2", epilog=EXIT_CODES)(
    guarded(paper_table("recovery", "Table 2 of the paper: share of right training labels after correction."))
)
paper_app.command("table3", epilog=EXIT_CODES)(guarded(table3))
for _name, _help, _percent in (
    ("fig2", "Figure 2: t-SNE of the outputs of three layers after an episode.", 60),
    ("fig3", "Figure 3: share of right labels by epoch: network, IterKNN and SelKNN.", 60),
    ("fig4", "Figure 4: recovery of SelKNN by episode, for three ways to start an episode.", 80),
    ("fig5", "Figure 5: SelKNN and IterKNN with 5 to 1,000 neighbours.", 60),
    ("fig6", "Figure 6: SelKNN with the features of each stage.", 60),
):
    paper_app.command(_name, epilog=EXIT_CODES)(guarded(paper_figure(_name, _help, _percent)))
app.add_typer(paper_app, name="paper", epilog=EXIT_CODES)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"noisyknn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the console script; ends the process. Typer reports wrong usage, `guarded` every other error."""
    guarded(_run)()


def ask_for_huge_pages() -> None:
    """Make torch use pages of 2 MiB for large tensors; it reads the setting at its first allocation.

    Training frees and allocates tensors at every step, and the system clears each of their pages again.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _run() -> None:
    ask_for_huge_pages()
    try:
        app()
    finally:  # the app always ends the process: flush the help or the version first
        sys.stdout.flush()
