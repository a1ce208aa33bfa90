import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisyknn.demo import write_digits
from noisyknn.paper import drawing
from tests.cli.conftest import Cli, Result

CUT = ["--preset", "mnist", "--rows", "400", "--epochs", "4", "--width", "0.25", "--precision", "fp32"]
CUT += ["--noise", "symmetric-40"]
OPTIONS = {
    "fig2": [],
    "fig3": ["--k", "10", "--every", "3"],
    "fig4": ["--k", "10", "--episodes", "2"],
    "fig5": ["--every", "3"],
    "fig6": ["--k", "10", "--every", "3"],
}
CURVES = {
    "fig3": [
        "network",
        "IterKNN, noisy labels",
        "IterKNN, true labels",
        "SelKNN, filtered labels",
        "SelKNN, true labels",
        "clean rate of references",
    ],
    "fig4": ["from new weights", "learning rate reset", "no retraining"],
    "fig5": ["network", *(f"{m}, k = {k}" for k in (5, 20, 50) for m in ("SelKNN", "IterKNN")), "IterKNN, k = 100"],
    "fig6": ["stem", "stage1", "stage2", "stage3", "head"],
}
Draw = Callable[..., Result]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.fixture
def draw(cli: Cli, digits: Path, tmp_path: Path) -> Draw:
    def run(name: str, *options: object) -> Result:
        files = ["--images", digits / "images", "--labels", digits / "labels.csv", "--out", tmp_path / "out"]
        return cli("paper", name, *files, *CUT, *OPTIONS[name], *options)

    return run


