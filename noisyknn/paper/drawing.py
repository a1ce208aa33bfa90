"""Draws the paper's figures from their points, with matplotlib."""

import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from noisyknn.errors import MachineError, first_ten, one_line
from noisyknn.files import machine_error
from noisyknn.observer import Observer

WIDTH, HEIGHT = 7.0, 4.5
"""Inches."""
MARKS = 12
"""Epochs up to which each has its mark on the axis."""
MARKERS = "osD^vPX*"
"""Shapes of points, matplotlib's."""


def check_matplotlib() -> None:
    """Raise MachineError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MachineError("drawing needs matplotlib: pip install 'noisyknn[bench]'")


def draw(name: str, points: pd.DataFrame, title: str, files: Iterable[Path], observer: Observer) -> None:
    """Draw ``fig2`` to ``fig6`` into `files`, of the formats that their endings say."""
    from matplotlib.figure import Figure

    if name == "fig2":
        figure = _scatter(Figure, points, observer)
    elif name == "fig5":
        figure = _panels(Figure, points)
    else:
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        _lines(figure.add_subplot(), points)
    figure.suptitle(title, fontsize="medium")
    for file in files:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # told, once
            try:
                figure.savefig(file, dpi=150)
            except OSError as error:
                raise machine_error(file, error) from error


def _lines(axes: Any, points: pd.DataFrame) -> None:
    """A line per curve, in the order in which they come; the network's own is black."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    steps = points.columns[0]
    for place, (curve, part) in enumerate(points.groupby("curve", sort=False)):
        style = {"color": "black", "linestyle": "--"} if curve == "network" else {"color": f"C{place % 10}"}
        size = 8 - 2 * min(place, 2)  # so that a line under another shows
        axes.plot(part[steps], 100 * part["accuracy"], label=curve, marker=MARKERS[place % 8], markersize=size, **style)
    axes.set_xlabel(steps)
    marks = sorted(set(points[steps]))
    axes.xaxis.set_major_locator(FixedLocator(marks) if len(marks) <= MARKS else MaxNLocator(integer=True))
    axes.set_ylabel("labels that are right, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _panels(figure_class: Any, points: pd.DataFrame) -> Any:
    """SelKNN on the left, IterKNN on the right, on one scale, each beside the network."""
    figure = figure_class(figsize=(2 * WIDTH, HEIGHT), layout="constrained")
    shared = None
    for place, method in enumerate(("SelKNN", "IterKNN"), 1):
        axes = figure.add_subplot(1, 2, place, sharey=shared)
        shared = shared or axes
        mine = points["curve"].str.startswith(method) | (points["curve"] == "network")
        _lines(axes, points[mine].assign(curve=lambda part: part["curve"].str.removeprefix(f"{method}, ")))  # noqa: B023
        axes.set_title(method, fontsize="medium")
    return figure


def _scatter(figure_class: Any, points: pd.DataFrame, observer: Observer) -> Any:
    """A panel per layer; a colour, and beyond ten classes a shape too, per class."""
    layers, classes = (list(dict.fromkeys(points[column])) for column in ("layer", "class"))
    figure = figure_class(figsize=(4 * len(layers) + 1.5, 4.3), layout="constrained")
    for place, layer in enumerate(layers, 1):
        axes = figure.add_subplot(1, len(layers), place)
        of_layer = points[points["layer"] == layer]
        for number, name in enumerate(sorted(classes)):
            part = of_layer[of_layer["class"] == name]
            style = {"color": f"C{number % 10}", "marker": MARKERS[number // 10 % 8]}
            axes.scatter(part["x"], part["y"], label=_label(name), s=5, linewidths=0, **style)
        axes.set_title(layer, fontsize="medium")
        axes.set_xticks([])
        axes.set_yticks([])
    columns = 1 + (len(classes) - 1) // 20
    legend = figure.axes[-1].legend(
        fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), markerscale=3, ncols=columns
    )
    fonts, missing = _fonts("".join(map(_label, classes)))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name begins no formula
        text.set_fontfamily(fonts)
    if missing:
        observer.note(f"boxes stand for letters of class names that no font on this machine has: {first_ten(missing)}")
    return figure


def _fonts(text: str) -> tuple[list[str], list[str]]:
    """matplotlib's own font and, for letters that it lacks, others of this machine; and the letters that none has."""
    from matplotlib import font_manager

    fonts = ["DejaVu Sans"]
    letters = set(map(ord, text)) - font_manager.get_font(font_manager.findfont(fonts[0])).get_charmap().keys()
    for file in sorted(font_manager.findSystemFonts()) if letters else []:
        try:
            font = font_manager.get_font(file)
        except (OSError, RuntimeError):  # damaged, or of a kind that matplotlib cannot draw
            continue
        if font.scalable and letters & font.get_charmap().keys():
            font_manager.fontManager.addfont(file)  # it may be newer than matplotlib's list
            fonts.append(font.family_name)
            letters -= font.get_charmap().keys()
    return fonts, list(map(chr, sorted(letters)))


def _label(name: str) -> str:
    """A class name for a legend: matplotlib hides one that begins with an underscore, SVG has no control letters."""
    return f" {one_line(name)}" if name.startswith("_") else one_line(name)
