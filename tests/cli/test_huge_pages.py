"""Commands ask the system for huge pages for large tensors, told by what the system notes of a tensor's memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SMAPS = Path("/proc/self/smaps")
# "hg" among the flags of a mapping: huge pages were asked for; whether it has any to give is the system's affair
FLAGS = """
import sys
from noisyknn.cli import ask_for_huge_pages
if sys.argv[1] == "asked":
    ask_for_huge_pages()
import torch
tensor = torch.ones(1 << 24)
here = False
for line in open("/proc/self/smaps"):
    first, *rest = line.split()
    if not first.endswith(":"):
        start, end = (int(address, 16) for address in first.split("-"))
        here = start <= tensor.data_ptr() < end
    elif here and first == "VmFlags:":
        print("hg" in rest)
"""


@pytest.mark.skipif(not SMAPS.exists() or "VmFlags:" not in SMAPS.read_text(), reason="this system does not tell")
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has none")
@pytest.mark.parametrize(("mode", "expected"), [("asked", "True\n"), ("as it comes", "False\n")])
def test_large_tensors_are_to_lie_in_huge_pages(mode: str, expected: str) -> None:
    unset = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}  # by the environment
    run = subprocess.run([sys.executable, "-c", FLAGS, mode], check=True, capture_output=True, text=True, env=unset)
    assert run.stdout == expected
