import inspect
import re

import pytest

from noisyknn import errors
from noisyknn.errors import NoisyKnnError, first_ten, one_line, quoted, shortened

EXIT_CODES = {
    "NoisyKnnError": 1,
    "MachineError": 1,
    "UsageError": 2,
    "InputError": 3,
    "GateError": 4,
    "InterruptedRunError": 130,
}


def defined_errors() -> dict[str, type[NoisyKnnError]]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: kind for name, kind in classes if issubclass(kind, NoisyKnnError)}


def test_exit_codes_are_the_documented_ones() -> None:
    assert {name: kind.exit_code for name, kind in defined_errors().items()} == EXIT_CODES


def test_the_tree_in_the_docstring_is_the_one_of_the_classes() -> None:
    drawn = re.findall(r"^((?:│   |    )*)(?:[├└]── )?(\w+) +(\d+) ", errors.__doc__ or "", flags=re.MULTILINE)
    branches = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    assert len(drawn) == 1 + len(branches)
    assert {name: int(code) for _, name, code in drawn} == EXIT_CODES
    parents = {name: "Exception" if name == "NoisyKnnError" else "NoisyKnnError" for _, name, _ in drawn}
    assert {name: kind.__base__.__name__ for name, kind in defined_errors().items() if kind.__base__} == parents


def test_the_message_is_shown_as_it_stands() -> None:
    assert [str(kind("labels.csv: no")) for kind in defined_errors().values()] == ["labels.csv: no"] * len(EXIT_CODES)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ""),
        (1, "0"),
        (3, "0, 1, 2"),
        (10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (11, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 … and 1 more"),
        (1000, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 … and 990 more"),
    ],
)
def test_ten_items_are_shown_and_the_rest_counted(count: int, text: str) -> None:
    assert first_ten(range(count)) == text


def test_each_of_the_ten_is_one_line_of_bearable_length() -> None:
    text = first_ten(["a\nb", *["x" * 300_000] * 11])
    assert text.startswith("a\\nb, xxx")
    assert text.endswith("… (300,000 characters) … and 2 more")
    assert len(text) < 10 * 700


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ümlaut and 😀", "plain, ümlaut and 😀"),
        ("a\nnoisyknn: all is well", "a\\nnoisyknn: all is well"),
        ("\x1b[2J\r\u2028\u202e", "\\x1b[2J\\r\\u2028\\u202e"),
    ],
)
def test_control_characters_are_spelled_out(text: str, shown: str) -> None:
    assert one_line(text) == shortened(text) == shown


def test_what_is_quoted_looks_like_python_and_is_cut() -> None:
    assert quoted("it's\n") == '"it\'s\\n"'
    assert quoted(3) == "3"
    assert quoted("x" * 198) == "'" + "x" * 198 + "'"
    assert quoted("x" * 199) == "'" + "x" * 199 + "… (201 characters)"
