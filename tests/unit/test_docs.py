import ast
import dataclasses
import importlib
import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
from typer.main import get_command

import noisyknn
from noisyknn import cli, config
from noisyknn.config import Config, make_config, read_config
from noisyknn.data import table
from noisyknn.output import NEW_COLUMNS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_lists_every_command() -> None:
    names = [str(command.name) for command in cli.app.registered_commands]
    assert len(names) >= 5
    assert [name for name in names if f"| `noisyknn {name}` |" not in README] == []
    rows = [line for line in README.splitlines() if line.startswith("| `noisyknn paper ")]
    listed = set(re.findall(r"`(?:noisyknn paper )?(\w+)`", " ".join(row.split(" | ")[0] for row in rows)))
    first, last = (int(name.removeprefix("fig")) for name in sorted(listed) if name.startswith("fig"))
    listed |= {f"fig{number}" for number in range(first, last + 1)}  # `fig2` … `fig6`
    (paper,) = cli.app.registered_groups
    assert paper.typer_instance is not None
    assert {command.name for command in paper.typer_instance.registered_commands} == listed


def test_readme_explains_every_new_column_and_every_column_that_is_found_by_name() -> None:
    assert [name for name in NEW_COLUMNS if f"| `{name}` |" not in README] == []
    assert [name for name in (*table.PATH_COLUMNS, *table.LABEL_COLUMNS) if f"`{name}`" not in README] == []


def test_links_of_the_readme_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_the_gate_runs_the_command_of_the_readme() -> None:
    lines = [line for line in README.splitlines() if re.fullmatch(r"python3 -m venv \.venv .* pytest", line)]
    assert len(lines) == 1
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert project["version"] == noisyknn.__version__ == newest[1]


def test_every_setting_has_a_line_of_documentation() -> None:
    (definition,) = [node for node in ast.parse(inspect.getsource(config)).body
                     if isinstance(node, ast.ClassDef) and node.name == "Config"]  # fmt: skip
    documented = [
        field.target.id
        for field, text in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    ]  # fmt: skip
    assert documented == [field.name for field in dataclasses.fields(Config)]


def test_example_settings_are_valid() -> None:
    settings = read_config(ROOT / "examples" / "settings.toml")
    assert make_config(settings).episodes == settings["episodes"]


def test_scripts_of_the_paper_give_options_that_their_commands_have() -> None:
    paper = cast(Any, get_command(cli.app)).commands["paper"]
    scripts = sorted((ROOT / "examples" / "reproduce_paper").glob("*.sh"))
    assert len(scripts) == 10
    for script in scripts:
        text = re.sub(r"^#.*$", "", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (name,) = set(re.findall(r"noisyknn paper (\w+)", text))
        known = {option for parameter in paper.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z0-9-]+", text)) <= known, script.name


def test_the_tables_of_the_paper_are_written_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = ROOT / "examples" / "reproduce_paper"
    monkeypatch.syspath_prepend(scripts)
    assert (scripts / "TABLES.md").read_text(encoding="utf-8") == importlib.import_module("keep").markdown()


def test_the_page_on_the_paper_has_the_figures_of_the_results() -> None:
    kept = json.loads((ROOT / "examples" / "results" / "table1_small_mnist.json").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for cell in kept["cells"]:
        both = (cell["accuracy"][whose].split(" ")[0] for whose in ("paper", "ours"))
        found.setdefault(cell["method"], []).append(" / ".join(both))
    lines = (ROOT / "examples" / "paper.md").read_text(encoding="utf-8").splitlines()
    for method, cells in found.items():
        assert [sorted(line.split(" | ")[1:]) for line in (line.rstrip(" |") for line in lines)
                if line.startswith(f"| `{method}` |")] == [sorted(cells)]  # fmt: skip


def test_public_names_can_be_imported() -> None:
    assert [name for name in noisyknn.__all__ if not hasattr(noisyknn, name)] == []
