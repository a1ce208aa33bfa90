from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisyknn.data.images import UnreadableImageError, decode
from noisyknn.data.paths import resolve_paths
from noisyknn.errors import InputError

WHERE = "labels.csv, column 'path'"


def save(path: Path, red: int) -> None:
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


def reason(path: Path) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(path, 8, "squash")
    return str(caught.value)


def test_joins_each_path_to_the_folder(tmp_path: Path) -> None:
    absolute = str(tmp_path / "c.png")
    found = resolve_paths(tmp_path, ["a.png", "sub/./b.PNG", "sub/../d.png", absolute], WHERE)
    assert found == [tmp_path / name for name in ("a.png", "sub/b.PNG", "d.png", "c.png")]


def test_a_relative_folder_may_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    inside = str(tmp_path / "set" / "b.png")
    assert resolve_paths(Path("set"), ["a.png", inside], WHERE) == [tmp_path / "set/a.png", tmp_path / "set/b.png"]


def test_the_folder_may_be_the_whole_disk() -> None:
    found = resolve_paths(Path("/"), ["a.png", "../b.png", "/c.png"], WHERE)
    assert found == [Path("/a.png"), Path("/b.png"), Path("/c.png")]


def test_two_leading_slashes_are_one(tmp_path: Path) -> None:
    assert resolve_paths(Path(f"/{tmp_path}"), ["a.png"], WHERE) == [tmp_path / "a.png"]


@pytest.mark.parametrize("path", ["../x.png", "a/../../x.png", "/etc/passwd", "a/../../imagesx/y.png"])
def test_refuses_what_leaves_the_folder(tmp_path: Path, path: str) -> None:
    root = tmp_path / "images"
    root.mkdir()
    with pytest.raises(InputError, match=r"labels\.csv, column 'path': 1 path leads .*row 2: .*`images`"):
        resolve_paths(root, ["fine.png", path], WHERE)


def test_counts_all_and_shows_ten(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        resolve_paths(tmp_path, ["ok.png"] + [f"../{i}.png" for i in range(12)], WHERE)
    message = str(caught.value)
    assert "12 paths" in message
    assert "row 11: '../9.png' … and 2 more" in message
    assert "row 12" not in message


def test_links_are_followed_but_do_not_bend_dots(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere/deep"
    elsewhere.mkdir(parents=True)
    root.mkdir()
    save(elsewhere / "a.png", red=1)
    save(elsewhere.parent / "secret.png", red=2)
    (root / "link").symlink_to(elsewhere)
    followed, bent = resolve_paths(root, ["link/a.png", "link/../secret.png"], WHERE)
    assert np.all(decode(followed, 8, "squash") == [1, 0, 0])
    assert reason(bent) == "no such file"


def test_paths_may_name_the_folder_behind_a_linked_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    path = str(tmp_path / "real/a.png")
    assert resolve_paths(tmp_path / "link", [path], WHERE) == [Path(path)]


def test_the_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`images` .*gone: no such folder"):
        resolve_paths(tmp_path / "gone", [], WHERE)


def test_the_folder_must_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"`images` .*file: not a folder"):
        resolve_paths(tmp_path / "file", [], WHERE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\0b.png", "no file can have this name"),
        ("x" * 5000, "file name too long"),
        ("a\udcff.png", "no such file"),
    ],
)
def test_impossible_names_are_files_that_cannot_be_read(tmp_path: Path, name: str, expected: str) -> None:
    (path,) = resolve_paths(tmp_path, [name], WHERE)
    assert reason(path) == expected
