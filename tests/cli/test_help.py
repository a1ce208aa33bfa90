from typing import Any

import pytest
import typer

from noisyknn.cli import app
from tests.cli.conftest import Cli

GROUP: Any = typer.main.get_command(app)


def test_there_is_a_command_for_every_job() -> None:
    assert {"clean", "inject-noise", "evaluate", "demo", "doctor"} <= GROUP.commands.keys()


@pytest.mark.parametrize("name", GROUP.commands)
def test_help_explains_the_command_and_every_option(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    shown = cli(name, "--help").stdout.decode()
    command = GROUP.commands[name]
    assert command.help.partition("\n")[0] in shown
    lines = [line.split() for line in shown.splitlines()]
    for option in command.params:
        name = option.opts[0] if option.opts[0].startswith("-") else "TABLE"
        (line,) = (line for line in lines if name in line[:3])
        assert option.help
        assert option.help.split()[0] in line, name


def test_defaults_that_are_not_values_are_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    shown = cli("clean", "--help").stdout.decode()
    for default in (
        "[default: (crossfit; selknn in the paper's presets)]",
        "[default: (last convolutional stage)]",
        "[default: (cache, until done)]",
    ):
        assert default in shown


def test_without_a_command_the_help_is_shown(cli: Cli) -> None:
    result = cli()
    assert result.code in (0, 2)  # by the version of typer
    assert "inject-noise" in result.stdout.decode() + result.stderr
