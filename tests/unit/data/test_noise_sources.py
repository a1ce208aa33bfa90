from pathlib import Path

import numpy as np
import pytest

from noisyknn.data.noise_sources import CIFAR100_CLASSES, read_map, read_matrix
from noisyknn.errors import InputError

# the superclass of each fine class, as CIFAR-100's own files give them
COARSE_TEXT = (
    "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 "
    "5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 "
    "16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
)
COARSE = COARSE_TEXT.split()


def test_mnist() -> None:
    assert read_map("mnist", list(range(10))) == {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}
    assert read_map("mnist", list("0123456789"))["7"] == "1"


def test_cifar10_by_name_and_by_index() -> None:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert read_map("cifar10", [*names]) == {
        "truck": "automobile",
        "bird": "airplane",
        "cat": "dog",
        "dog": "cat",
        "deer": "horse",
    }
    assert read_map("cifar10", list(range(10))) == {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}


def test_cifar100_goes_round_in_blocks_of_five() -> None:
    assert read_map("cifar100", list(range(100))) == {c: c // 5 * 5 + (c + 1) % 5 for c in range(100)}


def test_cifar100_superclass_goes_round_in_the_true_superclasses() -> None:
    expected: dict[object, object] = {}
    for superclass in set(COARSE):
        fine = [c for c in range(100) if COARSE[c] == superclass]
        expected |= {c: fine[(i + 1) % 5] for i, c in enumerate(fine)}
    assert read_map("cifar100-superclass", list(range(100))) == expected
    assert read_map("cifar100-superclass", [*CIFAR100_CLASSES])["beaver"] == "dolphin"
    assert [CIFAR100_CLASSES[c] for c in (0, 23, 99)] == ["apple", "cloud", "worm"]


def test_a_named_map_needs_its_classes() -> None:
    with pytest.raises(InputError, match="the table lacks: 7, 8"):
        read_map("mnist", list(range(7)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.json", '{"1": 2, "3": "1"}'),
        ("map.csv", "from,to\n1,2\n3,1\n"),
        ("map.txt", "from,to\n1,2.0\n3,1.0\n"),
    ],
)
def test_a_map_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_map(str(tmp_path / name), [1, 2, 3]) == {1: 2, 3: 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.json", '{"cat": "dog", "cat": "fox"}', "twice: cat"),
        ("map.json", '["cat", "dog"]', "one JSON object"),
        ("map.json", '[["cat", "dog"]]', "one JSON object"),
        ("map.json", '{"cat": ["dog"]}', "one JSON object"),
        ("map.json", "{}", "one JSON object"),
        ("map.json", '{"cat": ', "one JSON object"),
        ("map.json", '{"cat": "cow"}', "the table lacks: cow"),
        ("map.csv", "from,to\ncat,dog\ncat,fox\n", "twice: cat"),
        ("map.csv", "from,to\ncat,dog\nfox,\n", "rows without a class on one side: 2"),
        ("map.csv", "a,b\ncat,dog\n", "from,to"),
    ],
)
def test_refuses_a_bad_map_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_map(str(tmp_path / name), ["cat", "dog", "fox"])
    assert str(tmp_path / name) in str(error.value)


def test_a_misspelt_map_name_is_answered_with_the_names() -> None:
    with pytest.raises(InputError, match=r"no such file.*mnist, cifar10, cifar100, cifar100-superclass"):
        read_map("cifar11", ["cat", "dog"])


def test_a_matrix_is_put_in_the_order_of_the_classes(tmp_path: Path) -> None:
    file = tmp_path / "matrix.csv"
    file.write_text(",fox,cat,dog\ncat,0.2,0.70,0.1\nfox,1,0,0\ndog,0,0.5,0.5\n")
    expected = [[0.7, 0.1, 0.2], [0.5, 0.5, 0], [0, 0, 1]]
    np.testing.assert_array_equal(read_matrix(file, ["cat", "dog", "fox"]), expected)


def test_a_matrix_of_numbered_classes(tmp_path: Path) -> None:
    file = tmp_path / "matrix.csv"
    file.write_text("true,0,1\n0,0.9,0.1\n1,0.3,0.6999999\n")
    np.testing.assert_array_equal(read_matrix(file, [0, 1]), [[0.9, 0.1], [0.3, 0.6999999]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",cat,dog\ncat,0.9,0.1\ndog,0.5,0.4\n", r"row 'dog' sums to 0\.9;"),
        (",cat,dog\ncat,0.9,0.100002\ndog,0.5,0.5\n", r"row 'cat' sums to 1\.000002;"),
        (",cat,dog\ncat,0.9,0.1\ndog,1.5,-0.5\n", r"row 'dog': 1\.5, -0\.5 is not a probability"),
        (",cat,dog\ncat,0.9,0.1\ndog,0.5,\n", "row 'dog'"),
        (",cat,dog\ncat,0.9,0.1\ndog,0.5,half\n", "row 'dog': could not convert string to float: 'half'"),
        (",cat\ncat,1\n", "header lacks classes of the table: dog"),
        (",cat,dog\ncat,0.5,0.5\n", "first column lacks classes of the table: dog"),
        (",cat,dog\ncat,0.5,0.5\ndog,1,0\ndog,0,1\n", "first column names classes twice: dog"),
        (",cat,dog,cow\ncat,1,0,0\ndog,0,1,0\ncow,0,0,1\n", "header names classes that the table lacks: cow"),
    ],
)
def test_refuses_a_bad_matrix(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "matrix.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_matrix(file, ["cat", "dog"])
    assert str(file) in str(error.value)
