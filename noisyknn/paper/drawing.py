"""Draws the paper's figures with matplotlib."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from noisyknn.errors import MachineError, one_line
from noisyknn.files import atomic_file

MARKERS = "osD^vPX*"


def check_matplotlib() -> None:
    """Raise MachineError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MachineError("figures need matplotlib: pip install 'noisyknn[bench]'")


def draw(points: pd.DataFrame, title: str, files: list[Path]) -> None:
    """Draw points (layer, x, y, class) or curves (epoch or episode, curve, accuracy) into `files`, PNG or SVG by name.

    Several methods ("SelKNN, k = 5") get a panel each. Raises MachineError if a file cannot be written.
    """
    from matplotlib.figure import Figure

    panels, layers = _panels(points), "layer" in points
    figure = Figure(figsize=((4.5 if layers else 7) * len(panels), 4.5), layout="constrained")  # inches
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=not layers)
    for axes, (name, part) in zip(grid[0], panels.items(), strict=True):
        (_scatter if layers else _lines)(axes, part)
        axes.set_title(name, fontsize="medium")
    legend = figure.axes[-1].legend(
        fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), markerscale=3 if layers else 1
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name is not a formula
    figure.suptitle(title, fontsize="medium")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        for file in files:
            with atomic_file(file) as target:
                figure.savefig(target, format=file.suffix[1:], dpi=150)


def _panels(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The points of each panel by its title: a layer, or a method's curves with the network's."""
    if "layer" in points:
        return {str(layer): part for layer, part in points.groupby("layer", sort=False)}
    curves = points["curve"]
    if not curves.str.fullmatch(r"network|\w+, k = \d+").all():
        return {"": points}
    return {
        method: points[(curves == "network") | curves.str.startswith(method)].assign(
            curve=curves.str.removeprefix(f"{method}, ")
        )
        for method in ("SelKNN", "IterKNN")
    }


def _lines(axes: Any, points: pd.DataFrame) -> None:
    """Draw a line per curve; the network's is black."""
    from matplotlib.ticker import MaxNLocator

    steps = points.columns[0]
    for place, (curve, part) in enumerate(points.groupby("curve", sort=False)):
        style = {"color": "black", "linestyle": "--"} if curve == "network" else {"color": f"C{place % 10}"}
        axes.plot(part[steps], 100 * part["accuracy"], label=curve, marker=MARKERS[place % 8], markersize=4, **style)
    axes.set_xlabel(steps)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("correct labels, %")
    axes.grid(alpha=0.3)


def _scatter(axes: Any, points: pd.DataFrame) -> None:
    """Draw the classes in different colours and, beyond ten, shapes."""
    for number, (name, part) in enumerate(points.groupby("class")):
        label = one_line(str(name))
        label = f" {label}" if label.startswith("_") else label  # matplotlib hides labels that start with an underscore
        style = {"color": f"C{number % 10}", "marker": MARKERS[number // 10 % 8]}
        axes.scatter(part["x"], part["y"], label=label, s=5, linewidths=0, **style)
    axes.set_xticks([])
    axes.set_yticks([])
