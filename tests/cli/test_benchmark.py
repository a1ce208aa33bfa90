import json

import pytest

from tests.cli.conftest import Cli

SPEED = ["benchmark", "speed", "--rows", "100", "--backbone", "cnn5", "--image-size", "8", "--repeats", "1"]
SPEED += ["--device", "cpu", "--workers", "0"]


def test_speed_as_a_table(cli: Cli) -> None:
    result = cli(*SPEED)
    assert result.code == 0
    told = result.stdout.decode()
    assert "decode 500 x 375 to 224" in told
    assert "loss and backward" in told
    assert "drawing 100 pictures" in result.stderr


def test_speed_as_json(cli: Cli) -> None:
    result = cli(*SPEED, "--json", "--quiet", "--rows", "120", "--seed", "3")
    assert (result.code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert {stage["rows"] for stage in found["stages"]} == {100, 120}
    assert found["config"]["seed"] == 3


@pytest.mark.parametrize(
    "wrong", [["--rows", "9"], ["--backbone", "cnn9"], ["--device", "cuda:99x"], ["--repeats", "0"]]
)
def test_wrong_usage(cli: Cli, wrong: list[str]) -> None:
    assert cli(*SPEED, *wrong).code == 2


def test_help_lists_what_can_be_measured(cli: Cli) -> None:
    result = cli("benchmark", "--help")
    assert result.code == 0
    assert "speed" in result.stdout.decode()
