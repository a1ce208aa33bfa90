from pathlib import Path

import pytest

from noisyknn.data.clothing1m import read_part
from noisyknn.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "category_names_eng.txt": "T-Shirt\nDown Coat\nUnderwear\n",
        "noisy_label_kv.txt": "images/0/00/a.jpg 2\nimages/1/11/b,c.jpg 0\n\nimages/2/22/d.jpg 1\n",
        "clean_label_kv.txt": "images/2/22/d.jpg 2\nimages/3/e.jpg 1\n",
        "noisy_train_key_list.txt": "images/1/11/b,c.jpg\nimages/0/00/a.jpg\n",
        "clean_test_key_list.txt": "images/3/e.jpg\nimages/2/22/d.jpg\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_parts_have_the_labels_of_their_own_list(root: Path) -> None:
    noisy, clean = read_part(root, "noisy_train"), read_part(root, "clean_test")
    assert noisy["path"].tolist() == ["images/1/11/b,c.jpg", "images/0/00/a.jpg"]
    assert noisy["label"].tolist() == ["T-Shirt", "Underwear"]
    assert clean["path"].tolist() == ["images/3/e.jpg", "images/2/22/d.jpg"]
    assert clean["label"].tolist() == ["Down Coat", "Underwear"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("clean_label_kv.txt", "images/3/e.jpg 1\n", "1 image has no label in clean_label_kv.txt: images/2/22/d.jpg"),
        (
            "clean_label_kv.txt",
            "images/3/e.jpg 3\n",
            "line 1: 'images/3/e.jpg 3' is not a path and a class from 0 to 2",
        ),
        ("clean_label_kv.txt", "\nimages/3/e.jpg\n", "line 1: 'images/3/e.jpg' is not a path"),
        ("clean_label_kv.txt", "images/3/e.jpg -1\n", "is not a path and a class"),
        ("category_names_eng.txt", "Shirt\nHoodie\nShirt\n", "has the same class more than once"),
        ("category_names_eng.txt", "\n\n", "category_names_eng.txt is empty"),
    ],
)
def test_what_cannot_be_understood_is_named(root: Path, file: str, text: str, message: str) -> None:
    (root / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_part(root, "clean_test")


def test_a_byte_order_mark_is_no_part_of_a_path(root: Path) -> None:
    file = root / "clean_label_kv.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_part(root, "clean_test")["path"].tolist() == ["images/3/e.jpg", "images/2/22/d.jpg"]


def test_another_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is this the folder of Clothing1M"):
        read_part(tmp_path, "clean_test")
