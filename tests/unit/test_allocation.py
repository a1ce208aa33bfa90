"""Memory that is freed is kept, told by the page faults of a process that takes and frees a large tensor."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from noisyknn.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import torch
torch.set_num_threads(1)
torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_what_was_freed_is_taken_again_without_faults() -> None:
    kept, as_before = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], check=True, capture_output=True, text=True).stdout)
        for mode in ("keep", "as before")
    )
    assert kept < 1000
    assert as_before > 100 * kept
