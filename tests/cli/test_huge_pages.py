"""Large tensors of a command lie in huge pages, told by the page faults of a process that takes and frees one."""

import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource, sys
from noisyknn.cli import ask_for_huge_pages
if sys.argv[1] == "huge":
    ask_for_huge_pages()
import torch
torch.set_num_threads(1)
torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not PAGES.exists() or "[madvise]" not in PAGES.read_text(), reason="this system gives none, or gives them unasked"
)
def test_large_tensors_need_few_page_faults() -> None:
    huge, as_it_comes = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], check=True, capture_output=True, text=True).stdout)
        for mode in ("huge", "as it comes")
    )
    assert huge < as_it_comes / 20
