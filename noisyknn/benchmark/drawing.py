"""Draws the paper's figures from their points, with matplotlib."""

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd

from noisyknn.errors import MachineError
from noisyknn.files import atomic_file

WIDTH, HEIGHT = 7.0, 4.5
"""Inches."""


def check_matplotlib() -> None:
    """Raise MachineError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MachineError("drawing needs matplotlib: pip install 'noisyknn[bench]'")


def draw(name: str, points: pd.DataFrame, title: str, stem: Path) -> list[Path]:
    """Draw ``fig2`` to ``fig6`` into STEM.png and STEM.svg, whole or not at all; returns both."""
    from matplotlib.figure import Figure

    if name == "fig2":
        figure = _scatter(Figure, points)
    elif name == "fig5":
        figure = _panels(Figure, points)
    else:
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        _lines(figure.add_subplot(), points)
    figure.axes[0].figure.suptitle(title, fontsize="medium")
    if name == "fig4":
        figure.axes[0].set_xlabel("episode")
    files = [stem.with_suffix(ending) for ending in (".png", ".svg")]
    for file in files:
        with atomic_file(file) as target:
            figure.savefig(target, format=file.suffix[1:], dpi=150)
    return files


def _lines(axes: Any, points: pd.DataFrame) -> None:
    """A line per curve, in the order in which they come; the network's own is black."""
    for place, (curve, part) in enumerate(points.groupby("curve", sort=False)):
        style = {"color": "black", "linestyle": "--"} if curve == "network" else {"color": f"C{place % 10}"}
        axes.plot(part["epoch"], 100 * part["accuracy"], label=curve, marker="o", markersize=3, **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("labels that are right, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _panels(figure_class: Any, points: pd.DataFrame) -> Any:
    """SelKNN on the left, IterKNN on the right, on one scale, each beside the network."""
    figure = figure_class(figsize=(1.6 * WIDTH, HEIGHT), layout="constrained")
    shared = None
    for place, method in enumerate(("SelKNN", "IterKNN"), 1):
        axes = figure.add_subplot(1, 2, place, sharey=shared)
        shared = shared or axes
        mine = points["curve"].str.startswith(method) | (points["curve"] == "network")
        _lines(axes, points[mine].assign(curve=lambda part: part["curve"].str.removeprefix(f"{method}, ")))  # noqa: B023
        axes.set_title(method, fontsize="medium")
    return figure


def _scatter(figure_class: Any, points: pd.DataFrame) -> Any:
    """A panel per layer, a colour per class."""
    layers = list(dict.fromkeys(points["layer"]))
    figure = figure_class(figsize=(4 * len(layers), 4.3), layout="constrained")
    for place, layer in enumerate(layers, 1):
        axes = figure.add_subplot(1, len(layers), place)
        part = points[points["layer"] == layer]
        colours = "tab10" if part["class"].max() < 10 else "nipy_spectral"
        axes.scatter(part["x"], part["y"], c=part["class"], cmap=colours, s=4)
        axes.set_title(layer, fontsize="medium")
        axes.set_xticks([])
        axes.set_yticks([])
    return figure
