import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import noisyknn

# Imports point only down this list. "noisyknn" is the package itself, whose functions only the command line calls.
LAYERS = (
    "cli",
    "noisyknn",
    "demo",
    "machine",
    "paper",
    "api",
    "preparation",
    "history",
    "output",
    "presets",
    "methods",
    "training",
    "calibration",
    "knn",
    "models",
    "evaluation",
    "data",
    "run_dir",
    "files",
    "observer",
    "config",
    "errors",
)
FOR_ANYONE = {"noisyknn", "noisyknn.__version__"}
CONSOLE = ("print", "input", "exit", "quit", "breakpoint", "SystemExit", "os._exit", "rich", "click", "typer")
STREAMS = tuple(
    f"sys.{name}" for name in ("exit", "stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
)
UNSAFE = ("pickle", "torch.load", "cloudpickle", "dill", "joblib", "shelve", "pandas.read_pickle")
HARMLESS = ("pickle", "pickle.UnpicklingError")  # the name alone, and what is caught

PACKAGE = Path(noisyknn.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))


def references(source: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports and of everything that it reaches by a bare name."""
    tree = ast.parse(source)
    meaning: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
                name = alias.asname or alias.name.partition(".")[0]
                meaning[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom):
            parents = path.with_suffix("").parts[: -node.level] if node.level else ()
            base = ".".join((*parents, *filter(None, [node.module])))
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
                meaning[alias.asname or alias.name] = f"{base}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name, *attributes = ast.unparse(node).split(".")
            yield node.lineno, ".".join([meaning.get(name, name), *attributes])


def is_within(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def layer(parts: tuple[str, ...]) -> str:
    """The layer of a module, by the parts of its full name; what is no layer of its own is the package itself."""
    if parts[1:] == ("__main__",):
        return "cli"
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "noisyknn"


def faults(source: str, path: Path) -> list[str]:
    own = layer(path.with_suffix("").parts)
    allowed = {*LAYERS[LAYERS.index(own) :]}
    found = []
    for line, name in references(source, path):
        if is_within(name, ("noisyknn",)) and name not in FOR_ANYONE and layer(tuple(name.split("."))) not in allowed:
            found.append(f"{path}:{line}: {own} must not import {name}")
        if own != "cli" and is_within(name, CONSOLE + STREAMS):
            found.append(f"{path}:{line}: only cli may use {name}")
        if is_within(name, UNSAFE) and name not in HARMLESS:
            found.append(f"{path}:{line}: {name} runs what a file holds")
    return found


def test_every_module_has_a_place_in_the_list() -> None:
    names = {path.parts[1].removesuffix(".py") for path in MODULES} - {"__init__", "__main__"}
    assert names <= {*LAYERS}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down_and_only_the_command_line_talks(path: Path) -> None:
    assert faults((PACKAGE.parent / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data/table.py", "from noisyknn.training.trainer import Trainer"),
        ("data/table.py", "import noisyknn.models.blocks"),
        ("data/table.py", "from noisyknn import api"),
        ("data/table.py", "from noisyknn import clean"),
        ("data/table.py", "import noisyknn as nk\nnk.clean()"),
        ("data/table.py", "from ..models import losses"),
        ("data/__init__.py", "from ..models.losses import cross_entropy"),
        ("data/table.py", "def f():\n    from noisyknn.cli import main"),
        ("config.py", "from .run_dir import atomic_file"),
        ("api.py", "from noisyknn.cli.common import note"),
        ("__init__.py", "from noisyknn.cli import main"),
        ("run_dir.py", "print('done')"),
        ("run_dir.py", "out = print"),
        ("run_dir.py", "import sys\nsys.exit(1)"),
        ("run_dir.py", "from sys import stderr as err\nerr.write('x')"),
        ("run_dir.py", "import sys as system\nsystem.stdout.write('x')"),
        ("run_dir.py", "raise SystemExit"),
        ("run_dir.py", "from rich.console import Console"),
        ("run_dir.py", "import torch\ntorch.load('x')"),
        ("cli/clean.py", "import torch as t\nt.load('x')"),
        ("cli/clean.py", "from torch import load"),
        ("run_dir.py", "import pickle\npickle.loads(b'')"),
        ("run_dir.py", "from pickle import Unpickler"),
        ("run_dir.py", "import pandas as pd\npd.read_pickle('x')"),
    ],
)
def test_a_breach_is_found(module: str, source: str) -> None:
    assert faults(source, Path("noisyknn") / module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli/clean.py", "import sys\nfrom noisyknn import clean\nprint(clean(), file=sys.stderr)\nsys.exit(1)"),
        ("cli/clean.py", "from .common import note"),
        ("api.py", "import noisyknn\nfrom noisyknn.errors import InputError\nnoisyknn.__version__"),
        ("data/table.py", "from noisyknn.data.formats import parse_csv\nfrom . import formats"),
        ("data/table.py", "'print() and sys.exit'  # print()\nself.print()\nimage.load()"),
        ("models/weights.py", "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    pass"),
        ("run_dir.py", "import sys\nfrom safetensors.torch import load\nsys.maxsize"),
    ],
)
def test_what_is_allowed_is_no_breach(module: str, source: str) -> None:
    assert faults(source, Path("noisyknn") / module) == []