def is_drawn(folder: Path, name: str) -> bool:
    with Image.open(folder / f"{name}.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    return len(colours) > 50 and (folder / f"{name}.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize("name", CURVES)
def test_a_figure_of_curves(draw: Draw, tmp_path: Path, name: str) -> None:
    result = draw(name)
    assert result.code == 0
    points = pd.read_csv(tmp_path / "out" / f"{name}.csv")
    found = list(dict.fromkeys(points["curve"]))
    assert found == CURVES[name] if name != "fig5" else set(CURVES[name]) <= set(found)
    assert sorted(set(points[points.columns[0]])) == ([1, 2] if name == "fig4" else [3, 4])
    assert points.columns[0] == ("episode" if name == "fig4" else "epoch")
    assert points["accuracy"].between(0, 1).all()
    assert is_drawn(tmp_path / "out", name)
    for ending in ("csv", "png", "svg"):
        assert f"wrote {tmp_path / 'out' / name}.{ending}" in result.stderr


def test_true_labels_of_neighbours_tell_more_than_noisy_ones(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig3", "--epochs", "8", "--every", "8").code == 0
    accuracy = pd.read_csv(tmp_path / "out" / "fig3.csv").set_index("curve")["accuracy"]
    assert accuracy["IterKNN, true labels"] > accuracy["IterKNN, noisy labels"]
    assert accuracy["SelKNN, true labels"] > accuracy["SelKNN, filtered labels"]
    assert accuracy["clean rate of references"] > 0.62


def test_a_figure_of_points(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig2").code == 0
    points = pd.read_csv(tmp_path / "out" / "fig2.csv")
    assert points.groupby("layer", sort=False).size().to_dict() == {"stage1": 400, "stage3": 400, "head": 400}
    assert set(points["class"]) == set(range(10))
    assert is_drawn(tmp_path / "out", "fig2")
    assert "4 epochs, batches of 256, cross-entropy" in (tmp_path / "out" / "fig2.svg").read_text()


def test_names_of_classes_are_shown_as_they_are(tmp_path: Path) -> None:
    """A dollar starts no formula, an underscore hides no class."""
    names = ["$x^", "_hidden", "cost in $", "plain\x01"]
    points = pd.DataFrame({"layer": "head", "x": [0.0, 1, 2, 3], "y": [0.0, 1, 0, 1], "class": names})
    drawing.draw(points, "title", [tmp_path / "fig2.svg"])
    drawn = (tmp_path / "fig2.svg").read_text()
    assert all(f"<!-- {label} -->" in drawn for label in ("$x^", " _hidden", "cost in $", r"plain\x01"))


def test_smaller_batches_take_more_steps(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig2", "--batch-size", "40", "--epochs", "1").code == 0
    assert "1 epoch, batches of 40, cross-entropy" in (tmp_path / "out" / "fig2.svg").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fig2.csv", "fig2.png", "fig2.svg"]


def test_what_is_there_is_not_drawn_over(draw: Draw, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fig6.svg").write_text("mine")
    refused = draw("fig6")
    assert refused.code == 2
    assert "exists already; add --overwrite" in refused.stderr
    assert (tmp_path / "out" / "fig6.svg").read_text() == "mine"
    assert draw("fig6", "--overwrite").code == 0
    assert is_drawn(tmp_path / "out", "fig6")


def test_an_image_of_the_table_is_not_drawn_over(draw: Draw, digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    shutil.copyfile(digits / "images" / "0000.png", folder / "fig6.png")
    table = pd.read_csv(digits / "labels.csv").assign(path=lambda rows: [*rows["path"][:-1], "fig6.png"])
    for name in table["path"][:-1]:
        (folder / name).symlink_to(digits / "images" / name)
    table.to_csv(tmp_path / "labels.csv", index=False)
    before = (folder / "fig6.png").read_bytes()
    refused = draw("fig6", "--images", folder, "--labels", tmp_path / "labels.csv", "--rows", len(table), "--overwrite")
    assert refused.code == 2
    assert "is also an input" in refused.stderr
    assert (folder / "fig6.png").read_bytes() == before


def test_where_images_are_missing_fewer_neighbours_can_vote(draw: Draw, digits: Path, tmp_path: Path) -> None:
    table = pd.read_csv(digits / "labels.csv")[:400]
    table["path"] = [path if row < 40 else f"missing-{path}" for row, path in enumerate(table["path"])]
    table.to_csv(tmp_path / "labels.csv", index=False)
    refused = draw("fig3", "--labels", tmp_path / "labels.csv")
    assert refused.code == 3
    assert "360 images could not be read" in refused.stderr
    assert "too few rows for 10 neighbours" in refused.stderr


def test_without_matplotlib_it_says_so_at_once(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    refused = draw("fig3")
    assert refused.code == 1
    assert "figures need matplotlib: pip install 'noisyknn[bench]'" in refused.stderr


@pytest.mark.parametrize(
    ("name", "options", "code", "message"),
    [
        ("fig5", ["--k", "5"], 2, "--k has no effect on fig5; remove it"),
        ("fig2", ["--every", "2"], 2, "--every has no effect on fig2; remove it"),
        ("fig3", ["--episodes", "2"], 2, "--episodes has no effect on fig3; remove it"),
        ("fig6", ["--noise", "uniform-10"], 2, "is not of the form symmetric-40"),
        ("fig2", ["--out", __file__], 2, "is not a folder"),
        ("fig3", ["--k", "80"], 3, "too few rows for 80 neighbours"),
        ("fig2", ["--noise", "asymmetric-100"], 3, "--noise asymmetric-100 leaves a class no row"),
    ],
)
def test_wrong_usage(draw: Draw, name: str, options: list[str], code: int, message: str) -> None:
    refused = draw(name, *options)
    assert refused.code == code
    assert message in refused.stderr


def test_blank_images_have_no_figure_of_points(draw: Draw, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "blank").mkdir()
    table = pd.read_csv(digits / "labels.csv")[:100]
    for name in table["path"]:
        Image.new("L", (8, 8)).save(tmp_path / "blank" / name)
    table.to_csv(tmp_path / "labels.csv", index=False)
    refused = draw("fig2", "--images", tmp_path / "blank", "--labels", tmp_path / "labels.csv", "--epochs", "1")
    assert refused.code == 3
    assert "gives the same output for all images" in refused.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_points_of_few_images(draw: Draw, tmp_path: Path) -> None:
    assert draw("fig2", "--rows", "20", "--epochs", "1", "--noise", "symmetric-0").code == 0
    assert len(pd.read_csv(tmp_path / "out" / "fig2.csv")) == 60
