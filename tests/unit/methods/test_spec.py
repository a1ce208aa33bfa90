import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from noisyknn.config import make_config
from noisyknn.errors import UsageError
from noisyknn.methods.spec import METHODS, find_method
from tests.small_data import FAST_SETTINGS, as_options, draw

TOY = '''
import torch

from noisyknn.methods.algorithm1 import Episode
from noisyknn.methods.baselines.ce import without_votes
from noisyknn.methods.spec import MethodSpec


def toy(task, last):
    """Every label becomes the first class."""
    if last is None:
        labels = torch.zeros_like(task.given_labels)
        evidence = torch.zeros(len(labels), task.classes, dtype=torch.float16)
        correction = without_votes(labels, evidence, torch.arange(len(labels)))
        yield Episode(index=0, gamma=0.0, cumulative_loss=torch.zeros(len(labels)), correction=correction)


SPEC = MethodSpec(run=toy, settings=frozenset({"policy"}), words=lambda _: "the first class wins",
                  defaults={"policy": "paper", "episodes": 1})
'''


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_found_and_its_defaults_are_settings(name: str) -> None:
    spec = find_method(name)
    config = make_config({"method": name, **spec.defaults})
    make_config({"method": name, **spec.defaults, **spec.clothing1m})
    assert spec.settings <= config.__dict__.keys()


def test_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no `method` 'selkn'; did you mean selknn\\?"):
        find_method("selkn")
    with pytest.raises(UsageError, match="choose one of crossfit, selknn, iterknn"):
        find_method("xyz")


def test_the_registry_is_read_without_torch() -> None:
    code = "import sys; import noisyknn.methods.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_new_method_is_one_file_and_one_line(tmp_path: Path) -> None:
    table = draw(tmp_path / "images")
    table.to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "toy_method.py").write_text(TOY)
    program = textwrap.dedent("""
        import sys
        from noisyknn.methods.spec import METHODS

        METHODS["toy"] = ("toy_method", "the first class wins")
        from noisyknn.cli import main

        main()
    """)
    files = ["--images", "images", "--labels", "labels.csv", "--out", "fixed.csv"]
    settings = as_options({**FAST_SETTINGS, "method": "toy"})
    command = [sys.executable, "-c", program, "clean", *files, *settings, "--save-model", "toy.safetensors"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "toy, the first class wins; cnn5 of width 0.25" in ran.stderr
    assert "settings without effect here: --episodes, --k, --loss, --reference-start" in ran.stderr
    lines = (tmp_path / "fixed.csv").read_text().splitlines()
    place = lines[0].split(",").index("corrected_label")
    assert {line.split(",")[place] for line in lines[1:]} == {"blue"}
    assert (tmp_path / "toy.safetensors").exists()
